"""What a model's look-ahead sees along real text: the entropy of the step after each candidate.

Each position is read by itself: its prefix in one parallel pass, then every candidate as one more
token. So the cost of a position is a prefix and k tokens, and positions are a sample of the text.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from calibtrain.analysis.lookahead_fit import Lookahead
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead import entropies_after
from calibtrain.generation.lookahead_head import LookaheadHead, learned_entropies_after
from calibtrain.generation.windows import window_start
from calibtrain.models import Network
from calibtrain.models.decoding import prefill
from calibtrain.readout import log_probabilities

_ROWS = 8  # positions of a pass
Progress = Callable[[int, int], None]


def read_lookahead(
    model: LanguageModel,
    texts: Sequence[Int[np.ndarray, " tokens"]],
    positions: Sequence[tuple[int, int]],
    *,
    top: int,
    progress: Progress = lambda done, total: None,
) -> Lookahead:
    """Returns the candidates at positions of texts, as a sampler with look-ahead has them.

    Args:
        model: what predicts. Where it holds a head, that predicts the entropy after a candidate,
            and no candidate is read.
        texts: ids, the document start first.
        positions: text, and number of the token that is predicted there (1 is the first after the
            document start).
        top: candidates at each position.
        progress: is told the number of positions that are read, and of all.
    """
    drawable = jnp.asarray(model.drawable)
    top = min(top, int(drawable.sum()))
    columns = model.columns
    program = _program(model.network, model.context, top)
    found = []
    for first in range(0, len(positions), _ROWS):
        some = positions[first : first + _ROWS]
        starts = [window_start(slot - 1, model.context) for _, slot in some]
        prefixes = [
            texts[text][start:slot] for (text, slot), start in zip(some, starts, strict=True)
        ]
        longest = max(map(len, prefixes))
        tokens = np.zeros((_ROWS, min(model.context, 1 << (longest - 1).bit_length())), np.int32)
        counts = np.ones(_ROWS, np.int32)  # rows without a prefix read one token, and are dropped
        for row, prefix in enumerate(prefixes):
            tokens[row, : len(prefix)], counts[row] = prefix, len(prefix)
        parts = program(model.params, columns, drawable, tokens, counts, model.lookahead)
        found.append([np.asarray(part)[: len(some)] for part in parts])
        progress(min(first + _ROWS, len(positions)), len(positions))
    candidates, scores, after = (np.concatenate(each) for each in zip(*found, strict=True))
    says = np.array([texts[text][slot] for text, slot in positions])
    hit = candidates == says[:, None]
    return Lookahead(
        log_probability=scores.astype(np.float64),
        next_entropy=after.astype(np.float64),
        true=np.where(hit.any(-1), hit.argmax(-1), -1),
        documents=np.array([text for text, _ in positions]),
    )


@functools.lru_cache(maxsize=4)
def _program(network: Network, context: int, top: int) -> Any:
    """Returns the program that reads prefixes, and then every candidate after them."""

    @jax.jit
    def read(
        params: Any,
        columns: Array,
        drawable: Array,
        tokens: Array,
        counts: Array,
        head: LookaheadHead | None,
    ) -> tuple[Array, Array, Array]:
        hidden, heat, cache = prefill(network, params, tokens, counts, context)
        x = log_probabilities(
            hidden, columns, temperature=heat, soft_cap=network.config.logit_soft_cap
        )
        if head is None:
            after = entropies_after(network, params, columns, cache, x, drawable, top)
        else:
            after = learned_entropies_after(head, hidden, x, drawable, top)
        x, candidates = jax.lax.top_k(jnp.where(drawable, x, -jnp.inf), top)
        x = jax.nn.log_softmax(x, axis=-1)
        return candidates, x, jnp.take_along_axis(after, candidates, axis=-1)

    return read
