"""`calibtrain typicality`: does human text lie where the model expects its own, and does greedy?

The same beginnings of documents are continued by people (the documents themselves), by samples and
by the most probable text. Information minus entropy of each text is set against its quality.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibtrain.analysis.blocks import first_bytes
from calibtrain.analysis.continuations import (
    Continuation,
    Scored,
    generated_tokens,
    given_tokens,
)
from calibtrain.analysis.of_run import Opened, require
from calibtrain.analysis.typicality_figures import (
    MeasuredText,
    correlation_row,
    proxies,
    typicality_row,
)
from calibtrain.data.predictions.rows import SUFFIXES, open_rows
from calibtrain.errors import UserError
from calibtrain.generation.beam import BeamSearch
from calibtrain.generation.beam_texts import beam_texts
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import Sampling
from calibtrain.runs.analysis_records import TypicalityRecord

JUDGE = "judge_bits_per_byte"
SCORE = "score"
_AT_ONCE = 32  # prompts of a beam search, whose programs are compiled anew


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is continued, and how.

    Attributes:
        prompts: documents, at most.
        prefix: bytes of their beginnings.
        generated: bytes of a continuation.
        beam: hypotheses of the beam search.
        top_p: mass of the nucleus, in percent, so that the protocol is whole numbers.
        typical: mass of locally typical sampling, in percent.
        seed: of documents and generations.
    """

    prompts: int = 64
    prefix: int = 128
    generated: int = 256
    beam: int = 5
    top_p: int = 90
    typical: int = 90
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for a number that is not allowed."""
        require("prompts", self.prompts, 2)
        require("prefix", self.prefix, 0)
        require("generated", self.generated, 1)
        require("beam", self.beam, 2)
        for name, value in (("top-p", self.top_p), ("typical", self.typical)):
            if not 1 <= value <= 100:
                raise UserError(f"--{name}: {value} is not allowed; 1 to 100 (percent)")


def measure_typicality(
    run: Opened,
    protocol: Protocol | None = None,
    *,
    scores: Path | None = None,
    judge: Path | None = None,
) -> tuple[TypicalityRecord, Path | None]:
    """Returns the typicality record of a run, and the file that it wrote.

    Args:
        run: the run, and the split whose documents are continued.
        protocol: what is continued, and how; None means the defaults.
        scores: a file with the columns `text` and `score`, of texts that people (or others) judged.
        judge: a run, best a larger one, whose bits per byte of each text are a proxy of quality.

    Raises:
        UserError: for numbers that are not allowed, a file that does not hold scores, and as
            `evaluate_run` does.
    """
    asked = protocol or Protocol()
    asked.check()
    judged = [] if scores is None else read_scores(scores)
    judging = None if judge is None else run.other(judge)
    texts = run.continuations(asked.prompts, asked.prefix, asked.generated, asked.seed)
    prompts = [each.prefix for each in texts]
    run.progress.stage("scoring the documents")
    reach = asked.generated
    written = [first_bytes(each.text, reach) for each in texts]
    found = {"text": _texts(written, given_tokens(run.model, texts, reach))}
    ways = {
        "ancestral": Sampling(),
        "nucleus": Sampling(top_p=asked.top_p / 100),
        "typical": Sampling(typical=asked.typical / 100),
        "greedy": Sampling(greedy=True),
    }
    for name, sampling in ways.items():
        drawn = run.generate(prompts, name, max_bytes=reach, seed=asked.seed, sampling=sampling)
        first = [each for (each,) in drawn]
        found[name] = _texts([each.text for each in first], generated_tokens(first))
    found["beam"] = _beam(run, prompts, asked)
    if judging is not None:
        for name, own in found.items():
            run.progress.stage(f"judging: {name}")
            found[name] = _judged(judging, texts, own, reach)
    everything = [each for own in found.values() for each in own]
    names = dict.fromkeys(key for each in everything for key in each.quality)
    correlations = [correlation_row(name, everything) for name in names]
    if judged:
        run.progress.stage("scoring the judged texts")
        correlations.append(correlation_row(SCORE, _scored_texts(run.model, judged)))
    tree = {
        **run.facts(len(texts), dataclasses.asdict(asked)),
        "rows": [typicality_row(name, own) for name, own in found.items()],
        "correlations": correlations,
        "judge": None if judge is None else str(judge),
        "scored": None if scores is None else str(scores),
    }
    record = TypicalityRecord.parse(tree, "typicality")
    return record, run.write("typicality", record)


def _texts(texts: Sequence[str], scored: Sequence[Scored]) -> list[MeasuredText]:
    """Returns what is known of continuations, one per document; empty ones are left out."""
    return [
        MeasuredText(
            document=number,
            text=text,
            bytes=int(tokens.bytes.sum()),
            information=tokens.information_bits,
            entropy=tokens.entropy_bits,
            quality=proxies(text),
        )
        for number, (text, tokens) in enumerate(zip(texts, scored, strict=True))
        if tokens.bytes.sum()
    ]


def _beam(run: Opened, prompts: Sequence[str], asked: Protocol) -> list[MeasuredText]:
    """Returns the most probable text of each prompt that a beam found."""
    run.progress.stage("searching: beam")
    found = []
    for first in range(0, len(prompts), _AT_ONCE):
        beams = beam_texts(
            run.model,
            prompts[first : first + _AT_ONCE],
            BeamSearch(asked.beam),
            max_bytes=asked.generated,
        )
        found += [
            MeasuredText(
                document=first + place,
                text=best.text,
                bytes=best.bytes,
                information=best.information_bits,
                entropy=best.entropy_bits,
                quality=proxies(best.text),
            )
            for place, (best, *_) in enumerate(beams)
            if best.bytes
        ]
        run.progress(min(first + _AT_ONCE, len(prompts)), len(prompts))
    return found


def _judged(
    judging: LanguageModel,
    texts: Sequence[Continuation],
    own: Sequence[MeasuredText],
    reach: int,
) -> list[MeasuredText]:
    """Returns the texts with the judge's bits per byte among their qualities."""
    there = [
        Continuation(texts[each.document].document, texts[each.document].prefix, each.text)
        for each in own
    ]
    return [
        dataclasses.replace(
            each,
            quality={
                **each.quality,
                JUDGE: tokens.information_bits / max(1, int(tokens.bytes.sum())),
            },
        )
        for each, tokens in zip(own, given_tokens(judging, there, reach), strict=True)
    ]


def _scored_texts(model: LanguageModel, judged: Sequence[tuple[str, float]]) -> list[MeasuredText]:
    """Returns the user's texts, each a document of its own, with their scores."""
    texts = [Continuation("", "", text) for text, _ in judged]
    longest = max(len(text.encode()) for text, _ in judged)
    found = []
    for number, ((text, score), tokens) in enumerate(
        zip(judged, given_tokens(model, texts, longest), strict=True)
    ):
        size = int(tokens.bytes.sum())
        bits = tokens.information_bits, tokens.entropy_bits
        found.append(MeasuredText(number, text, size, *bits, {SCORE: score}))
    return found


def read_scores(path: Path) -> list[tuple[str, float]]:
    """Returns the texts and scores of a file with the columns `text` and `score`.

    Args:
        path: a CSV, JSON-lines or Parquet file.

    Raises:
        UserError: for a file of another kind, a row without text or with a score that is not a
            number, and fewer than three rows.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"--scores: {path}: is not one of {', '.join(SUFFIXES)}")
    found: list[tuple[str, Any]] = []
    for row in open_rows(path):
        score = row.number(SCORE, "a finite number")
        if not math.isfinite(score):
            raise row.wrong(SCORE, "a finite number")
        found.append((row.name("text"), score))
    if len(found) < 3:
        raise UserError(f"--scores: {path}: holds {len(found)} texts; at least 3 are needed")
    return found
