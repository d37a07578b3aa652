"""Sequential tests for a change in a text: CUSUM and an e-detector, each upward and downward.

Both read two numbers per block of a text, standardised so that they are 0 on average where the text
is like a run's held-out text. Upward they read surprise less entropy: *derailment* is text that the
model finds more surprising than it expects to. Downward they read the surprise: *collapse* is text
that is too easy to predict, as what repeats itself. The false-alarm rate
of CUSUM comes from a threshold that is fitted to held-out text; that of the e-detector holds by
theory for every text whose mean stays between two given limits. After an alarm a test begins anew.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

UP, DOWN = "derailment", "collapse"
"""The kinds of alarm that a test gives; an exact repetition gives `LOOP`."""
LOOP = "loop"
CLIP = 3.0
"""Standard deviations beyond which the e-detector takes a block for an outlier."""
BETS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Shares of the largest safe bet that the e-detector mixes with equal weights."""


class Alarm(NamedTuple):
    """A change that was noticed.

    Attributes:
        kind: derailment, collapse or loop.
        test: cusum, e-detector, or period for an exact repetition.
        byte: how many bytes of the text were read when it was given.
        begins: the byte at which the change seems to have begun.
        value: of the statistic; of a loop, how many tokens its pattern has.
        threshold: that it passed; of a loop, how many tokens all copies must have.
    """

    kind: str
    test: str
    byte: int
    begins: int
    value: float
    threshold: float


class Test(Protocol):
    """A two-sided sequential test.

    Attributes:
        statistics: of the upward and the downward test, before the reset that an alarm brings.
        thresholds: at which each gives an alarm.
    """

    statistics: tuple[float, float]
    thresholds: tuple[float, float]

    def read(self, rise: float, fall: float) -> str:
        """Reads the next block; returns the kind of alarm, or "" without one.

        Args:
            rise: what the upward test reads.
            fall: what the downward test reads.
        """

    def since(self) -> int:
        """Returns how many blocks the latest alarm looks back on."""


class Cusum:
    """Cumulative sums: S = max(0, S + z - allowance) upward, and downward with -z.

    An alarm is given where S reaches the threshold, which begins both sums anew.

    References:
        E. S. Page, "Continuous Inspection Schemes", Biometrika 41 (1954).
    """

    def __init__(self, up: float, down: float, allowance: float = 0.5):
        """Args:
        up: threshold of the upward sum, in standard deviations of a block.
        down: threshold of the downward sum.
        allowance: half the shift that is to be found, in standard deviations.
        """
        self.thresholds, self._allowance = (up, down), allowance
        self.statistics = (0.0, 0.0)
        self._sums, self._since = _Sums(), 0

    def read(self, rise: float, fall: float) -> str:
        """Reads a standardised block; returns the kind of alarm, or "" without one."""
        self._sums.read(rise - self._allowance, -fall - self._allowance)
        self.statistics = (self._sums.totals[0], self._sums.totals[1])
        if (side := _over(self.statistics, self.thresholds)) is None:
            return ""
        self._since = self._sums.ages[side]
        self._sums = _Sums()
        return (UP, DOWN)[side]

    def since(self) -> int:
        """Returns for how many blocks the sum of the latest alarm was above 0."""
        return self._since


class _Sums:
    """An upward and a downward sum that begin anew at 0, and for how long each is above it."""

    def __init__(self) -> None:
        self.totals, self.ages = [0.0, 0.0], [0, 0]

    def read(self, *added: float) -> None:
        for side, more in enumerate(added):
            grown = self.totals[side] + more
            self.ages[side] = self.ages[side] + 1 if grown > 0 else 0
            self.totals[side] = max(0.0, grown)


class EDetector:
    """Sums of e-processes that bet on a mean above, or below, what is allowed.

    A block x in [0, 1] multiplies the capital of bet f upward by 1 + f (x - m) / m, where m is the
    largest mean allowed, and downward by 1 + f (m' - x) / (1 - m'). While the mean of the next
    block, given those before, is allowed, each capital is a non-negative supermartingale. With
    `restart` a capital of 1 is added before each block (Shiryaev and Roberts): the mean number of
    blocks until an alarm of one side is at least 1 / alpha. Without it (Ville), the chance that a
    side ever gives one is at most alpha.

    References:
        J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: A Nonparametric Framework for Sequential
        Change Detection" (2024). I. Waudby-Smith, A. Ramdas, "Estimating Means of Bounded Random
        Variables by Betting" (2024).
    """

    def __init__(self, lowest: float, highest: float, alpha: float, *, restart: bool = True):
        """Args:
        lowest: the smallest mean of what the downward test reads that is allowed, in standard
            deviations, within `CLIP`.
        highest: the largest of what the upward test reads.
        alpha: rate of false alarms of each side, per block (per text without `restart`).
        restart: whether a change is looked for that begins anywhere.

        Raises:
            ValueError: for limits or a rate outside their range.
        """
        for name, limit in (("lowest", lowest), ("highest", highest)):
            if not -CLIP < limit < CLIP:
                raise ValueError(f"{name}: {limit} is not allowed; allowed: within {CLIP} of 0")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: {alpha} is not allowed; allowed: above 0, below 1")
        self._limits = lowest, highest
        self._means = _unit(highest), _unit(lowest)
        self._restart = restart
        self.thresholds = (1 / alpha, 1 / alpha)
        self._begin()
        self.statistics, self._since = (self._mean(0), self._mean(1)), 0

    def _begin(self) -> None:
        start = 0.0 if self._restart else 1.0
        self._capital = [[start] * len(BETS) for _ in range(2)]
        self._sums = _Sums()

    def _mean(self, side: int) -> float:
        return sum(self._capital[side]) / len(BETS)

    def read(self, rise: float, fall: float) -> str:
        """Reads a standardised block; returns the kind of alarm, or "" without one."""
        high, low = self._means
        gains = ((_unit(rise) - high) / high, (low - _unit(fall)) / (1 - low))
        added = 1.0 if self._restart else 0.0
        for own, gain in enumerate(gains):
            capital = self._capital[own]
            for place, bet in enumerate(BETS):
                capital[place] = (capital[place] + added) * (1 + bet * gain)
        lowest, highest = self._limits
        self._sums.read(rise - highest - 0.5, lowest - fall - 0.5)
        self.statistics = (self._mean(0), self._mean(1))
        if (side := _over(self.statistics, self.thresholds)) is None:
            return ""
        self._since = self._sums.ages[side]
        self._begin()
        return (UP, DOWN)[side]

    def since(self) -> int:
        """Returns for how many blocks a CUSUM beyond the limits was above 0 at the latest alarm."""
        return self._since


def _unit(z: float) -> float:
    """Returns a standardised number, clipped, on a scale from 0 to 1."""
    return (min(CLIP, max(-CLIP, z)) + CLIP) / (2 * CLIP)


def _over(values: tuple[float, float], thresholds: tuple[float, float]) -> int | None:
    """Returns the side that is over its threshold, the one that is further; None without one."""
    up, down = (value / threshold for value, threshold in zip(values, thresholds, strict=True))
    if max(up, down) < 1:
        return None
    return 0 if up >= down else 1


Block = tuple[float, float]
"""What the upward and what the downward test read of a block."""


def alarms_at(test: Test, blocks: Iterable[Block]) -> list[tuple[int, str]]:
    """Returns the number and kind of each block at which a test gives an alarm.

    Example:
        >>> blocks = [(0.0, 0.0), (3.0, 0.0), (3.0, 0.0), (0.0, -5.0)]
        >>> alarms_at(Cusum(up=4, down=4), blocks)
        [(2, 'derailment'), (3, 'collapse')]
    """
    found = ((number, test.read(*block)) for number, block in enumerate(blocks))
    return [(number, kind) for number, kind in found if kind]


def false_alarms(make: Callable[[], Test], texts: Sequence[Iterable[Block]]) -> tuple[int, int]:
    """Returns how many alarms of each side a test gives on texts, each begun anew."""
    kinds = [kind for text in texts for _, kind in alarms_at(make(), text)]
    return kinds.count(UP), kinds.count(DOWN)


def cusum_thresholds(
    texts: Sequence[Sequence[Block]], rate: float, allowance: float = 0.5
) -> tuple[float, float]:
    """Returns the lowest thresholds at which texts give few enough alarms of each side.

    The thresholds are fitted one by one; with both, alarms are a little rarer, since one side's
    alarm begins the other anew. At most `rate` times the number of blocks alarms are given, less
    one: the alarm that a further text could give is counted.

    Args:
        texts: standardised blocks of held-out text.
        rate: false alarms of each side per block.
        allowance: as for `Cusum`.

    Raises:
        ValueError: for too little text to tell the rate.
    """
    blocks = sum(len(text) for text in texts)
    allowed = rate * blocks - 1
    if allowed < 0:
        raise ValueError(
            f"{blocks:,} blocks of held-out text are too few to tell a rate of {rate:.2g} per "
            f"block; at least {math.ceil(1 / rate):,}"
        )
    found = []
    for side, sign in enumerate((1, -1)):
        signed = [[sign * block[side] for block in text] for text in texts]
        low, high = 0.0, 1.0 + max(max(map(abs, text)) * len(text) for text in signed if text)
        while high - low > 0.01:
            middle = (low + high) / 2
            if _given(signed, middle, allowance) > allowed:
                low = middle
            else:
                high = middle
        found.append(high)
    return found[0], found[1]


def _given(texts: Iterable[Iterable[float]], threshold: float, allowance: float) -> int:
    """Returns how many alarms an upward sum gives, as `Cusum` does."""
    count = 0
    for text in texts:
        total = 0.0
        for value in text:
            total = max(0.0, total + value - allowance)
            if total >= threshold:
                total, count = 0.0, count + 1
    return count


@dataclasses.dataclass(frozen=True)
class Rate:
    """A stated rate of false alarms, of both sides together.

    Attributes:
        per_thousand_bytes: false alarms per 1,000 bytes.
        block: bytes of a block.
    """

    per_thousand_bytes: float
    block: int

    @property
    def per_side_and_block(self) -> float:
        """False alarms of one side per block."""
        return self.per_thousand_bytes / 1000 * self.block / 2
