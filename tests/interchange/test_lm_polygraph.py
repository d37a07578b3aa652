"""Measures of consistency are those of lm-polygraph on the same samples.

lm-polygraph brings many packages along, so that it lives in an environment of its own (`pip install
lm-polygraph`); LM_POLYGRAPH_PYTHON names its interpreter.
"""

import json
import os
import subprocess

import numpy as np
import pytest

from calibtrain.analysis.consistency import (
    cocoa,
    degree_uncertainty,
    eccentricity,
    eigenvalue_uncertainty,
    similarity_matrix,
)
from calibtrain.generation.similarity import jaccard
from calibtrain.metrics.ranking import prediction_rejection_ratio

pytestmark = [pytest.mark.peers]

RNG = np.random.default_rng(0)
WORDS = ["light", "and", "God", "said", "let", "there", "be", "was", "the", "day"]
PROMPTS = [
    *[["Rome", "rome", "Rome it is", "Oslo", "Oslo", "in Oslo"], ["a"] * 5, ["x", "y", "z"]],
    *[[" ".join(RNG.choice(WORDS, RNG.integers(1, 7))) for _ in range(40)] for _ in range(4)],
    ["海 は 青い", "海 は 広い", "山"],
]
"""Samples of several prompts. None is empty: two empty texts have nothing in common there, and are
alike here."""
LOGS = [-1.5, -0.25, -3.0, -0.5]
LIKENESS = [[1.0, 0.5, 0.25], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.7, 0.3]]
UNCERTAINTY = RNG.permutation(50).tolist()
QUALITY = (RNG.random(50) < np.linspace(0.1, 0.9, 50)).astype(float).tolist()
THEIRS = """
import json, sys
import numpy as np
from lm_polygraph.estimators import CocoaMSP, DegMat, Eccentricity, EigValLaplacian
from lm_polygraph.ue_metrics import PredictionRejectionArea
from lm_polygraph.ue_metrics.ue_metric import get_random_scores, normalize_metric
given = json.load(sys.stdin)
stats = {"sample_texts": given["prompts"]}
found = {
    str(name): [float(each) for each in name(stats)]
    for name in (kind("Jaccard_score") for kind in (DegMat, Eccentricity, EigValLaplacian))
}
found["cocoa"] = CocoaMSP()(
    {
        "greedy_log_likelihoods": [[each / 2, each / 2] for each in given["logs"]],
        "greedy_sentence_similarity": np.array(given["likeness"]),
    }
).tolist()
area = PredictionRejectionArea()
uncertainty, quality = given["uncertainty"], given["quality"]
best = area([-each for each in quality], quality)
chance = get_random_scores(area, quality)
found["prr"] = float(normalize_metric(area(uncertainty, quality), best, chance))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def theirs() -> dict[str, list[float]]:
    if "LM_POLYGRAPH_PYTHON" not in os.environ:
        pytest.skip("LM_POLYGRAPH_PYTHON does not name a Python with lm-polygraph")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    given = {
        "prompts": PROMPTS,
        "logs": LOGS,
        "likeness": LIKENESS,
        "uncertainty": UNCERTAINTY,
        "quality": QUALITY,
    }
    done = subprocess.run(
        [os.environ["LM_POLYGRAPH_PYTHON"], "-c", THEIRS],
        input=json.dumps(given),
        env={**outside, "USE_JAX": "0", "USE_FLAX": "0", "USE_TF": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("DegMat_Jaccard_score", degree_uncertainty),
        ("Eccentricity_Jaccard_score", eccentricity),
        ("EigValLaplacian_Jaccard_score", eigenvalue_uncertainty),
    ],
)
def test_measures_of_similar_texts_are_theirs(theirs, name, measure):
    ours = [measure(similarity_matrix(texts, jaccard)) for texts in PROMPTS]
    np.testing.assert_allclose(ours, theirs[name], rtol=1e-9, atol=1e-9)


def test_confidence_times_consistency_is_theirs(theirs):
    ours = [cocoa(-log, np.array(own)) for log, own in zip(LOGS, LIKENESS, strict=True)]
    np.testing.assert_allclose(ours, theirs["cocoa"], rtol=1e-12)


def test_the_prediction_rejection_ratio_is_theirs_but_for_their_draws_of_chance(theirs):
    ours = prediction_rejection_ratio(-np.array(UNCERTAINTY), np.array(QUALITY))
    assert ours == pytest.approx(theirs["prr"], abs=0.02)
