"""How often do the program's intervals cover the truth? Few documents, and very unequal ones.

python -m benchmarks.coverage FILE [--corpora 200] [--seconds 200] [--only SETTING ...] [--table]

A corpus is drawn anew, added up and read as an evaluation is, so that every interval that the
program prints is tried: figures, groups of strata, and differences of heads. Documents are harder
or easier than others. They are of equal length, or their lengths are lognormal with a sigma of 1.5.
In the setting `longer-easier`, long documents are easier besides. The truth is the expectation over
all events of endlessly many documents, by quadrature.

Each corpus is one JSON line of FILE: whether the truth of each figure was covered (0), or lay below
(-1) or above (1) its interval. A call adds lines for at most --seconds; the next call goes on.
--table prints the shares in per cent, one JSON line a setting. Needs all of calibtrain, unlike the
other benchmarks.
"""

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import EventSums, ScoredEvents
from calibtrain.evaluation.figure_intervals import plain_figures
from calibtrain.evaluation.strata import ENTROPY, entropy_band
from calibtrain.metrics.arguments import Predictions
from calibtrain.metrics.from_histogram import histogram_metrics
from calibtrain.metrics.histogram import CELLS, ConfidenceHistogram, fine_table
from calibtrain.posthoc.comparison_rows import COMPARED, differences

BINS = 15
OTHERS = 9
"""Entries of the vocabulary beside the most probable one, which share the rest equally."""
BYTES_EACH = 4.0
_ENDLESS = 1e12
"""Documents: so many that what noise adds to a debiased error is lost in rounding."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Documents and the model that reads them.

    Attributes:
        documents: number of documents.
        lengths: `equal`, `unequal`, or `longer-easier`.
        sharpness: what the model multiplies the logits by; 1 is nearly calibrated.
        effect: standard deviation of what a document adds to the true logits.
        temperature: of another head, whose logits are divided by it; None where heads are not
            compared.
        events: mean number of events of a document.
    """

    documents: int
    lengths: str
    sharpness: float
    effect: float
    temperature: float | None = None
    events: int = 300

    @property
    def name(self) -> str:
        """DOCUMENTSxEVENTS-LENGTHS-SHARPNESS, and -TEMPERATURE where heads are compared."""
        name = f"{self.documents}x{self.events}-{self.lengths}-{self.sharpness:g}"
        return name if self.temperature is None else f"{name}-{self.temperature:g}"

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures of the model and of the other head."""
        return (1.0,) if self.temperature is None else (1.0, self.temperature)

    @property
    def slope(self) -> float:
        """What the true logits rise by where a document is e times as long."""
        return 0.2 if self.lengths == "longer-easier" else 0.0

    def sizes(self, rng: Any) -> Any:
        """Numbers of events of the documents."""
        if self.lengths == "equal":
            return rng.poisson(self.events, self.documents) + 1
        drawn = np.exp(rng.normal(-(SIGMA**2) / 2, SIGMA, self.documents))
        return np.round(self.events * drawn).astype(int) + 1


SIGMA = 1.5
"""Standard deviation of the logarithm of lognormal document lengths."""
SETTINGS = {
    setting.name: setting
    for setting in (
        *(
            Setting(documents, lengths, sharpness, effect)
            for documents in (5, 9, 20, 60)
            for lengths in ("equal", "unequal")
            for sharpness, effect in ((1.0, 0.0), (1.3, 0.3))
        ),
        *(
            Setting(documents, lengths, 1.2, 0.2, temperature, events)
            for documents, events in ((9, 1500), (60, 600))
            for lengths in ("equal", "unequal")
            for temperature in (1.05, 1.3)
        ),
        Setting(60, "longer-easier", 1.3, 0.3),
    )
}


def scores(logit: Any, correct: Any) -> Float[np.ndarray, "events columns"]:
    """`event_sums.COLUMNS` of events whose most probable entry has this logit."""
    sure = expit(logit)
    rest = (1 - sure) / OTHERS
    log_rest = -np.logaddexp(0, logit) - math.log(OTHERS)
    log_sure = -np.logaddexp(0, -logit)
    nll = -np.where(correct > 0, log_sure, log_rest)
    entropy = -(sure * log_sure + OTHERS * rest * log_rest)
    probability = np.where(correct > 0, sure, rest)
    brier = 1 - 2 * probability + sure**2 + OTHERS * rest**2
    return np.column_stack([nll, entropy, sure, correct, brier])


def corpus(rng: Any, setting: Setting) -> list[EventSums]:
    """The sums of a corpus under the model, and under the other head."""
    sizes = setting.sizes(rng)
    document = np.repeat(np.arange(len(sizes)), sizes)
    longer = setting.slope * np.log(sizes / setting.events)
    centre = 1 + rng.normal(0, 0.5, len(sizes))
    hidden = rng.normal(0, setting.effect, len(sizes)) + longer
    logit = rng.normal(centre[document], 1.5)
    correct = (rng.random(len(logit)) < expit(logit + hidden[document])) * 1.0
    held = np.maximum(np.round(BYTES_EACH * sizes * rng.uniform(0.9, 1.1, len(sizes))), 1)
    found = []
    for temperature in setting.temperatures:
        sums = EventSums(held.astype(int), np.arange(len(sizes)), [ENTROPY], BINS)
        values = scores(setting.sharpness / temperature * logit, correct)
        sums.add(ScoredEvents(document, values))
        found.append(sums)
    return found


def truth(setting: Setting) -> dict[str, float]:
    """Every figure of endlessly many documents, by the names that `tried` gives them."""
    logit, logit_weight = _normal(1, math.hypot(1.5, 0.5), 6001)
    hidden, hidden_weight = _hidden(setting)
    right = expit(logit[:, None] + hidden) @ hidden_weight
    logits = np.concatenate([logit, logit])
    correct = np.repeat([1.0, 0.0], len(logit))
    weights = np.concatenate([logit_weight * right, logit_weight * (1 - right)]) * _ENDLESS
    models = [scores(setting.sharpness / t * logits, correct) for t in setting.temperatures]
    figures = [_figures(values, weights) for values in models]
    if setting.temperature is not None:
        first, second = figures
        return {f"{name} - other": first[name] - second[name] for name in COMPARED}
    band, found = entropy_band(models[0][:, 1]), figures[0]
    for index, label in enumerate(ENTROPY.labels):
        chosen = band == index
        if chosen.any():
            group = _figures(models[0][chosen], weights[chosen])
            found |= {f"{name} [{label}]": value for name, value in group.items()}
    return found


def _normal(mean: float, deviation: float, points: int) -> tuple[Any, Any]:
    grid = np.linspace(-7, 7, points)
    weight = np.exp(-(grid**2) / 2)
    return mean + deviation * grid, weight / weight.sum()


def _hidden(setting: Setting) -> tuple[Any, Any]:
    """What documents add to the true logits, as events see it: long documents count by length."""
    deviation = math.hypot(setting.effect, setting.slope * SIGMA)
    mean = setting.slope * SIGMA**2 / 2
    return _normal(mean, deviation, 201) if deviation else (np.zeros(1), np.ones(1))


def _figures(values: Any, weights: Any) -> dict[str, float]:
    sums = np.concatenate([[weights.sum()], weights @ values, [weights.sum() * BYTES_EACH]])[None]
    confidence, correct = values[:, 2].astype(np.float32).astype(float), values[:, 3]
    events = Predictions(confidence, correct, weights, np.float32, np)
    figures = histogram_metrics(ConfidenceHistogram(fine_table(events, CELLS)), bins=BINS)
    return figures | {name: float(of(sums)[0]) for name, of in plain_figures(sums).items()}


def tried(sums: list[EventSums]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every interval of a corpus by a name: figures and groups of a stratum, or differences."""
    if len(sums) == 2:
        for name, interval in differences(*sums).items():
            yield f"{name} - other", interval
        return
    results = compute_results(sums[0])
    yield from results["intervals"].items()
    for row in results[ENTROPY.name]:
        for name, interval in (row["intervals"] or {}).items():
            if interval["lower"] < interval["upper"]:  # the same for every event: nothing to try
                yield f"{name} [{row['label']}]", interval


def sides(sums: list[EventSums], true: dict[str, float]) -> dict[str, int]:
    """Returns on which side of each interval the truth lies: below -1, above 1, covered 0.

    A ten-millionth of a percent is rounding, and covered.
    """
    return {
        name: int(interval["upper"] < true[name] - 1e-9)
        - int(true[name] < interval["lower"] - 1e-9)
        for name, interval in tried(sums)
    }


def read(path: Path) -> dict[str, list[dict[str, int]]]:
    """The lines of a file by setting."""
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[str, list[dict[str, int]]] = {}
    for line in map(json.loads, lines):
        found.setdefault(line["setting"], []).append(line["sides"])
    return found


def table(found: dict[str, list[dict[str, int]]]) -> Iterator[dict[str, Any]]:
    """Per cent of corpora whose interval covers the truth, for each setting; groups are pooled."""
    for name, corpora in found.items():
        sides: dict[str, list[int]] = {}
        for figure, side in itertools.chain.from_iterable(each.items() for each in corpora):
            pooled = f"{figure.partition(' [')[0]} [groups]" if " [" in figure else figure
            sides.setdefault(pooled, []).append(side)
        covered = {
            figure: round(100 * each.count(0) / len(each), 1) for figure, each in sides.items()
        }
        yield {"setting": name, "corpora": len(corpora), "covered": covered}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--table", action="store_true", help="print what FILE holds, and end")
    given = parser.parse_args()
    if given.table:
        for line in table(read(given.file)):
            print(json.dumps(line))
        return
    until, done = time.monotonic() + given.seconds, read(given.file)
    truths = {name: truth(SETTINGS[name]) for name in given.only}
    with given.file.open("a") as lines:
        for number, name in itertools.product(range(given.corpora), given.only):
            if number < len(done.get(name, ())):
                continue
            if time.monotonic() > until:
                print(f"corpus {number + 1} of {given.corpora}: the next call goes on", flush=True)
                return
            found = sides(corpus(np.random.default_rng(number), SETTINGS[name]), truths[name])
            print(json.dumps({"setting": name, "sides": found}), file=lines, flush=True)


if __name__ == "__main__":
    main()
