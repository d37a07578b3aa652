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
    watch, ids = LoopWatch(rule), np.asarray(tokens, np.int32)
    parts = [watch.read(ids[first : first + _PART]) for first in range(0, len(ids), _PART)]
    return np.concatenate([np.zeros(0, np.int32), *parts])


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
    """Reads a text part by part and says where it repeats itself, as `periods` does."""

    def __init__(self, rule: LoopRule = LoopRule()):
        """Args:
        rule: when a text counts as repeating itself.
        """
        periods = np.arange(1, rule.longest + 1)
        self._needed = np.maximum(periods * rule.copies, rule.tokens) - periods
        self._tail = np.full(
            rule.longest, -1, np.int32
        )  # the latest token last; -1 before the text
        self._run = np.zeros(rule.longest, np.int64)

    def read(self, tokens: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " tokens"]:
        """Reads tokens and returns the period of the repetition that ends with each, or 0.

        For each period it counts how many tokens in a row equal the one a period before.
        """
        count, longest = len(tokens), len(self._tail)
        if not count:
            return np.zeros(0, np.int32)
        text = np.concatenate([self._tail, tokens])
        # row t: the tokens 1, 2, ..., longest before token t
        before = np.lib.stride_tricks.sliding_window_view(text[:-1], longest)[:, ::-1]
        places = np.arange(count)[:, None]
        differs = np.where(before == np.reshape(tokens, (-1, 1)), -1 - self._run, places)
        run = places - np.maximum.accumulate(differs, axis=0)
        self._tail, self._run = text[-longest:], run[-1]
        repeats = run >= self._needed
        return np.where(repeats.any(axis=1), repeats.argmax(axis=1) + 1, 0).astype(np.int32)


_PART = 1024
"""Tokens of a text that `periods` compares with those before them at once."""
