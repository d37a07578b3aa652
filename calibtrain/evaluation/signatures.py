"""The signature of each figure of an evaluation: how it was made (see `metrics.signature`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calibtrain.metrics.signature import Signature

NO_FIGURES = ("tokens", "bytes", "sweep_bins")
"""Counts have no signature."""

MASS = "frequency_mass"
"""A table whose figures have a signature of their own: every probability counts in them."""
BRIER_PARTS = ("reliability", "resolution", "uncertainty", "within_bin")


def signatures(figures: Mapping[str, Any], about: Signature) -> dict[str, str]:
    """The signature of each figure, by its name.

    Args:
        figures: the results; only numbers have a signature, and mass calibration.
        about: signature of a figure of equal-width bins, for event, bins, temperature and hashes.
    """
    plain = {"scheme": "none", "bins": None}
    made: dict[str, dict[str, Any]] = {
        "ece": {},
        "maximum_calibration_error": {},
        "average_calibration_error": {},
        "ece_mass": {"scheme": "mass"},
        "debiased_calibration_error": {"scheme": "mass"},
        "sweep_calibration_error": {"scheme": "sweep", "bins": figures.get("sweep_bins")},
        "smooth_calibration_error": {"scheme": "kernel", "bins": None},
        **{f"brier_{part}": {} for part in BRIER_PARTS},
        **{name: {**plain, "confidence": "all"} for name in ("multiclass_brier", MASS)},
    }
    named = [
        name
        for name, value in figures.items()
        if (isinstance(value, int | float) and name not in NO_FIGURES) or name == MASS
    ]
    return {
        name: str(dataclasses.replace(about, **{"edges": "", **made.get(name, plain)}))
        for name in named
    }


def temperature_label(temperature: float, head: str | None) -> float | str:
    """The temperature as a signature says it: a number, the name of a head, or both.

    Args:
        temperature: a number that divides all logits.
        head: name of the head that divides them too; None without a head.
    """
    if head is None:
        return temperature
    return head if temperature == 1.0 else f"{head}+{temperature:.4f}"
