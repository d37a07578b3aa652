"""How each figure of an evaluation was made: a short string beside it (`metrics.signature`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calibtrain.metrics.signature import Signature

NO_FIGURES = ("tokens", "bytes", "sweep_bins")
"""Counts, which are made in no particular way."""

BRIER_PARTS = ("reliability", "resolution", "uncertainty", "within_bin")


def signatures(figures: Mapping[str, Any], about: Signature) -> dict[str, str]:
    """How each figure was made, by its name.

    Args:
        figures: the results; what is no figure has no signature.
        about: event, bins, temperature, hashes: of a figure of equal-width bins.
    """
    made: dict[str, dict[str, Any]] = {
        "ece": {},
        "maximum_calibration_error": {},
        "average_calibration_error": {},
        "ece_mass": {"scheme": "mass"},
        "debiased_calibration_error": {"scheme": "mass"},
        "sweep_calibration_error": {"scheme": "sweep", "bins": figures.get("sweep_bins")},
        "smooth_calibration_error": {"scheme": "kernel", "bins": None},
        **{f"brier_{part}": {} for part in BRIER_PARTS},
        "multiclass_brier": {"scheme": "none", "bins": None, "confidence": "all"},
    }
    plain = {"scheme": "none", "bins": None}
    named = [
        name
        for name, value in figures.items()
        if isinstance(value, int | float) and name not in NO_FIGURES
    ]
    return {
        name: str(dataclasses.replace(about, **{"edges": "", **made.get(name, plain)}))
        for name in named
    }


def temperature_label(temperature: float, head: str | None) -> float | str:
    """What a signature says of the temperature: a number, the name of a head, or of both.

    Args:
        temperature: a number that divides all logits.
        head: what divides them besides.
    """
    if head is None:
        return temperature
    return head if temperature == 1.0 else f"{head}+{temperature:.4f}"
