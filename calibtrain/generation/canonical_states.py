"""States of a model that allow canonical tokens alone, each time with the rest of the mass on them.

p(token | tokens before) is the model's, divided by the sum of those tokens that may come next where
the tokenizer writes; the others have probability 0. This renormalises at each token ("locally"), so
that the probability of a text is the product of these over its canonical tokens. It is not the
model's distribution given that the whole sequence turns out canonical, for which no sum is known.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.tokenizers.canonical import CanonicalTokens, Context
from calibtrain.generation.states import TokenStates

_SMALLEST = float(np.finfo(np.float32).tiny)


class CanonicalStates:
    """`TokenStates` over others; what canonical tokens may come next is known for each row."""

    def __init__(
        self, states: TokenStates, tokens: CanonicalTokens, events: Int[np.ndarray, " events"]
    ):
        """Args:
        states: of the model.
        tokens: of its tokenizer.
        events: the tokens whose probabilities the states return, in their order.
        """
        self._states, self._tokens, self._events = states, tokens, events
        self._contexts: dict[int, Context] = {}
        self._known: dict[Context, Bool[np.ndarray, " bytes"]] = {}

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], rows: Int[np.ndarray, " texts"], /
    ) -> Float[np.ndarray, "texts tokens"]:
        """Reads prefixes into rows (see `TokenStates`)."""
        contexts = [self._tokens.after_all(prefix.tolist()) for prefix in prefixes]
        return self._canonical(self._states.start(prefixes, rows), rows, contexts)

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
        /,
    ) -> Float[np.ndarray, "new tokens"]:
        """Reads one more token each (see `TokenStates`)."""
        contexts = [
            self._tokens.after(self._contexts[source], token)
            for source, token in zip(sources.tolist(), tokens.tolist(), strict=True)
        ]
        return self._canonical(self._states.extend(sources, targets, tokens), targets, contexts)

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"], /
    ) -> None:
        """Copies the states of some rows into others."""
        self._states.copy(sources, targets)
        copied = [self._contexts[source] for source in sources.tolist()]
        self._contexts.update(zip(targets.tolist(), copied, strict=True))

    def keep(self, rows: Int[np.ndarray, " kept"], /) -> None:
        """Says that the states of all other rows are not needed any more."""
        self._states.keep(rows)

    def _canonical(
        self,
        probabilities: Float[np.ndarray, "rows tokens"],
        rows: Int[np.ndarray, " rows"],
        contexts: Sequence[Context],
    ) -> Float[np.ndarray, "rows tokens"]:
        """Notes the contexts of rows and renormalises the probabilities after them."""
        self._contexts.update(zip(rows.tolist(), contexts, strict=True))
        packed = np.stack([self._allowed(context) for context in contexts])
        allowed = np.unpackbits(packed, axis=1, count=len(self._events))
        # a probability that float32 rounds to 0 is small, but not impossible
        found = np.maximum(probabilities, _SMALLEST, dtype=np.float64) * allowed
        return found / found.sum(axis=1, keepdims=True)

    def _allowed(self, context: Context) -> Bool[np.ndarray, " bytes"]:
        """The events that may come next, one bit each; texts repeat contexts, which are kept."""
        if context not in self._known:
            self._known[context] = np.packbits(self._tokens.allowed(context)[self._events])
        return self._known[context]
