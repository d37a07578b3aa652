"""A token model as a distribution of the next byte, of several texts side by side ("lanes").

`start` reads the tokens that each text begins with; then `predict` and `read` alternate: the
probabilities of each text's next byte, and the byte that came (or was drawn, or chosen). The sum
over tokenisations is the work of `byte_beam`, the model's passes that of `states`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.shared_states import SharedStates
from calibtrain.generation.states import DecodingStates
from calibtrain.models import Network, Params
from calibtrain.models.shared_decoding import can_share


@dataclasses.dataclass(frozen=True)
class Beam:
    """How many tokenisations of a text are followed.

    Attributes:
        width: hypotheses per text.
        ratio: a hypothesis is dropped below this share of the best one's weight.
    """

    width: int = 5
    ratio: float = 0.05

    @property
    def wider(self) -> "Beam":
        """The beam that shows this one's error: twice the hypotheses, a tenth of the ratio."""
        return Beam(2 * self.width, self.ratio / 10)


class TokenStates(Protocol):
    """Decoding states by row, with probabilities in the trie's order (see `DecodingStates`)."""

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], rows: Int[np.ndarray, " texts"], /
    ) -> Float[np.ndarray, "texts tokens"]:
        """Reads prefixes into rows; the next-token probabilities after each."""

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
        /,
    ) -> Float[np.ndarray, "new tokens"]:
        """Reads one more token each; the next-token probabilities after it."""

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"], /
    ) -> None:
        """Copies the states of some rows into others."""

    def keep(self, rows: Int[np.ndarray, " kept"], /) -> None:
        """Says that the states of all other rows are not needed any more."""


class NextByte:
    """The distribution of the next byte of each lane, under a model and a beam.

    Entries of the vocabulary that stand for no bytes (document start, the unknown piece) are never
    targets: they are no events, and their probability is shared out among the others.

    Attributes:
        lanes: texts that can be read side by side.
    """

    def __init__(self, hypotheses: ByteBeam, states: TokenStates):
        """Args:
        hypotheses: the beam over tokenisations.
        states: of the model, a row for each of the beam's `rows`.
        """
        self.lanes = hypotheses.lanes
        self._hypotheses, self._states = hypotheses, states

    @classmethod
    def of(
        cls,
        network: Network,
        params: Params,
        trie: ByteTrie,
        *,
        lanes: int,
        context: int,
        texts: int | None = None,
        beam: Beam | None = None,
    ) -> "NextByte":
        """The next-byte distribution of a network.

        Args:
            network: the model.
            params: its parameters.
            trie: of its vocabulary.
            lanes: texts that can be read side by side.
            context: how many tokens of a hypothesis the model sees.
            texts: how many of the lanes begin a text; a lane beyond goes on from lane i modulo
                `texts` alone. Default: all.
            beam: how many tokenisations are followed; default `Beam()`.
        """
        beam = beam or Beam()
        hypotheses = ByteBeam(trie, lanes, beam.width, beam.ratio)
        rows, events = hypotheses.rows, trie.order
        states: TokenStates
        if can_share(network, params):
            states = SharedStates(
                network,
                params,
                rows=rows,
                slots=hypotheses.slots,
                pools=texts or lanes,
                context=context,
                events=events,
            )
        else:
            states = DecodingStates(network, params, rows=rows, context=context, events=events)
        return cls(hypotheses, states)

    def start(self, prefixes: Sequence[Int[np.ndarray, " tokens"]]) -> None:
        """Begins texts with some tokens each, in the first lanes; all lanes are emptied before.

        Args:
            prefixes: the first tokens of each text, at least one; at most `lanes` texts.
        """
        rows = self._hypotheses.start(np.arange(len(prefixes)))
        self._hypotheses.set_probabilities(rows, self._states.start(prefixes, rows))

    def predict(self) -> Float[np.ndarray, "lanes 257"]:
        """The probability of each next byte, and of the end of the text (the last column).

        A row sums to 1. It is all 0 in a lane that holds no text, and in one whose text no
        tokenisation of the beam allows.
        """
        mass = self._hypotheses.predict()
        total = mass.sum(axis=1, keepdims=True)
        return np.divide(mass, total, out=np.zeros(mass.shape), where=total > 0)

    def read(
        self,
        symbols: Int[np.ndarray, " lanes"],
        from_lanes: Int[np.ndarray, " lanes"] | None = None,
    ) -> Float[np.ndarray, " lanes"]:
        """Reads the next byte of each text; `predict` must have been called.

        Args:
            symbols: the bytes; `byte_beam.STOP`, or the end of the text, for a lane that is done
                with its text; `byte_beam.STAY` for one that waits.
            from_lanes: the lane whose text each lane goes on from, as in `ByteBeam.read`; default:
                its own.

        Returns:
            The share of each lane's weight that the beam kept.
        """
        change = self._hypotheses.read(symbols, from_lanes)
        if len(change.copies.sources):
            self._states.copy(*change.copies)
        new = change.extensions
        if len(new.tokens):
            self._hypotheses.set_probabilities(new.targets, self._states.extend(*new))
            self._states.keep(self._hypotheses.live)
        return change.kept
