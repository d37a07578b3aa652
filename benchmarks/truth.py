"""Every figure and its interval against the truth: a perfect model of a source, and a wrong one.

python -m benchmarks.truth [--corpora 200] [--documents 60] [--temperatures 1 1.1 1.5]

The model is the exact law of the next byte of a Markov source, or that law at a temperature. Each
corpus is drawn anew, its events are added up and read as an evaluation's are. The truth is the
expectation over all documents, summed over all states of the source: no sample of it. One JSON line
a temperature and figure: its truth, its bias (mean estimate less the truth) and the standard error
of that, per cent of corpora whose 95 % interval covers the truth, and for how many of them it lies
wholly above or below. Needs all of calibtrain, unlike the other benchmarks.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.documents import END
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source
from calibtrain.evaluation.choices import choice_columns
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import COLUMNS, EventSums, ScoredEvents
from calibtrain.evaluation.figure_intervals import plain_figures
from calibtrain.evaluation.strata import ENTROPY, entropy_band
from calibtrain.metrics.arguments import Predictions
from calibtrain.metrics.from_histogram import histogram_metrics
from calibtrain.metrics.histogram import CELLS, ConfidenceHistogram, fine_table

BINS = 15
_ENDLESS = 1e12
"""Documents: so many that what noise adds to a debiased error is lost in rounding."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model by bytes of a source, and all events that can happen to it.

    Attributes:
        perfect: the states.
        symbols: of each event, state * 257 + what came; rising.
        values: `events.COLUMNS` of each.
        expected: how often each happens in a document.
    """

    perfect: MarkovBytes
    symbols: Int[np.ndarray, " events"]
    values: Float[np.ndarray, "events columns"]
    expected: Float[np.ndarray, " events"]

    @classmethod
    def of(cls, source: MarkovSource, temperature: float = 1.0) -> "Model":
        perfect = MarkovBytes.of(source)
        state, symbol = np.nonzero(perfect.laws)
        tempered = perfect.laws ** (1 / temperature)
        tempered /= tempered.sum(axis=1, keepdims=True)
        return cls(
            perfect,
            state * (END + 1) + symbol,
            choice_columns(tempered[state], None, symbol),
            perfect.visits[state] * perfect.laws[state, symbol],
        )

    def sums(self, texts: list[str]) -> EventSums:
        """The sums over the events of documents."""
        document, state, symbol = self.perfect.read(texts)
        values = self.values[np.searchsorted(self.symbols, state * (END + 1) + symbol)]
        sums = EventSums(np.bincount(document) - 1, np.arange(len(texts)), [ENTROPY], BINS)
        sums.add(ScoredEvents(document, values))
        return sums

    def truth(self) -> dict[str, float]:
        """Every figure of endlessly many documents; `NAME [GROUP]` is that of a stratum's group."""
        band = entropy_band(self.values[:, COLUMNS.index("entropy")])
        found = self._figures(np.ones(len(band), bool))
        for index, label in enumerate(ENTROPY.labels):
            if (band == index).any():
                group = self._figures(band == index)
                found |= {f"{name} [{label}]": value for name, value in group.items()}
        return found

    def _figures(self, chosen: Any) -> dict[str, float]:
        weights, values = self.expected[chosen] * _ENDLESS, self.values[chosen]
        is_byte = self.symbols[chosen] % (END + 1) != END
        sums = np.concatenate([[weights.sum()], weights @ values, [weights @ is_byte]])[None]
        confidence = values[:, COLUMNS.index("confidence")].astype(np.float32).astype(np.float64)
        correct = values[:, COLUMNS.index("correct")]
        events = Predictions(confidence, correct, weights, np.float32, np)
        figures = histogram_metrics(ConfidenceHistogram(fine_table(events, CELLS)), bins=BINS)
        return figures | {name: float(of(sums)[0]) for name, of in plain_figures(sums).items()}


def intervals(results: dict[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Name, estimate and interval of every figure of some results that has one."""
    for name, interval in results["intervals"].items():
        yield name, results[name], interval
    for row in results[ENTROPY.name]:
        for name, interval in (row["intervals"] or {}).items():
            yield f"{name} [{row['label']}]", row[name], interval


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 1.1, 1.5])
    given = parser.parse_args()
    source = markov_source(MarkovConfig())
    for temperature in given.temperatures:
        model = Model.of(source, temperature)
        truth = model.truth()
        estimates: dict[str, list[float]] = {}
        ends: dict[str, list[tuple[float, float]]] = {}
        started, seconds = time.monotonic(), 0.0
        drawn = source.sample_documents(given.corpora * given.documents, 1)
        for corpus in range(given.corpora):
            sums = model.sums(list(itertools.islice(drawn, given.documents)))
            began = time.process_time()
            results = compute_results(sums)
            seconds += time.process_time() - began
            for name, estimate, interval in intervals(results):
                estimates.setdefault(name, []).append(estimate)
                ends.setdefault(name, []).append((interval["lower"], interval["upper"]))
            if (corpus + 1) % 10 == 0:
                passed = time.monotonic() - started
                print(
                    f"T {temperature:g}: {corpus + 1}/{given.corpora} corpora, {passed:.0f} s "
                    f"({seconds / (corpus + 1):.2f} CPU s to read one)",
                    file=sys.stderr,
                    flush=True,
                )
        setting = {"temperature": temperature, "documents": given.documents}
        for name, found in estimates.items():
            print(json.dumps(setting | line(name, found, ends[name], truth[name])), flush=True)


def line(
    name: str, estimates: list[float], ends: list[tuple[float, float]], truth: float
) -> dict[str, Any]:
    """What is printed of a figure. A ten-millionth of a percent is rounding, and covered."""
    found, (lower, upper) = np.array(estimates), np.array(ends).T
    above, below = lower > truth + 1e-9, upper < truth - 1e-9
    return {
        "figure": name,
        "corpora": len(found),
        "truth": truth,
        "bias": float(found.mean() - truth),
        "bias_error": float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else None,
        "covered": round(100 * float((~above & ~below).mean()), 1),
        "above": int(above.sum()),
        "below": int(below.sum()),
        "width": float((upper - lower).mean()),
    }


if __name__ == "__main__":
    main()
