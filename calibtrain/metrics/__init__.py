"""Calibration and entropy: plain functions of arrays, and mergeable states for streams."""

from calibtrain.metrics.calibration import (
    bin_edges,
    expected_calibration_error,
    reliability_table,
    signed_gap,
)
from calibtrain.metrics.tokens import TokenMetrics, token_metrics

__all__ = [
    "TokenMetrics",
    "bin_edges",
    "expected_calibration_error",
    "reliability_table",
    "signed_gap",
    "token_metrics",
]
