"""Models of any vocabularies as one distribution of the next byte: their average.

Every model gives a probability to each next byte, whatever its tokens are, so that averages are
defined where those of tokens are not. There are two:

- *linear*: p = sum_i w_i p_i. A mixture of distributions over texts where the weights are the
  posterior ones, w_i proportional to (prior_i times the probability that model i gave the text so
  far): then it gives a text the probability sum_i prior_i p_i(text), and with a uniform prior it
  never needs more than log2 n bits more for a text than the best of its n members.
- *geometric*: p proportional to prod_i p_i^w_i, normalised at each byte. It is *locally
  normalised*: not the product of the models over texts, whose normalisation looks ahead.

A beam over tokenisations (`Beam`) underestimates a member's probabilities by what it drops; the
bound then holds to within that loss.

References:
    Phan et al., "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and
        Model Ensembles", ICLR 2025.
    Cesa-Bianchi and Lugosi (2006), Prediction, Learning, and Games, section 9.2 (the mixture).
"""

import math
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, Int

Average = Literal["linear", "geometric"]
Weighting = Literal["fixed", "posterior"]


class NextSymbol(Protocol):
    """What predicts and reads the next byte of several texts: `generation.next_byte.NextByte`."""

    lanes: int

    def predict(self) -> Float[np.ndarray, "lanes 257"]:
        """The probability of each next byte, and of the end of the text (the last column)."""

    def read(
        self,
        symbols: Int[np.ndarray, " lanes"],
        from_lanes: Int[np.ndarray, " lanes"] | None = None,
    ) -> Float[np.ndarray, " lanes"]:
        """Reads the next byte of each text; returns the share of the weight that was kept."""


class ByteMixture:
    """The average of members' next-byte distributions, lane by lane; a `NextSymbol` itself.

    A member that allows no next byte has nothing to say: it has no weight there, and no posterior
    weight afterwards.

    Attributes:
        lanes: texts that are read side by side.
        members: what is averaged.
        kept: the least share of a member's weight that its beam kept in the last step, by lane.
        predicted: the members' own distributions [members, lanes, 257] that the latest average is
            of.
        mass: of each lane, what the latest average was divided by so that it sums to 1: that of a
            geometric mean is below 1 where members differ, and 0 where no symbol is possible.
    """

    def __init__(
        self,
        members: Sequence[NextSymbol],
        *,
        weights: Sequence[float] | None = None,
        average: Average = "linear",
        weighting: Weighting = "posterior",
    ):
        """Args:
            members: whose texts were begun already, all with the same lanes.
            weights: of each member, above 0; the prior of posterior weights. Default: equal.
            average: linear or geometric.
            weighting: posterior weights follow what the members gave to the text so far.

        Raises:
            ValueError: for no members, members with different lanes, weights that are not above 0
                or not one a member, or an unknown average or weighting.
        """
        if not members:
            raise ValueError("members: are empty: at least one is needed")
        lanes = {member.lanes for member in members}
        if len(lanes) > 1:
            raise ValueError(f"members: have different lanes: {sorted(lanes)}")
        for name, value, allowed in (
            ("average", average, get_args(Average)),
            ("weighting", weighting, get_args(Weighting)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r}; allowed are {', '.join(allowed)}")
        given = [1.0] * len(members) if weights is None else list(weights)
        if len(given) != len(members):
            raise ValueError(f"weights: {len(given)} of them for {len(members)} members")
        if not all(math.isfinite(weight) and weight > 0 for weight in given):
            raise ValueError(f"weights: {given}: must be above 0")
        self.lanes, self.members = lanes.pop(), list(members)
        self._average, self._posterior = average, weighting == "posterior"
        prior = np.log(given) - math.log(math.fsum(given))
        self._log_weights = np.tile(prior[:, None], (1, self.lanes))  # member, lane
        self.predicted: Float[np.ndarray, "members lanes 257"] = np.zeros(0)
        self.kept = self.mass = np.ones(self.lanes)

    @property
    def weights(self) -> Float[np.ndarray, "members lanes"]:
        """The weights of the next average; they sum to 1 in each lane."""
        top = self._log_weights.max(axis=0, keepdims=True)
        shares = np.exp(self._log_weights - np.where(np.isfinite(top), top, 0.0))
        total = shares.sum(axis=0, keepdims=True)
        return np.divide(shares, total, out=np.zeros(shares.shape), where=total > 0)

    def predict(self) -> Float[np.ndarray, "lanes 257"]:
        """The average of the members' distributions of the next symbol.

        A row sums to 1, or is all 0 where no member (geometric: not all that have something to
        say together) allows a next symbol.
        """
        each = np.stack([member.predict() for member in self.members])
        self.predicted = each
        speaks = each.sum(axis=2) > 0
        weights = self.weights * speaks
        total = weights.sum(axis=0)
        weights = np.divide(weights, total, out=weights, where=total > 0)
        if self._average == "linear":
            self.mass = total
            return np.asarray(np.einsum("ml,mls->ls", weights, each))
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(weights[:, :, None] > 0, weights[:, :, None] * np.log(each), 0.0)
        joint = logs.sum(axis=0)
        top = joint.max(axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        found = np.exp(joint - top)
        found[~speaks.any(axis=0)] = 0.0
        mass = found.sum(axis=1, keepdims=True)
        self.mass = (mass * np.exp(top))[:, 0]
        return np.divide(found, mass, out=np.zeros(found.shape), where=mass > 0)

    def read(
        self,
        symbols: Int[np.ndarray, " lanes"],
        from_lanes: Int[np.ndarray, " lanes"] | None = None,
    ) -> Float[np.ndarray, " lanes"]:
        """Reads the next symbol of each text in every member; `predict` must have been called.

        Args:
            symbols: bytes, or the end of the text; below 0 for a lane that is done or waits.
            from_lanes: the lane whose text each lane goes on from; default: its own.

        Returns:
            The least share of a member's weight that its beam kept, by lane.
        """
        if not self.predicted.size:
            raise ValueError("read: predict comes first")
        lanes = np.arange(self.lanes) if from_lanes is None else from_lanes
        self._log_weights = self._log_weights[:, lanes]
        if self._posterior:
            read = symbols >= 0
            given = self.predicted[:, lanes, np.where(read, symbols, 0)]
            with np.errstate(divide="ignore"):
                self._log_weights += np.where(read, np.log(given), 0.0)
            top = self._log_weights.max(axis=0)
            self._log_weights -= np.where(np.isfinite(top), top, 0.0)  # none underflows
        self.predicted = np.zeros(0)
        kept = [
            member.read(symbols, None if from_lanes is None else from_lanes)
            for member in self.members
        ]
        self.kept = np.min(kept, axis=0)
        return self.kept
