"""Calibration and entropy: plain functions of arrays, and mergeable states for streams."""

from calibtrain.metrics.calibration import (
    average_calibration_error,
    bin_edges,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_table,
    signed_gap,
)
from calibtrain.metrics.debiased import debiased_calibration_error, sweep_calibration_error
from calibtrain.metrics.ece_intervals import (
    calibration_error_difference,
    calibration_error_interval,
)
from calibtrain.metrics.from_histogram import histogram_bounds, histogram_metrics
from calibtrain.metrics.histogram import ConfidenceHistogram
from calibtrain.metrics.intervals import (
    Interval,
    bootstrap,
    bootstrap_difference,
    document_sums,
    document_tables,
    student_half_width,
)
from calibtrain.metrics.ranking import (
    area_under_risk_coverage,
    area_under_roc,
    kolmogorov_smirnov_error,
    risk_coverage,
)
from calibtrain.metrics.scores import (
    BrierParts,
    TokenScores,
    brier_parts,
    brier_score,
    entropy_calibration_error,
    log_loss,
    multiclass_brier_score,
    nll,
    token_scores,
)
from calibtrain.metrics.signature import Signature, differences, parse_signature
from calibtrain.metrics.smooth import smooth_calibration_error, smooth_reliability
from calibtrain.metrics.tokens import TokenMetrics, token_metrics
from calibtrain.metrics.vocabulary import (
    VocabularyTable,
    classwise_calibration_error,
    full_calibration_error,
    top_k_calibration_error,
    top_k_confidence,
    top_k_correct,
)

__all__ = [
    "BrierParts",
    "ConfidenceHistogram",
    "Interval",
    "Signature",
    "TokenMetrics",
    "TokenScores",
    "VocabularyTable",
    "area_under_risk_coverage",
    "area_under_roc",
    "average_calibration_error",
    "bin_edges",
    "bootstrap",
    "bootstrap_difference",
    "brier_parts",
    "brier_score",
    "calibration_error_difference",
    "calibration_error_interval",
    "classwise_calibration_error",
    "debiased_calibration_error",
    "differences",
    "document_sums",
    "document_tables",
    "entropy_calibration_error",
    "expected_calibration_error",
    "full_calibration_error",
    "histogram_bounds",
    "histogram_metrics",
    "kolmogorov_smirnov_error",
    "log_loss",
    "maximum_calibration_error",
    "multiclass_brier_score",
    "nll",
    "parse_signature",
    "reliability_table",
    "risk_coverage",
    "signed_gap",
    "smooth_calibration_error",
    "smooth_reliability",
    "student_half_width",
    "sweep_calibration_error",
    "token_metrics",
    "token_scores",
    "top_k_calibration_error",
    "top_k_confidence",
    "top_k_correct",
]
