"""`calibtrain memory`: a bound on how much a run's generations depend on what is tau tokens back.

The same model predicts each token of its own generations twice: from all that it saw, and from the
last tau tokens alone, read as a text of their own. So nothing reaches further back, through however
many layers, and the state of an LSTM starts from nothing.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.analysis.memory_bound import eligible, lengths, memory_bound
from calibtrain.analysis.of_run import Opened, require
from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText
from calibtrain.generation.language_model import LanguageModel
from calibtrain.models import Network
from calibtrain.models.decoding import prefill
from calibtrain.readout import log_probabilities
from calibtrain.runs.analysis_records import MemoryRecord

_TOKENS = 4096  # of a pass


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is generated and read.

    Attributes:
        prompts: documents whose beginnings are continued, at most.
        prefix: bytes of a beginning.
        generated: bytes of a generation.
        positions: tokens of the generations that are predicted, in all.
        longest: the longest memory that is tried, in tokens; None means half the context.
        seed: of documents, generations and positions.
    """

    prompts: int = 64
    prefix: int = 128
    generated: int = 512
    positions: int = 2000
    longest: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for a number that is not allowed."""
        require("prompts", self.prompts, 2)
        require("prefix", self.prefix, 0)
        require("generated", self.generated, 1)
        require("positions", self.positions, 2)
        if self.longest is not None:
            require("longest", self.longest, 1)


def measure_memory(
    run: Opened, protocol: Protocol | None = None, *, limited: Path | None = None
) -> tuple[MemoryRecord, Path | None]:
    """Returns the memory record of a run, and the file that it wrote.

    Args:
        run: the run, and the split whose documents are continued.
        protocol: what is generated and read; None means the defaults.
        limited: a run that was trained with a short context, on the same tokenizer. It predicts the
            same tokens, from as many tokens as its context holds at most.

    Raises:
        UserError: for numbers that are not allowed, generations that are too short, a limited run
            with another tokenizer, and as `evaluate_run` does.
    """
    asked, model = protocol or Protocol(), run.model
    asked.check()
    other = None if limited is None else run.other(limited)
    if other is not None and other.tokenizer.hash != model.tokenizer.hash:
        raise UserError(
            f"--limited: {limited} has another tokenizer than {run.saved.run.path}, so that its "
            "tokens are not the same events; give a run with the same one"
        )
    longest = asked.longest or max(1, model.context // 2)
    if longest > model.context:
        raise UserError(
            f"--longest: {longest} tokens are more than the context of {model.context}, and the "
            "model sees no further; lower it"
        )
    texts = run.continuations(asked.prompts, asked.prefix, 0, asked.seed)
    found = [
        each
        for (each,) in run.generate(
            [each.prefix for each in texts], "texts", max_bytes=asked.generated, seed=asked.seed
        )
    ]
    ids = [_ids(model, text) for text in found]
    starts = [text.prompt_tokens for text in found]
    places = eligible(starts, list(map(len, ids)), longest, asked.positions, asked.seed)
    if len({text for text, _ in places}) < 2:
        raise UserError(
            f"--longest: {longest} tokens lie before a generated one in fewer than two texts; "
            "lower it, or raise --generated"
        )
    whole = np.array([found[text].trace.log_probability[slot - 1] for text, slot in places])
    sizes = model.tokenizer.byte_lengths[[ids[text][slot] for text, slot in places]]
    documents = np.array([text for text, _ in places])

    def rows(of: LanguageModel, most: int, name: str) -> list[dict[str, Any]]:
        kept = []
        for tau in lengths(most):
            run.progress.stage(f"{name}: {tau} tokens")
            seen = limited_log_probabilities(of, ids, places, tau, run.progress)
            kept.append({"tokens": tau, **memory_bound(whole, seen, sizes, documents)})
        return kept

    tree = {
        **run.facts(len(texts), dataclasses.asdict(asked)),
        "positions": len(places),
        "bytes_per_token": float(sizes.sum() / len(sizes)),
        "rows": rows(model, longest, "memory"),
    }
    if other is not None:
        tree["limited"] = {
            "run": other.about["run"],
            "context": other.context,
            "rows": rows(other, min(longest, other.context), "limited"),
        }
    record = MemoryRecord.parse(tree, "memory")
    return record, run.write("memory", record)


def _ids(model: LanguageModel, text: GeneratedText) -> Int[np.ndarray, " tokens"]:
    """Returns the tokens of a text, the document start first."""
    return np.concatenate([[model.tokenizer.bos_id], text.trace.tokens]).astype(np.int32)


def limited_log_probabilities(
    model: LanguageModel,
    texts: Sequence[Int[np.ndarray, " tokens"]],
    positions: Sequence[tuple[int, int]],
    tau: int,
    progress: Any = lambda done, total: None,
) -> Float[np.ndarray, " positions"]:
    """Returns the log-probability of tokens given the `tau` tokens before them alone, in nats.

    Args:
        model: what predicts.
        texts: ids, the document start first.
        positions: text, and number of the token that is predicted, with at least `tau` before it.
        tau: tokens that are read; at most the model's context.
        progress: is told the number of positions that are read, and of all.
    """
    rows = max(1, min(len(positions), _TOKENS // tau))
    columns = model.columns
    program = _program(model.network, tau)
    found = []
    for first in range(0, len(positions), rows):
        some = positions[first : first + rows]
        tokens, labels = np.zeros((rows, tau), np.int32), np.zeros(rows, np.int32)
        for row, (text, slot) in enumerate(some):
            tokens[row], labels[row] = texts[text][slot - tau : slot], texts[text][slot]
        found.append(np.asarray(program(model.params, columns, tokens, labels))[: len(some)])
        progress(min(first + rows, len(positions)), len(positions))
    return np.concatenate(found).astype(np.float64)


@functools.lru_cache(maxsize=32)
def _program(network: Network, tau: int) -> Any:
    """Returns the program that predicts a token from the last ones."""

    @jax.jit
    def read(params: Any, columns: Array, tokens: Array, labels: Array) -> Array:
        counts = jnp.full(len(tokens), tau, jnp.int32)
        hidden, heat, _ = prefill(network, params, tokens, counts, tau)
        x = log_probabilities(
            hidden, columns, temperature=heat, soft_cap=network.config.logit_soft_cap
        )
        return jnp.take_along_axis(x, labels[:, None], axis=-1)[:, 0]

    return read
