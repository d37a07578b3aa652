"""`calibtrain entropy`: the entropy rate of generations against the text that they continue.

Documents are cut after a prefix. The model goes on from each prefix, and also predicts what the
document itself says; both are compared position by position. Then a global temperature (Algorithm 1
of Braverman et al. 2020) and a look-ahead (Algorithm 2) are fitted to validation text, and
generations with each are measured in the same way.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calibtrain.analysis.blocks import first_bytes
from calibtrain.analysis.continuations import Scored, generated_tokens, given_tokens
from calibtrain.analysis.entropy_rate import (
    BYTES,
    ENTROPY,
    INFORMATION,
    TOKENS,
    bits_per_byte,
    by_position,
    calibration_figures,
    figure,
    nats_per_token,
    position_sums,
    reaching,
    rise,
)
from calibtrain.analysis.lookahead_fit import FittedLookahead, cross_entropies, fit_lookahead
from calibtrain.analysis.lookahead_table import read_lookahead
from calibtrain.analysis.memory_bound import eligible
from calibtrain.analysis.of_run import Opened, require
from calibtrain.config.temperature import GlobalTemperature
from calibtrain.errors import UserError
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import Sampling
from calibtrain.metrics.intervals import Interval
from calibtrain.models import TEMPERATURE
from calibtrain.posthoc.hidden_text import read_hidden_text
from calibtrain.runs.analysis_records import EntropyRecord
from calibtrain.temperature import tempered

CALIBRATIONS = ("none", "temperature", "look-ahead", "both")
FIT_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is read and generated; lengths are in bytes.

    The defaults are those of Cao et al. (5,000 prompts of 128 tokens, a human continuation of at
    least 1,024, the first 1,000 positions), made smaller for models and documents of this size.

    Attributes:
        prompts: documents, at most.
        samples: generations from each prefix.
        prefix: bytes of a prefix.
        reference: bytes that a document holds after it, at least.
        positions: bytes after the prefix that are compared; None means `reference`.
        width: bytes of a bin of positions.
        seed: of the documents and the generations.
        fit_bytes: of validation text, about, that the temperature is fitted on.
        fit_positions: positions of validation text that the look-ahead is fitted on.
        candidates: of the look-ahead at each position.
    """

    prompts: int = 64
    samples: int = 1
    prefix: int = 128
    reference: int = 512
    positions: int | None = None
    width: int = 32
    seed: int = 0
    fit_bytes: int = 100_000
    fit_positions: int = 400
    candidates: int = 32

    @property
    def reach(self) -> int:
        """Bytes after the prefix that are compared."""
        return self.reference if self.positions is None else self.positions

    def check(self) -> None:
        """Raises a UserError for a number that is not allowed."""
        require("prompts", self.prompts, 2)
        require("samples", self.samples, 1)
        require("prefix", self.prefix, 0)
        require("reference", self.reference, 1)
        require("positions", self.reach, 1)
        require("bin", self.width, 1)
        require("fit-positions", self.fit_positions, 2)
        require("candidates", self.candidates, 2)
        if self.reach > self.reference:
            raise UserError(
                f"--positions: {self.reach} is more than --reference {self.reference}; documents "
                "must reach every position that is compared"
            )


def measure_entropy(
    run: Opened, protocol: Protocol | None = None, *, calibrate: str = "both"
) -> tuple[EntropyRecord, Path | None]:
    """Returns the entropy record of a run, and the file that it wrote.

    Args:
        run: the run, and the split whose documents are continued.
        protocol: what is read and generated; None means the defaults.
        calibrate: one of `CALIBRATIONS`: what is fitted and generated with, besides the model.

    Raises:
        UserError: for numbers that are not allowed, documents that are too short, and as
            `evaluate_run` does.
    """
    asked = protocol or Protocol()
    asked.check()
    if calibrate not in CALIBRATIONS:
        raise UserError(
            f"--calibrate: {calibrate!r} is not known; allowed: {', '.join(CALIBRATIONS)}"
        )
    reach = asked.reach
    texts = run.continuations(asked.prompts, asked.prefix, asked.reference, asked.seed)
    prompts = [each.prefix for each in texts]
    run.progress.stage("scoring the documents")
    given = [[each] for each in given_tokens(run.model, texts, reach)]
    sums = position_sums(given, reach, asked.width)
    rows = [_row("text", "cross entropy", given, sums, INFORMATION, asked)]
    notes: list[str] = []

    def add(name: str, sampling: Sampling, model: LanguageModel | None = None) -> None:
        """Generates in one way, and adds its row."""
        found = run.generate(
            prompts,
            name,
            max_bytes=reach,
            seed=asked.seed,
            samples=asked.samples,
            sampling=sampling,
            model=model,
        )
        changed = bool(sampling.described)
        scored = [generated_tokens(each, drawn=changed) for each in found]
        own = position_sums(scored, reach, asked.width)
        row = _row(name, "draws" if changed else "entropy", scored, own, ENTROPY, asked)
        row["sampling"] = sampling.described
        rows.append({**row, **calibration_figures(own.sum(1), sums.sum(1))})

    add("ancestral", Sampling())
    more: dict[str, Any] = {}
    if calibrate in ("temperature", "both"):
        if run.model.network.head is None:
            more["temperature"], model = _temperature(run, asked)
            add("temperature", Sampling(), model)
        else:
            notes.append(
                f"a temperature head ({run.model.head_name or 'its own'}) divides the logits "
                "already; no global temperature was fitted to it"
            )
    if calibrate in ("look-ahead", "both"):
        fitted = _lookahead(run, asked, texts, notes)
        if fitted is not None:
            more["lookahead"] = fitted
            count = fitted["candidates"]
            add("top-k", Sampling(top_k=count))
            alpha = fitted["alpha"]["estimate"]
            add("look-ahead", Sampling(lookahead=alpha, lookahead_top=count))
    about = run.facts(len(texts), dataclasses.asdict(asked))
    known = run.saved.corpus(run.corpus).provenance.entropy_bits_per_byte
    tree = {**about, "source_bits_per_byte": known, "rows": rows, **more}
    if notes:
        tree["notes"] = [*tree.get("notes", ()), *notes]
    record = EntropyRecord.parse(tree, "entropy")
    return record, run.write("entropy", record)


def _row(
    name: str,
    measured: str,
    scored: Sequence[Sequence[Scored]],
    sums: np.ndarray,
    column: int,
    asked: Protocol,
) -> dict[str, Any]:
    """Returns what `TextsRow` says of any texts."""
    common = reaching(scored, asked.reach)
    total = sums.sum(1)
    return {
        "name": name,
        "measured": measured,
        "texts": sum(map(len, scored)),
        "ended": sum(text.ended for each in scored for text in each),
        "common_texts": sum(len(each) for each, whole in zip(scored, common, strict=True) if whole),
        "tokens": int(total[:, TOKENS].sum()),
        "bytes": int(total[:, BYTES].sum()),
        "nats_per_token": figure(total, nats_per_token(column)),
        "bits_per_byte": figure(total, bits_per_byte(column)),
        "rise": rise(sums, common, column),
        "positions": by_position(sums, common, asked.width, column),
    }


def _temperature(run: Opened, asked: Protocol) -> tuple[dict[str, Any], LanguageModel]:
    """Returns Algorithm 1's fit, and the model with its temperature."""
    run.progress.stage("fitting: temperature")
    text = read_hidden_text(
        run.saved, run.corpus, FIT_SPLIT, asked.fit_bytes, keep=False, progress=run.progress
    )
    config = GlobalTemperature(kind="global")
    found = fit_global_temperature(
        text.output_layer, text.states, lowest=1 / config.limit, highest=config.limit
    )
    model = run.model
    network = tempered(model.network, config)
    assert network.head is not None
    own = network.head.at(network.head.init(jax.random.key(0)), found.temperature)
    changed = LanguageModel(
        network,
        {**model.params, TEMPERATURE: own},
        model.tokenizer,
        model.context,
        "global",
        model.about,
    )
    fit = {
        "alpha": 1 / found.temperature - 1,
        "temperature": found.temperature,
        "nll_before": found.nll_before,
        "nll_after": found.nll_after,
        "fitted_on": FIT_SPLIT,
    }
    return fit, changed


def _lookahead(
    run: Opened, asked: Protocol, measured: Sequence[Any], notes: list[str]
) -> dict[str, Any] | None:
    """Returns Algorithm 2's fit; None, with a note, where there is none."""
    tables = []
    fitted_on = run.continuations(
        asked.prompts, asked.prefix, asked.reference, asked.seed, FIT_SPLIT
    )
    for name, texts in ((FIT_SPLIT, fitted_on), (run.split, measured)):
        run.progress.stage(f"looking ahead in {name} text")
        ids, first = [], []
        for each in texts:
            start = len(run.model.prompt_ids(each.prefix))
            ids.append(run.model.prompt_ids(each.prefix + first_bytes(each.text, asked.reach)))
            first.append(min(start, len(ids[-1]) - 1))
        places = eligible(first, list(map(len, ids)), 0, asked.fit_positions, asked.seed)
        tables.append(
            read_lookahead(run.model, ids, places, top=asked.candidates, progress=run.progress)
        )
    fit_on, held_out = tables
    try:
        found = fit_lookahead(fit_on)
    except ValueError as error:
        notes.append(f"the look-ahead was not fitted: {error}")
        return None
    own = held_out.covered
    gain = cross_entropies(held_out, 0.0) - cross_entropies(held_out, found.alpha.estimate)
    documents = held_out.documents[own]
    sums = np.stack([np.bincount(documents), np.bincount(documents, gain)], axis=-1)
    return {
        **_lookahead_fields(found),
        "candidates": held_out.log_probability.shape[1],
        "held_out_gain": figure(sums, lambda s: s[:, 1] / s[:, 0]),
        "fitted_on": FIT_SPLIT,
    }


def _lookahead_fields(found: FittedLookahead) -> dict[str, Any]:
    def shown(value: Any) -> Any:
        if isinstance(value, Interval):
            return {"estimate": value.estimate, "lower": value.lower, "upper": value.upper}
        return value

    return {field.name: shown(getattr(found, field.name)) for field in dataclasses.fields(found)}
