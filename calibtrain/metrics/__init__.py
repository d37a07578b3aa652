"""Metrics of calibration and entropy: functions of arrays, and states of streams to be merged.

Importing the package is light: a function's file is imported when the function is first used, so
that `metrics.quantities` and `metrics.student` load without JAX.
"""

import importlib
from typing import Any

_NAMES = {
    "calibration": (
        "average_calibration_error",
        "bin_edges",
        "expected_calibration_error",
        "maximum_calibration_error",
        "reliability_table",
        "signed_gap",
    ),
    "debiased": (
        "debiased_calibration_error",
        "sweep_calibration_error",
    ),
    "ece_intervals": (
        "calibration_error_difference",
        "calibration_error_interval",
    ),
    "from_histogram": (
        "histogram_bounds",
        "histogram_metrics",
    ),
    "histogram": ("ConfidenceHistogram",),
    "intervals": (
        "Interval",
        "bootstrap",
        "bootstrap_difference",
        "document_sums",
        "document_tables",
        "student_half_width",
    ),
    "jackknife": (
        "effective_documents",
        "student_difference",
        "student_interval",
    ),
    "mass": (
        "MassCalibration",
        "group_mass",
        "mass_calibration",
    ),
    "ranking": (
        "area_under_risk_coverage",
        "area_under_roc",
        "kolmogorov_smirnov_error",
        "risk_coverage",
    ),
    "scores": (
        "BrierParts",
        "TokenScores",
        "brier_parts",
        "brier_score",
        "entropy_calibration_error",
        "log_loss",
        "multiclass_brier_score",
        "nll",
        "token_scores",
    ),
    "signature": (
        "Signature",
        "differences",
        "parse_signature",
    ),
    "smooth": (
        "smooth_calibration_error",
        "smooth_reliability",
    ),
    "vocabulary": (
        "VocabularyTable",
        "classwise_calibration_error",
        "full_calibration_error",
        "top_k_calibration_error",
        "top_k_confidence",
        "top_k_correct",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"calibtrain.metrics.{_HOME[name]}"), name)
    raise AttributeError(f"module 'calibtrain.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
