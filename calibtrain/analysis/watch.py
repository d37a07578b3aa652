"""Reads a trace as it grows and gives its alarms: two sequential tests, and exact repetition."""

from collections.abc import Sequence

import numpy as np

from calibtrain.analysis.alarms import LOOP, Alarm, Rate, Test
from calibtrain.analysis.band import Band, excess_and_surprise
from calibtrain.analysis.blocks import BLOCK, Blocks
from calibtrain.generation.loops import LoopRule
from calibtrain.runs.traces import SOURCES, TokenTrace

RATE = 0.1
"""False alarms per 1,000 bytes of each test, both sides together."""
TESTS = ("cusum", "e-detector")
_PROMPT = SOURCES.index("prompt")


class Watch:
    """Alarms along one text. The tests read what comes after the prompt; each begins anew after an
    alarm of its own. A repetition gives one alarm, when it is first seen.

    Attributes:
        band: of held-out text; None where there is none.
        alarms: all that were given.
    """

    def __init__(self, band: Band | None, rate: float = RATE, tests: Sequence[str] = TESTS):
        """Args:
        band: of held-out text; None means that repetition alone is looked for.
        rate: false alarms per 1,000 bytes of held-out text, of each test.
        tests: cusum, e-detector or both.

        Raises:
            UserError: where the band's text is too short to tell the rate.
        """
        stated = Rate(rate, BLOCK)
        self.band = band
        self._tests: dict[str, Test] = {}
        if band is not None:
            for name in tests:
                make = band.cusum(stated) if name == "cusum" else band.e_detector(stated)
                self._tests[name] = make()
        self.alarms: list[Alarm] = []
        self._blocks: Blocks | None = None
        self._ends: list[int] = []
        self._byte, self._repeats = 0, 0

    def read(self, trace: TokenTrace, first: int = 0) -> list[Alarm]:
        """Reads the tokens of a trace from `first` on; returns the alarms that they give."""
        before = len(self.alarms)
        sizes = [len(piece) for piece in trace.pieces[first:]]
        bits = excess_and_surprise(trace, first).tolist()
        generated = (np.asarray(trace.source[first:]) != _PROMPT).tolist()
        periods = np.asarray(trace.repeats[first:]).tolist()
        for place, size in enumerate(sizes):
            self._byte += size
            if generated[place]:
                self._token(bits[place], size)
                if periods[place] and not self._repeats:
                    self._loop(trace, first + place, periods[place])
            self._repeats = periods[place]
        return self.alarms[before:]

    def _token(self, bits: Sequence[float], size: int) -> None:
        if self._blocks is None:
            self._blocks = Blocks(byte=self._byte - size)
            self._ends.append(self._byte - size)
        rate = self._blocks.read((bits[0], bits[1]), size)
        if rate is None or self.band is None:
            return
        self._ends.append(self._byte)
        (block,) = self.band.standardised([self._byte], [rate])
        for name, test in self._tests.items():
            if kind := test.read(*block):
                side = kind != "derailment"
                begins = self._ends[max(0, len(self._ends) - 1 - test.since())]
                value, threshold = test.statistics[side], test.thresholds[side]
                self.alarms.append(Alarm(kind, name, self._byte, begins, value, threshold))

    def _loop(self, trace: TokenTrace, token: int, period: int) -> None:
        rule = LoopRule()
        least = max(period * rule.copies, rule.tokens)
        begins = int(trace.byte_lengths[: max(0, token + 1 - least)].sum())
        self.alarms.append(Alarm(LOOP, "period", self._byte, begins, float(period), float(least)))
