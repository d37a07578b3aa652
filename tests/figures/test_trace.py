"""A trace is drawn as it was recorded: windowed rates at the bytes where tokens end."""

import numpy as np
import pytest

from calibtrain import figures
from calibtrain.runs.traces import TokenTrace, TraceRecord


def record() -> TraceRecord:
    random = np.random.default_rng(0)
    count = 60
    logs = -random.exponential(2.0, count).astype(np.float32)
    ones = np.ones(count, np.float32)
    trace = TokenTrace(
        text=0,
        tokens=np.arange(count),
        pieces=[b"ab"] * count,
        source=np.ones(count, np.int32),
        log_probability=logs,
        sampling_log_probability=logs,
        entropy=2 * ones,
        confidence=ones,
        rank=np.ones(count, np.int32),
        alternatives=np.zeros((count, 1), np.int32),
        alternative_log_probability=np.zeros((count, 1), np.float32),
        temperature=ones,
        repeats=np.zeros(count, np.int32),
    )
    return TraceRecord.of([trace])


def test_surprise_and_entropy_are_drawn_with_band_and_alarms() -> None:
    ranges = [{"begins": 0, "quantiles": [1.0, 2.0, 3.0]}, {"begins": 64, "quantiles": [0, 1, 2]}]
    alarm = {"kind": "derailment", "test": "cusum", "byte": 40}
    found = figures.along_text(record(), band={"ranges": ranges}, alarms=[alarm])
    low, high, surprise, entropy = found.data
    assert list(low.x) == list(high.x) == [0, 64, 120]
    assert (list(low.y), list(high.y)) == ([1.0, 0, 0], [3.0, 2, 2])
    assert list(surprise.x) == list(range(2, 121, 2))
    assert list(entropy.y) == pytest.approx([1 / np.log(2)] * 60)
    bits = -np.array(record().table.column("log_probability").to_pylist()) / np.log(2)
    assert surprise.y[10] == pytest.approx(bits[:11].sum() / 22)
    assert surprise.y[-1] == pytest.approx(bits[-32:].sum() / 64, rel=1e-5)
    assert [shape.x0 for shape in found.layout.shapes] == [40]


def test_a_text_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="text: 1 is not in the trace"):
        figures.along_text(record(), 1)
