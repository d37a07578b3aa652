"""Predictions on which libraries are compared: random ones, and ones made to be awkward."""

from collections.abc import Iterator

import numpy as np

KINDS = ("beta", "uniform", "sure", "few values", "one value", "all right", "all wrong", "tiny")


def predictions(count: int, size: int, *, ties: bool = True) -> Iterator[tuple[str, ...]]:
    """(kind, confidence, correct), float64; with `ties`, also 0, 1 and many a repeated value."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        confidence = rng.random(size)
        if kind == "beta":
            confidence = rng.beta(0.3, 0.3, size)
        elif kind == "sure":
            confidence = 1 - 10.0 ** rng.uniform(-12, -1, size)
        elif kind == "tiny":
            confidence = 10.0 ** rng.uniform(-12, -1, size)
        if ties:
            if kind == "few values":
                confidence = np.round(confidence, 1)
            elif kind == "one value":
                confidence = np.full(size, confidence[0])
            confidence[rng.random(size) < 0.05] = 1.0
            confidence[rng.random(size) < 0.05] = 0.0
        correct = (rng.random(size) < confidence ** rng.uniform(0.5, 2)).astype(float)
        if kind == "all right":
            correct[:] = 1
        if kind == "all wrong":
            correct[:] = 0
        yield kind, confidence, correct
