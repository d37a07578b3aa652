"""The union of the members' most probable tokens, as UniTE joins vocabularies; greedy.

Each step takes the `top` most probable tokens of every member as strings. A member gives each
string the probability of its own tokens of that spelling (a piece, and the byte that is the same);
where it has none, that of the first token by which it would begin to write it. A softmax over the
union makes these a distribution, the members' distributions are averaged, and the most probable
string goes on the text. Each member then reads the text as its own tokenizer writes it.

References:
    Yao et al. (2025), Determine-Then-Ensemble: Necessity of Top-k Union for Large Language Model
        Ensembling, ICLR.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from calibtrain.ensembles.members import Member
from calibtrain.ensembles.proposals import END_SYMBOL, Spelling
from calibtrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class Union:
    """How the members' tokens are united.

    Attributes:
        top: tokens of each member.
        weights: of each member in the average, above 0; None means equal ones.

    Raises:
        ValueError: for a value that is not allowed, in one line that names it.
    """

    top: int = 10
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: {self.top!r}: must be at least 1")
        if self.weights is not None and not all(
            math.isfinite(weight) and weight > 0 for weight in self.weights
        ):
            raise ValueError(f"weights: {list(self.weights)}: must be above 0")

    def of(self, members: int) -> Float[np.ndarray, " members"]:
        """Returns the weight of each member; they sum to 1.

        Raises:
            ValueError: for weights that are not one a member.
        """
        given = self.weights or (1.0,) * members
        if len(given) != members:
            raise ValueError(f"weights: {len(given)} of them for {members} members")
        return np.array(given) / math.fsum(given)


class Vocabulary:
    """The tokens of a member by their strings of symbols (`proposals.symbols_of`)."""

    def __init__(self, member: Member):
        self._model, self._spelling = member.model, member.spelling
        symbols = self._spelling.symbols
        self._by_symbols: dict[str, list[int]] = {}
        for token, each in enumerate(symbols):
            self._by_symbols.setdefault(each, []).append(token)
        self._proposed = np.array([bool(each) for each in symbols])
        self._first: dict[str, list[int]] = {}

    @property
    def spelling(self) -> Spelling:
        """The strings of its tokens."""
        return self._spelling

    def tokens(self, symbols: str) -> list[int]:
        """The tokens that spell a string, or else the first one of its tokenisation, if any."""
        own = self._by_symbols.get(symbols)
        if own is not None:
            return own
        if symbols == END_SYMBOL:
            return []
        if symbols not in self._first:
            try:
                ids = self._model.prompt_ids(symbols.encode("latin-1"))
                self._first[symbols] = [int(each) for each in ids[1:2]]
            except UserError:  # it has no token for some byte
                self._first[symbols] = []
        return self._first[symbols]

    def log_probability(self, symbols: str, logs: Float[np.ndarray, " vocab"]) -> float:
        """The log-probability of a string as the next token; -inf where it has none, in nats."""
        tokens = self.tokens(symbols)
        return float(np.logaddexp.reduce(logs[tokens])) if tokens else -math.inf

    def most_probable(self, logs: Float[np.ndarray, " vocab"], top: int) -> list[str]:
        """The strings of the most probable tokens that are possible, the best first."""
        able = np.flatnonzero(self._proposed & (logs > -np.inf))
        best = able[np.argsort(-logs[able], kind="stable")[:top]]
        return list(dict.fromkeys(self._spelling.symbols[token] for token in best))


class Joined(NamedTuple):
    """The members' distributions over a union.

    Attributes:
        strings: of the union.
        probability: the average.
        each: of each member.
    """

    strings: list[str]
    probability: Float[np.ndarray, " strings"]
    each: Float[np.ndarray, "members strings"]

    @property
    def best(self) -> int:
        """The index of the most probable string; the first of equal ones."""
        return int(self.probability.argmax())


def join(
    vocabularies: Sequence[Vocabulary],
    logs: Sequence[Float[np.ndarray, " vocab"]],
    weights: Float[np.ndarray, " members"],
    top: int,
) -> Joined:
    """Returns the distributions over the union of the members' most probable tokens.

    A member that can begin to write none of the union has no weight.

    Args:
        vocabularies: of the members.
        logs: each one's log-probabilities of its next token; as good as logits, since the softmax
            over the union does not change by a constant.
        weights: of the members; they sum to 1.
        top: tokens of each member.
    """
    strings = list(
        dict.fromkeys(
            string
            for vocabulary, own in zip(vocabularies, logs, strict=True)
            for string in vocabulary.most_probable(own, top)
        )
    )
    each = np.full((len(vocabularies), len(strings)), -np.inf)
    for row, vocabulary, own in zip(each, vocabularies, logs, strict=True):
        for place, string in enumerate(strings):
            row[place] = vocabulary.log_probability(string, own)
    able = each.max(axis=1) > -np.inf
    each[able] = np.exp(each[able] - each[able].max(axis=1, keepdims=True))
    each[~able] = 0.0
    each[able] /= each[able].sum(axis=1, keepdims=True)
    share = weights * able
    return Joined(strings, (share / share.sum()) @ each, each)
