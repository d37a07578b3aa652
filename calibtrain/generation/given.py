"""The trace of text that is given: what the model says of each token, from parallel passes."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.generation.decoder import bucket
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.loops import periods
from calibtrain.generation.statistics import TokenStatistics, statistics_of_states
from calibtrain.generation.windows import Window, text_windows
from calibtrain.models import Network
from calibtrain.runs.traces import ALTERNATIVES, SOURCES, TokenTrace

_ROWS = 4  # windows of a pass


def trace_of(model: LanguageModel, texts: Sequence[str | bytes]) -> list[TokenTrace]:
    """Returns the traces of given texts; decoding would say the same, up to rounding.

    A text longer than the context is read by the windows that generating uses.

    Args:
        model: what is asked.
        texts: whole texts; the document start comes before each.

    Raises:
        UserError: for a text that the vocabulary cannot spell.
    """
    return trace_of_ids(model, [model.prompt_ids(text) for text in texts])


def trace_of_ids(
    model: LanguageModel, texts: Sequence[Int[np.ndarray, " tokens"]], *, rows: int = _ROWS
) -> list[TokenTrace]:
    """Returns the traces of texts as ids, whose first (the document start) has no row.

    Args:
        model: what is asked.
        texts: ids.
        rows: windows that are read at once; a pass always computes as many.
    """
    windows = text_windows([len(ids) - 1 for ids in texts], model.context)
    program = _program(model.network)
    found: list[list[Any]] = [[] for _ in texts]
    # what is said of a window depends on its own length alone, and not on those beside it
    by_size: dict[int, list[Window]] = {}
    for window in windows:
        size = min(model.context, bucket(window.end - window.start))
        by_size.setdefault(size, []).append(window)
    for size, own in by_size.items():
        for first in range(0, len(own), rows):
            some = own[first : first + rows]
            tokens = np.zeros((rows, size), np.int32)
            labels = np.zeros_like(tokens)
            for row, (number, start, _, end) in enumerate(some):
                tokens[row, : end - start] = texts[number][start:end]
                labels[row, : end - start] = texts[number][start + 1 : end + 1]
            statistics, heat = jax.tree.map(np.asarray, program(model.params, tokens, labels))
            for row, (number, start, slot, end) in enumerate(some):
                part = slice(slot - start, end - start)
                scored = type(statistics)(*(x[row, part] for x in statistics))
                found[number].append((slot, scored, heat[row, part]))
    for parts in found:
        parts.sort(key=lambda part: part[0])
    return [trace_of_parts(model, number, ids, found[number]) for number, ids in enumerate(texts)]


@functools.lru_cache(maxsize=4)
def _program(network: Network) -> Any:
    """Returns the program that scores windows."""
    soft_cap = network.config.logit_soft_cap

    @jax.jit
    def score(params: Any, tokens: Array, labels: Array) -> tuple[TokenStatistics, Array]:
        hidden, columns, own = network.apply(params, tokens, jnp.zeros_like(tokens))
        return statistics_of_states(hidden, columns, own, labels, soft_cap=soft_cap)

    return score


def trace_of_parts(
    model: LanguageModel,
    number: int,
    ids: Int[np.ndarray, " tokens"],
    parts: Sequence[tuple[int, TokenStatistics, Float[np.ndarray, " some"]]],
) -> TokenTrace:
    """Returns the trace of a text of which all predictions are known.

    Args:
        model: what was asked.
        number: of the text.
        ids: its tokens, the document start first.
        parts: in order: the first token of a stretch, the statistics of its tokens, and the
            temperature of each.
    """
    pieces, own = model.tokenizer.piece_bytes, ids[1:]
    few = min(ALTERNATIVES, model.network.vocab_size)
    zeros = np.zeros(0, np.float32)
    empty = TokenStatistics(
        zeros,
        zeros,
        zeros,
        np.zeros(0, np.int32),
        np.zeros((0, few), np.int32),
        np.zeros((0, few), np.float32),
    )
    joined = TokenStatistics(
        *(np.concatenate(all) for all in zip(empty, *(part for _, part, _ in parts), strict=True))
    )
    return TokenTrace(
        text=number,
        tokens=np.asarray(own, np.int32),
        pieces=[pieces[index] for index in own],
        source=np.full(len(own), SOURCES.index("given")),
        sampling_log_probability=np.full(len(own), np.nan, np.float32),
        temperature=np.concatenate([zeros, *(heat for _, _, heat in parts)]),
        repeats=periods(own),
        **joined._asdict(),
    )
