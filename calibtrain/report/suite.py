"""The calibration suite: every metric of an evaluation, named and explained in one line."""

from dataclasses import dataclass

from calibtrain.report.display import number


@dataclass(frozen=True)
class Metric:
    """One metric: its result key, its name, what it says, its decimals."""

    key: str
    name: str
    meaning: str
    decimals: int = 4


SUITE = (
    Metric(
        "ece",
        "ECE",
        "Expected calibration error: mean distance of accuracy from confidence over bins of equal "
        "width, weighed by what they hold.",
    ),
    Metric("ece_mass", "ECE (equal mass)", "The same over bins that all hold equally much."),
    Metric(
        "debiased_calibration_error",
        "Debiased calibration error",
        "Root of the mean squared distance, less what chance alone adds to it.",
    ),
    Metric(
        "sweep_calibration_error",
        "Sweep calibration error",
        "ECE over as many bins of equal mass as keep accuracy rising with confidence.",
    ),
    Metric(
        "smooth_calibration_error",
        "SmoothECE",
        "Without bins: a kernel smooths, and the error itself sets its width.",
    ),
    Metric(
        "maximum_calibration_error",
        "Maximum calibration error",
        "The distance in the worst bin of equal width, however little the bin holds.",
    ),
    Metric(
        "average_calibration_error",
        "Average calibration error",
        "The plain mean of the distances in bins of equal width: every bin counts alike.",
    ),
    Metric(
        "kolmogorov_smirnov_error",
        "Kolmogorov–Smirnov error",
        "Without bins: the largest running sum of confidence minus accuracy, as confidence rises.",
    ),
    Metric(
        "brier",
        "Brier score",
        "Mean squared distance of confidence from right (1) or wrong (0); the parts that follow "
        "make it up: reliability − resolution + uncertainty + within bins.",
    ),
    Metric("brier_reliability", "· reliability", "Squared miscalibration of the bins."),
    Metric(
        "brier_resolution",
        "· resolution",
        "How far the bins’ accuracies differ from the whole’s: more is better.",
    ),
    Metric("brier_uncertainty", "· uncertainty", "Accuracy × (1 − accuracy): of the task alone."),
    Metric("brier_within_bin", "· within bins", "What bins leave out: spread inside of them.", 5),
    Metric(
        "multiclass_brier",
        "Multiclass Brier score",
        "The same over the whole predictive distribution, from 0 to 2.",
    ),
    Metric("nll", "NLL", "Mean negative log likelihood, in nats an event.", 3),
    Metric(
        "entropy_calibration_error",
        "Entropy calibration error",
        "Distance of the entropy rate from the NLL, in nats an event: equal if calibrated.",
    ),
    Metric(
        "area_under_roc",
        "AUROC",
        "Chance that a right prediction is more confident than a wrong one: 0.5 is guessing, more "
        "is better.",
    ),
    Metric(
        "area_under_risk_coverage",
        "AURC",
        "Area under the risk–coverage curve: mean error rate when the least sure are left out.",
    ),
)
"""In the order of their tables."""


def shown_metric(metric: Metric, value: float) -> str:
    """A metric rounded for reading."""
    return number(value, metric.decimals)


def metric_name(key: str) -> str:
    """The name of a result key, for a list of figures."""
    for metric in SUITE:
        if metric.key == key:
            return metric.name.replace("· ", "Brier ")
    return key.replace("_", " ")
