"""How often do intervals cover the truth? Corpora whose documents are easier or harder than others.

python -m benchmarks.coverage [--corpora 400] [--resamples 500]

One JSON line a setting: the share of corpora, in per cent, whose 95 % interval holds the truth.
Needs all of calibtrain, unlike the other benchmarks.
"""

import argparse
import json
from typing import Any

import numpy as np
from scipy.special import expit

from calibtrain.metrics import (
    bootstrap,
    bootstrap_difference,
    calibration_error_difference,
    calibration_error_interval,
    document_tables,
)
from calibtrain.metrics.calibration import table_error

SETTINGS = [
    (documents, tokens, sharpness, effect)
    for documents, tokens in ((50, 200), (300, 40))
    for sharpness, effect in ((1.0, 0.0), (1.15, 0.3), (1.6, 0.3))
]
"""Documents, mean tokens each, by how much the model is too sure, and what a document changes."""


def corpus(
    rng: Any, documents: int, tokens: int, sharpness: tuple[float, ...], effect: float
) -> Any:
    """A table a document of each of several models, which are sharp in their own way."""
    document = np.repeat(np.arange(documents), rng.poisson(tokens, documents) + 1)
    logit = rng.normal(1, 1.5, len(document)) + rng.normal(0, 0.5, documents)[document]
    truth = expit(logit + rng.normal(0, effect, documents)[document])
    correct = (rng.random(len(document)) < truth).astype(float)
    return [document_tables(expit(s * logit), correct, document, documents) for s in sharpness]


def signed_gap(tables: Any) -> Any:
    """The signed gap of many tables."""
    return (tables[..., 1] - tables[..., 2]).sum(-1) / tables[..., 0].sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--corpora", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    given = parser.parse_args()
    for documents, tokens, sharpness, effect in SETTINGS:
        both = (sharpness, sharpness + 0.2)
        rng = np.random.default_rng(12345)
        parts = [corpus(rng, 20_000, 5, both, effect) for _ in range(40)]
        ours, other = (np.sum([part[i].sum(0) for part in parts], axis=0) for i in (0, 1))
        calibrated = sharpness == 1  # then the truth is known exactly
        ece = 0.0 if calibrated else float(table_error(ours))
        gap = 0.0 if calibrated else float(signed_gap(ours))
        difference = ece - float(table_error(other))
        truth = {"signed_gap": gap, "difference": difference, "difference_basic": difference}
        covered: dict[str, int] = {}
        for seed in range(given.corpora):
            first, second = corpus(np.random.default_rng(seed), documents, tokens, both, effect)
            options: dict[str, Any] = {"resamples": given.resamples, "seed": seed}
            found = {
                "inverted_test": calibration_error_interval(first, **options),
                "basic": bootstrap(first, table_error, method="basic", **options),
                "percentile": bootstrap(first, table_error, method="percentile", **options),
                "bca": bootstrap(first, table_error, **options),
                "signed_gap": bootstrap(first, signed_gap, **options),
                "difference": calibration_error_difference(first, second, **options),
                "difference_basic": bootstrap_difference(
                    first, second, table_error, method="basic", **options
                ),
            }
            for name, interval in found.items():
                inside = interval.lower <= truth.get(name, ece) <= interval.upper
                covered[name] = covered.get(name, 0) + inside
        shares = {name: round(100 * n / given.corpora, 1) for name, n in covered.items()}
        setting = {"documents": documents, "tokens": tokens, "ece": round(ece, 4)}
        print(json.dumps({**setting, **shares}), flush=True)


if __name__ == "__main__":
    main()
