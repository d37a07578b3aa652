"""Effects of a doubling of V with their intervals: Student's t over corpora or seeds, the noise of
test documents, a mixed model, and what a study of this size could have found.

The slope of a figure on log2 V is linear in the figures of a ladder of vocabularies. An estimated
ECE is raised by noise, so that the noise of its slope is drawn from gaps of bins (see
`calibtrain.metrics.resampling`) and not from resampled documents.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import optimize, stats

from calibtrain.metrics.ece_intervals import gaps_of_bins
from calibtrain.metrics.resampling import NoisyGaps, absolute_sum, first_scale
from calibtrain.metrics.student import student_quantile

LEVEL = 0.95
DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Effect:
    """A mean over independent values, with Student's interval and test against 0.

    Attributes:
        values: the independent estimates, by name (of their corpus or seed).
        lower, upper: ends of the 95 % interval; NaN of a single value.
        standard_error: of the mean.
        p: two-sided.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    p: float
    values: Mapping[str, float]

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "Effect":
        """Returns the mean of values.

        Raises:
            ValueError: for no values, or one that is NaN.

        Example:
            >>> found = Effect.of({"a": 1.0, "b": 2.0, "c": 3.0})
            >>> print(found.estimate, round(found.upper, 4), round(found.p, 4))
            2.0 4.4841 0.0742
        """
        numbers = np.array([*values.values()], float)
        if not len(numbers) or np.isnan(numbers).any():
            raise ValueError(f"values: {dict(values)} must be numbers, and at least one")
        mean, count = float(numbers.mean()), len(numbers)
        if count == 1:
            return cls(mean, math.nan, math.nan, math.nan, math.nan, values)
        error = float(numbers.std(ddof=1)) / math.sqrt(count)
        half = student_quantile(count - 1, LEVEL) * error
        if error:
            p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
        else:  # all values are alike
            p = 1.0 if mean == 0 else 0.0
        return cls(mean, mean - half, mean + half, error, p, values)

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return len(self.values) - 1

    @property
    def smallest(self) -> float:
        """The smallest effect that would have been found with a power of 80 %."""
        return smallest_effect(self.standard_error, self.freedom)

    def within(self, margin: float) -> bool:
        """Whether the interval lies within a margin on both sides of 0."""
        return bool(-margin < self.lower and self.upper < margin)

    def scaled(self, factor: float) -> "Effect":
        """Returns the effect in another unit, such as that of the whole ladder."""
        return Effect.of({name: factor * value for name, value in self.values.items()})


def smallest_effect(standard_error: float, freedom: int, power: float = 0.8) -> float:
    """Returns the effect that a two-sided test at 5 % finds with a given power.

    Args:
        standard_error: of the estimate.
        freedom: degrees of freedom of the test; from 1.
        power: share of such studies that find the effect.

    Example:
        >>> print(round(smallest_effect(1.0, 10_000), 2))  # normal: 1.96 + 0.84
        2.8
    """
    if freedom < 1 or not math.isfinite(standard_error):
        return math.nan
    limit = student_quantile(freedom, LEVEL)

    def lacks(effect: float) -> float:  # the other tail adds less than 1 % where power is 80 %
        return float(stats.nct.sf(limit, freedom, effect)) - power

    high = limit
    while lacks(high) < 0:
        high *= 1.25
    return standard_error * float(optimize.brentq(lacks, 0.0, high))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Returns p-values adjusted for the number of tests (Holm, 1979); NaN is no test.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = sorted((value, name) for name, value in p.items() if not math.isnan(value))
    adjusted, largest = dict.fromkeys(p, math.nan), 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * value))
        adjusted[name] = largest
    return adjusted


def contrast(vocabularies: Sequence[int]) -> Float[np.ndarray, " vocabularies"]:
    """Returns what a least-squares slope on log2 V multiplies the figures of a ladder by.

    Example:
        >>> contrast([256, 512, 1024])
        array([-0.5,  0. ,  0.5])
    """
    x = np.log2(np.array(vocabularies, float))
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def slopes(arms: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Returns the slope of a figure on log2 V: a row per corpus and column per seed.

    Args:
        arms: those of one cell: corpus, seed, vocab_size and the figure.
        figure: name of a column. A seed in which it is missing for an arm has no slope.
    """
    if figure not in arms:
        return pd.DataFrame()
    found: dict[str, dict[int, float]] = {}
    for corpus, part in arms.groupby("corpus"):
        table = part.pivot(index="seed", columns="vocab_size", values=figure).dropna()
        if len(table) and table.shape[1] > 1:
            slope = table @ contrast(table.columns)
            found[corpus] = dict(slope.where(slope.abs() > 1e-12, 0.0))  # less is rounding
    return pd.DataFrame.from_dict(found, orient="index").sort_index()


def pooled(arms: pd.DataFrame, figure: str) -> Effect | None:
    """Returns the mean of the corpora's slopes in a cell; None where no corpus has one."""
    table = slopes(arms, figure)
    return Effect.of(table.mean(axis=1).to_dict()) if len(table) else None


# --- the noise of test documents ---------------------------------------------------------------


def noisy_gaps(tables: Float[np.ndarray, "documents bins 3"]) -> NoisyGaps:
    """Returns the gaps of an arm with the noise of its documents, in draws all arms share."""
    return NoisyGaps.of(tables, gaps_of_bins, absolute_sum, draws=DRAWS)


def corrected_error(gaps: NoisyGaps) -> float:
    """Returns the ECE of which the estimate is the median: that which noise raised to it.

    It is 0 where a calibrated model would show as much in half of all cases.
    """
    return first_scale(lambda scale: gaps.share_above(scale) >= 0.5) * gaps.estimate


def noise_of_slope(
    arms: Mapping[int, Sequence[NoisyGaps]],
) -> list[Float[np.ndarray, " draws"]]:
    """Returns by how much the slope of the ECE lies above the truth because of the documents.

    Each item is the draws under one assumption about how much of each estimate is noise: the
    median of what is consistent with it, and the ends (10 %) tilted along the ladder, so that the
    slope is changed the most.

    Args:
        arms: by vocabulary, the arms of its seeds, all of the same documents in the same order.
    """
    ladder = sorted(arms)
    misses = {}
    for vocab, tail in itertools.product(ladder, (0.1, 0.5, 0.9)):
        each = []
        for model in arms[vocab]:
            scale = first_scale(lambda s, m=model, t=tail: m.share_above(s) >= t)  # type: ignore[misc]
            each.append(model.errors(scale) - scale * model.estimate)
        misses[vocab, tail] = np.mean(each, axis=0)
    weights = contrast(ladder)
    return [
        sum(
            weight * misses[vocab, up if weight > 0 else down]
            for vocab, weight in zip(ladder, weights, strict=True)
        )
        for up, down in ((0.5, 0.5), (0.1, 0.9), (0.9, 0.1))
    ]


@dataclasses.dataclass(frozen=True)
class Interval:
    """The slope in one corpus with an interval of one source of noise, or of several."""

    estimate: float
    lower: float
    upper: float
    standard_error: float


def slope_intervals(
    arms: Mapping[int, Sequence[NoisyGaps]],
) -> tuple[Interval, Interval, Interval, Float[np.ndarray, " draws"]]:
    """Returns the slope of the ECE in a corpus with the noise of documents, of seeds, and of both.

    Args:
        arms: by vocabulary, the arms of its seeds in order.

    Returns:
        The three intervals, and the draws of the noise of documents.
    """
    ladder = sorted(arms)
    errors = np.array([[model.estimate for model in arms[vocab]] for vocab in ladder])
    of_seeds = Effect.of({str(seed): s for seed, s in enumerate(contrast(ladder) @ errors)})
    estimate, error = of_seeds.estimate, of_seeds.standard_error
    documents = noise_of_slope(arms)
    both = [noise + seed_noise(error, of_seeds.freedom) for noise in documents]
    own = float(documents[0].std(ddof=1))
    return (
        _around(estimate, documents, own),
        Interval(estimate, of_seeds.lower, of_seeds.upper, error),
        _around(estimate, both, math.hypot(own, error)),
        documents[0],
    )


def mean_interval(
    documents: Sequence[Interval],
    seeds: Sequence[Interval],
    counts: Sequence[int],
    noises: Sequence[Float[np.ndarray, " draws"]],
) -> Interval:
    """Returns the mean of corpora's slopes with the noise of documents and seeds: these very texts.

    Variances over seeds are pooled (Welch and Satterthwaite), since a few seeds alone say little of
    theirs.

    Args:
        documents: intervals of the corpora's slopes, by the noise of documents.
        seeds: likewise, by that of seeds.
        counts: numbers of seeds.
        noises: draws of the noise of documents, by corpus.
    """
    size = len(documents)
    variances = np.array([each.standard_error**2 for each in seeds]) / size**2
    error = math.sqrt(variances.sum())
    spread = (variances**2 / (np.array(counts) - 1.0)).sum() if min(counts) > 1 else 0.0
    freedom = int(variances.sum() ** 2 / spread) if spread > 0 else 0
    # texts of different corpora have nothing in common, so their draws are paired at random
    rng = np.random.default_rng(0)
    mean = np.mean([rng.permutation(noise) for noise in noises], axis=0)
    total = math.hypot(float(mean.std(ddof=1)), error)
    estimate = float(np.mean([each.estimate for each in documents]))
    return _around(estimate, [mean + seed_noise(error, freedom)], total)


def seed_noise(error: float, freedom: int) -> Float[np.ndarray, " draws"]:
    """Returns draws of the error of a mean over seeds; 0 where there is one seed."""
    if freedom < 1:
        return np.zeros(DRAWS)
    return error * np.random.default_rng(freedom).standard_t(freedom, DRAWS)


def _around(
    estimate: float, noises: Sequence[Float[np.ndarray, " draws"]], error: float
) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(noises, [tail, 1 - tail], axis=1)
    return Interval(estimate, float(estimate - high.max()), float(estimate - low.min()), error)


# --- a hierarchical regression -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MixedFit:
    """The slope of a mixed model, and whether its variances could be estimated.

    Attributes:
        note: empty, or why the interval is not to be relied on.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    note: str


def mixed(arms: pd.DataFrame, figure: str, covariate: str | None = None) -> MixedFit | None:
    """Fits figure ~ log2 V [+ covariate], with random parts, by REML; None if it cannot be fitted.

    Random are the intercept and the slope of each corpus, and the intercept of each of its cells
    (capacity and passes), where there are several.
    """
    import statsmodels.formula.api as smf

    columns = ["corpus", "capacity", "passes", "log2_vocab", figure]
    data = arms[[*columns, *filter(None, [covariate])]].dropna().copy()
    if data.corpus.nunique() < 2 or data.log2_vocab.nunique() < 2:
        return None
    scale = float(data[figure].std()) or 1.0
    data["y"] = data[figure] / scale
    data["x"] = data.log2_vocab - data.log2_vocab.mean()
    data["cell"] = data.capacity.astype(str) + "-" + data.passes.astype(str)
    formula = "y ~ x"
    if covariate:
        data["z"] = data[covariate] - data.groupby("corpus")[covariate].transform("mean")
        formula += " + z"
    cells = {"cell": "0 + C(cell)"} if data.cell.nunique() > 1 else None
    model = smf.mixedlm(formula, data, groups="corpus", re_formula="~x", vc_formula=cells)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = model.fit(reml=True, method=["lbfgs", "bfgs", "powell"])
        except np.linalg.LinAlgError:
            return None
    estimate, error = float(fit.params["x"]) * scale, float(fit.bse["x"]) * scale
    smallest = float(np.linalg.eigvalsh(np.asarray(fit.cov_re)).min())
    notes = []
    if not fit.converged:
        notes.append("the fit did not converge")
    if smallest < 1e-4 or any("singular" in str(w.message).lower() for w in caught):
        notes.append("a variance between corpora lies at the boundary (singular)")
    if data.corpus.nunique() < 10:
        notes.append("normal quantiles with few corpora make the interval too narrow")
    half = stats.norm.ppf((1 + LEVEL) / 2) * error
    return MixedFit(estimate, estimate - half, estimate + half, error, "; ".join(notes))
