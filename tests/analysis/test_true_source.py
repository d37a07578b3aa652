"""On a Markov source and its perfect model, there are as many false alarms as the Tracer states."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from calibtrain.analysis.alarms import DOWN, LOOP, UP
from calibtrain.analysis.band import Band, band_of_traces
from calibtrain.analysis.watch import Watch
from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.documents import END
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.generation.loops import periods
from calibtrain.runs.traces import TokenTrace

SOURCE = markov_source(MarkovConfig(words=64, successors=8, mean_document_words=200.0))
EXACT = MarkovBytes.of(SOURCE)
RATE = 1.0


def traces_of(texts: Sequence[str]) -> list[TokenTrace]:
    """The traces of documents of the source, a byte a token, under its exact law."""
    document, state, symbol = EXACT.read(texts)
    logs = np.log(np.where(EXACT.laws > 0, EXACT.laws, 1.0))
    entropies = -np.sum(EXACT.laws * logs, axis=1)
    return [
        as_trace(symbol[own], logs[state[own], symbol[own]], entropies[state[own]])
        for own in (document == number for number in range(len(texts)))
    ]


def as_trace(tokens: np.ndarray, logs: np.ndarray, entropies: np.ndarray) -> TokenTrace:
    """A trace of bytes, of which the tests read information, entropy and repetition."""
    count = len(tokens)
    ones = np.ones(count, np.float32)
    return TokenTrace(
        text=0,
        tokens=tokens,
        pieces=[b"" if token == END else bytes([token]) for token in tokens],
        source=np.full(count, 2),
        log_probability=logs.astype(np.float32),
        sampling_log_probability=np.full(count, np.nan, np.float32),
        entropy=entropies.astype(np.float32),
        confidence=ones,
        rank=np.ones(count, np.int32),
        alternatives=np.zeros((count, 1), np.int32),
        alternative_log_probability=np.zeros((count, 1), np.float32),
        temperature=ones,
        repeats=periods(tokens),
    )


@pytest.fixture(scope="module")
def band() -> Band:
    return band_of_traces(traces_of(list(SOURCE.sample_documents(150, seed=1))))


@pytest.fixture(scope="module")
def fresh() -> list[TokenTrace]:
    return traces_of(list(SOURCE.sample_documents(150, seed=2)))


def test_false_alarms_on_the_true_source_are_as_many_as_stated(
    band: Band, fresh: list[TokenTrace]
) -> None:
    """CUSUM's: the stated rate is in the 99.9 % interval; the e-detector's is at most that."""
    size = sum(int(trace.byte_lengths.sum()) for trace in fresh)
    counts = {}
    for test in ("cusum", "e-detector"):
        alarms = [Watch(band, RATE, [test]).read(trace) for trace in fresh]
        counts[test] = sum(alarm.kind in (UP, DOWN) for each in alarms for alarm in each)
    expected = RATE / 1000 * size
    fitted = RATE / 1000 * band.bytes
    assert expected > 80
    assert abs(counts["cusum"] - expected) < 3.3 * expected * math.sqrt(1 / fitted + 1 / expected)
    assert counts["e-detector"] <= expected + 3.3 * math.sqrt(expected)


def test_the_band_is_the_entropy_rate_of_the_source(band: Band) -> None:
    """Weighted by position, the mean surprise of blocks is the known bits per byte."""
    assert band.bytes > 80_000
    late = [each for each in band.ranges if each.begins >= 64]
    for each in late:
        assert each.surprise == pytest.approx(SOURCE.entropy_bits_per_byte, abs=0.05)
        assert each.entropy == pytest.approx(SOURCE.entropy_bits_per_byte, abs=0.05)
        assert each.quantiles[0] < each.entropy < each.quantiles[-1]


@pytest.mark.parametrize(("factor", "kind"), [(1.7, UP), (0.3, DOWN)])
@pytest.mark.parametrize("test", ["cusum", "e-detector"])
def test_surprise_that_changes_is_found(
    band: Band, fresh: list[TokenTrace], factor: float, kind: str, test: str
) -> None:
    import dataclasses

    trace = max(fresh, key=len)
    later = np.arange(len(trace)) >= 512
    changed = dataclasses.replace(
        trace, log_probability=trace.log_probability * np.where(later, factor, 1.0)
    )
    alarms = [each for each in Watch(band, RATE, [test]).read(changed) if each.byte > 512]
    assert alarms[0].kind == kind
    assert 512 - 64 <= alarms[0].begins <= alarms[0].byte <= 512 + 400


def test_a_watch_reads_in_parts_what_it_reads_at_once(band: Band, fresh: list[TokenTrace]) -> None:
    trace = max(fresh, key=len)
    whole, parts = Watch(band, 20.0), Watch(band, 20.0)
    whole.read(trace)
    for first in range(0, len(trace), 37):
        end = min(len(trace), first + 37)
        part = as_trace(trace.tokens[:end], trace.log_probability[:end], trace.entropy[:end])
        parts.read(part, first)
    assert whole.alarms
    assert parts.alarms == whole.alarms


def test_a_loop_gives_one_alarm_where_it_is_first_seen() -> None:
    tokens = np.array([*b"once upon a time:", *b"and again, " * 10, *b"the end"])
    zeros = np.zeros(len(tokens))
    (alarm,) = Watch(None).read(as_trace(tokens, zeros, zeros))
    assert (alarm.kind, alarm.value, alarm.byte) == (LOOP, 11, 17 + 48)
    assert alarm.begins == 17


def test_a_band_is_read_as_it_was_written(band: Band, tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "traces" / "band.json"
    band.write(path)
    assert Band.read(path) == band
