"""A token model as a distribution of the next byte, of several texts side by side ("lanes").

`start` reads the tokens that each text begins with; then `predict` and `read` alternate: the
probabilities of each text's next byte, and the byte that came (or was drawn, or chosen). The sum
over tokenisations is the work of `byte_beam`, the model's passes that of `states`.

The tokenisations that are followed are the best of all (`Beam`), or the canonical ones
(`data.tokenizers.canonical`). Of the latter, one at most ends at each byte of the text, so that
all of them are followed, and the model makes at most one pass a byte.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.tokenizers.canonical import CanonicalTokens
from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.canonical_states import CanonicalStates
from calibtrain.generation.shared_states import SharedStates
from calibtrain.generation.states import DecodingStates, TokenStates
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
        follow: Beam | CanonicalTokens | None = None,
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
            follow: the tokenisations that are followed; default `Beam()`.
        """
        follow = follow or Beam()
        canonical = follow if isinstance(follow, CanonicalTokens) else None
        if isinstance(follow, Beam):
            hypotheses = ByteBeam(trie, lanes, follow.width, follow.ratio)
        else:  # at most one begins at each byte of the longest token, none of which is dropped
            hypotheses = ByteBeam(trie, lanes, trie.longest, ratio=0.0, smallest=0.0)
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
                most=None if canonical is None else 1,
            )
        else:
            states = DecodingStates(network, params, rows=rows, context=context, events=events)
        if canonical is not None:
            states = CanonicalStates(states, canonical, events)
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
