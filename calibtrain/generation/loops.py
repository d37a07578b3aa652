"""Exact repetition: does a text end in several copies of one pattern of tokens?

Serving engines stop such loops by a longest pattern, a fewest number of copies and a least length.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class LoopRule:
    """When a text counts as repeating itself.

    Attributes:
        longest: tokens of the longest pattern that is looked for.
        copies: how often a pattern must stand in a row.
        tokens: how many tokens all copies together must have, so that short patterns need more.
    """

    longest: int = 128
    copies: int = 3
    tokens: int = 48

    def __post_init__(self) -> None:
        for name, least in (("longest", 1), ("copies", 2), ("tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed; at least {least}")

    @property
    def reach(self) -> int:
        """How many tokens of the end decide."""
        return max(self.longest * self.copies, self.tokens + self.longest)


def periods(
    tokens: Sequence[int] | Int[np.ndarray, " tokens"], rule: LoopRule = LoopRule()
) -> Int[np.ndarray, " tokens"]:
    """Returns for each token the period of the repetition that ends with it; 0 where there is none.

    The shortest pattern counts: its copies are `rule.copies` at least, and have `rule.tokens`
    tokens at least together.

    Example:
        >>> periods([7, 1, 2, 1, 2, 1, 2, 5], LoopRule(longest=4, copies=3, tokens=6)).tolist()
        [0, 0, 0, 0, 0, 0, 2, 0]
    """
    ids = np.asarray(tokens)
    found = np.zeros(len(ids), np.int32)
    places = np.arange(len(ids))
    for period in range(min(rule.longest, len(ids) // rule.copies), 0, -1):
        differs = np.ones(len(ids), bool)
        differs[period:] = ids[period:] != ids[:-period]
        # tokens since the last one that differs from the one a period before
        run = places - np.maximum.accumulate(np.where(differs, places, -1))
        found[run + period >= max(period * rule.copies, rule.tokens)] = period
    return found


def continued(
    known: Int[np.ndarray, " first"],
    tokens: Sequence[int] | Int[np.ndarray, " tokens"],
    rule: LoopRule = LoopRule(),
) -> Int[np.ndarray, " tokens"]:
    """Returns `periods` of a text, given those of its first tokens.

    Example:
        >>> continued(np.array([0, 0]), [4] * 5, LoopRule(tokens=4)).tolist()
        [0, 0, 0, 1, 1]
    """
    begin = max(0, len(known) - rule.reach)
    rest = periods(tokens[begin:], rule)[len(known) - begin :]
    return np.concatenate([known, rest]).astype(np.int32)


def period_of(
    tokens: Sequence[int] | Int[np.ndarray, " tokens"], rule: LoopRule = LoopRule()
) -> int:
    """Returns the period of the repetition that a text ends in; 0 where there is none.

    Example:
        >>> period_of([9] + [4, 5, 6] * 16)
        3
        >>> period_of([9] + [4, 5, 6] * 15)
        0
    """
    end = np.asarray(tokens)[-rule.reach :]
    return int(periods(end, rule)[-1]) if len(end) else 0


class LoopWatch:
    """Reads a text token by token and says when it repeats itself, as `periods` does."""

    def __init__(self, rule: LoopRule = LoopRule()):
        """Args:
        rule: when a text counts as repeating itself.
        """
        self._periods = np.arange(1, rule.longest + 1)
        self._needed = np.maximum(self._periods * rule.copies, rule.tokens) - self._periods
        self._tail = np.full(rule.longest, -1)  # the latest token first; -1 before the text
        self._run = np.zeros(rule.longest, np.int64)

    def read(self, token: int) -> int:
        """Reads a token and returns the period of the repetition that ends with it, or 0."""
        self._run = np.where(self._tail == token, self._run + 1, 0)
        self._tail[1:] = self._tail[:-1]
        self._tail[0] = token
        repeats = self._run >= self._needed
        place = int(repeats.argmax())
        return place + 1 if repeats[place] else 0
