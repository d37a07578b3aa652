"""Confidences of candidates by gradient-boosted trees, fitted on questions that are not measured.

References:
    Jiang et al., "How Can We Know When Language Models Know? On the Calibration of Language Models
        for Question Answering", TACL 2021 (feature-based decision trees).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.data.questions.question import Question
from calibtrain.data.questions.template import Template
from calibtrain.errors import UserError
from calibtrain.evaluation.candidates import Candidates
from calibtrain.generation.language_model import LanguageModel
from calibtrain.scoring.candidates import candidate_log_probabilities

FEATURES = (
    "log-probability",
    "log confidence",
    "bytes of the prompt",
    "bytes of the candidate",
    "bits per byte of the prompt",
)

_LEAST = -745.0
"""Log of the smallest positive float: trees take no infinite feature."""

Features = Sequence[Float[np.ndarray, "candidates features"]]


def require_scikit_learn() -> None:
    """Raises a UserError where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UserError(
            "--trees: scikit-learn is not installed; pip install 'calibtrain[questions]', or fit "
            "a temperature"
        ) from None


def candidate_features(
    model: LanguageModel,
    questions: Sequence[Question],
    texts: Sequence[Sequence[str]],
    candidates: Candidates,
    template: Template,
) -> Features:
    """Returns `FEATURES` of each candidate of each question.

    Lengths and the perplexity of the prompt are by the byte, so that they compare between
    vocabularies. The log-probability is a mean over paraphrases.

    Args:
        model: what was asked.
        questions: that were scored.
        texts: of each, its candidates.
        candidates: likewise, scored.
        template: by which the prompt is spelled.
    """
    prompts = [template.prompt(each.text) for each in questions]
    room = model.context
    seen = [prompt.encode()[-room:].decode(errors="ignore") for prompt in prompts]
    scored, _ = candidate_log_probabilities(
        model.network,
        model.params,
        model.tokenizer,
        [""] * len(seen),
        [[text] for text in seen],
        context=model.context,
    )
    logs = candidates.log_confidence()
    found = []
    for row, (own, scores) in enumerate(zip(texts, candidates.scores, strict=True)):
        size = len(prompts[row].encode())
        bits = -float(scored[row][0]) / math.log(2) / max(1, len(seen[row].encode()))
        sizes = [float(len(text.encode())) for text in own]
        found.append(
            np.column_stack(
                [
                    np.maximum(scores, _LEAST).mean(0),
                    np.maximum(logs[row, : len(own)], _LEAST),
                    np.full(len(own), float(size)),
                    sizes,
                    np.full(len(own), bits),
                ]
            )
        )
    return found


def tree_confidences(
    given: Candidates, features: Features, fitted: Sequence[int], measured: Sequence[int], seed: int
) -> Candidates:
    """Returns the measured questions with confidences of trees that were fitted on others.

    The trees (scikit-learn's gradient boosting, its defaults) give each candidate a probability of
    being right; those of a question are divided by their sum.

    Args:
        given: the candidates.
        features: of each.
        fitted: questions that the trees are fitted on.
        measured: the others.
        seed: of the trees.

    Raises:
        UserError: where no candidate, or every one, of the questions to fit on is right.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    x = np.concatenate([features[i] for i in fitted])
    y = np.concatenate([given.right[i] for i in fitted])
    if y.all() or not y.any():
        raise UserError(
            "--trees: the half that is fitted to needs right and wrong candidates; give more "
            "questions"
        )
    trees: Any = GradientBoostingClassifier(random_state=seed).fit(x, y)
    own = given.chosen(measured)
    scores = []
    for i in measured:
        p = trees.predict_proba(features[i])[:, 1]
        scores.append(np.log(np.maximum(p, 1e-12) / np.maximum(p, 1e-12).sum())[None])
    return Candidates(own.names, scores, own.right, own.groups)
