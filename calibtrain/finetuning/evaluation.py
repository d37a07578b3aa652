"""Calibration along a fine-tuning: on the corpus, held-out answers, preferences, candidates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.config import FinetuningConfig
from calibtrain.evaluation.candidates import BINS, Candidates
from calibtrain.evaluation.final import ANSWERS
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.evaluation.while_training import EvaluationWhileTraining, giving_up
from calibtrain.finetuning.examples import CANDIDATES
from calibtrain.finetuning.plan import FinetuningPlan
from calibtrain.metrics import expected_calibration_error
from calibtrain.models import Params
from calibtrain.scoring.answers import AnswerScorer
from calibtrain.training.begin import BegunRun


class FinetuningEvaluation:
    """The corpus at a cadence and at the end; with it, the held-out examples."""

    def __init__(self, run: BegunRun, cache: Path, evaluator: TokenEvaluator, scorer: AnswerScorer):
        """Args:
        run: is held by this process.
        cache: where prepared data is kept.
        evaluator: of its network, which runs that differ in their seed alone share.
        scorer: of its network's answers, which they share as well.
        """
        plan = run.plan
        assert isinstance(plan, FinetuningPlan)
        assert plan.held_out is not None
        self.plan, self.folder, self.held_out = plan, run.folder, plan.held_out
        self._evaluator, self._scorer = evaluator, scorer
        self._corpus = EvaluationWhileTraining(run, cache, evaluator)

    def during(self, params: Params, step: int, stop: Callable[[], bool]) -> Mapping[str, float]:
        """Figures of the corpus by their names, those of the answers as answers/*."""
        own = self._corpus.during(params, step, stop)
        answers = self._answers(params, step, stop, thorough=False)
        return {
            **own,
            **{f"{ANSWERS}/{name}": value for name, value in answers.figures.items()},
            **self._preferences(params),
            **self._candidates(params),
        }

    def final(
        self, params: Params, step: int, stop: Callable[[], bool]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Returns the results of each final split and of the held-out answers, by name."""
        results = dict(self._corpus.final(params, step, stop))
        answers = self._answers(params, step, stop, thorough=True)
        if self.folder.writes:
            own = self.plan.corpus.provenance.content_hash
            answers.write(self.folder.evaluations, own, self.plan.config.evaluation.final_bytes)
        results[f"{ANSWERS}-validation"] = {
            **answers.to_dict(),
            **self._preferences(params),
            **self._candidates(params),
        }
        return results

    def _answers(
        self, params: Params, step: int, stop: Callable[[], bool], *, thorough: bool
    ) -> Evaluation:
        about = {
            **self._corpus.about("validation", step),
            "corpus": ANSWERS,
            "corpus_hash": self._settings.examples,
        }
        return self._evaluator.evaluate(
            params, self.held_out.windows, about, thorough=thorough, check=giving_up(stop)
        )

    @property
    def _settings(self) -> FinetuningConfig:
        settings = self.plan.config.finetune
        assert settings is not None
        return settings

    def _preferences(self, params: Params) -> dict[str, float]:
        """How held-out pairs are judged: by the difference of what the answers gained."""
        reference = self.held_out.reference
        if reference is None:
            return {}
        gained = self._scorer.log_probabilities(params, self.held_out.answers) - reference
        margin = self._settings.beta * (gained[0::2] - gained[1::2]).astype(np.float64)
        return preference_figures(margin)

    def _candidates(self, params: Params) -> dict[str, float]:
        """How sure the right candidates of held-out questions are, among all."""
        if self._settings.objective not in CANDIDATES:
            return {}
        scores = self._scorer.log_probabilities(params, self.held_out.answers)
        return candidate_figures(scores.astype(np.float64).reshape(-1, self._settings.choices))


def candidate_figures(scores: Float[np.ndarray, "questions choices"]) -> dict[str, float]:
    """Returns what is logged of candidates, by the definitions of `evaluation.candidates`.

    Args:
        scores: log-probability of each candidate in nats, the right one first.
    """
    right = np.arange(scores.shape[1]) == 0
    names = list(map(str, range(len(scores))))
    given = Candidates(names, [row[None] for row in scores], [right] * len(scores))
    confidence, correct, _ = given.top()
    every = given.every()
    return {
        "candidates/nll": float(-given.log_confidence()[:, 0].mean()),
        "candidates/accuracy": float(correct.mean()),
        "candidates/mean_confidence": float(confidence.mean()),
        "candidates/top_ece": float(expected_calibration_error(confidence, correct, bins=BINS)),
        "candidates/every_ece": float(expected_calibration_error(*every[:2], bins=BINS)),
    }


def preference_figures(margin: Float[np.ndarray, " pairs"]) -> dict[str, float]:
    """How pairs are judged by what the chosen answer gained more than the rejected one, in nats.

    Of the two answers the likelier one is the guess; its confidence is the sigmoid of the distance.
    Where both gained the same, as before the first step, the guess is a coin's: right by a half.
    """
    right = np.where(margin == 0, 0.5, margin > 0)
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    return {
        "preference/loss": float(np.logaddexp(0, -margin).mean()),
        "preference/accuracy": float(right.mean()),
        "preference/mean_margin": float(margin.mean()),
        "preference/ece": float(expected_calibration_error(confidence, right, bins=10)),
    }
