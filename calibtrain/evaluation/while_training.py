"""Evaluation as a part of training: what `calibtrain train` runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibtrain.config import Config
from calibtrain.data.disk import cache_directory
from calibtrain.data.store import TokenStore, frequency_deciles, ignore, open_store
from calibtrain.evaluation.result import Evaluation, evaluation_name, read_evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.models import Params
from calibtrain.parallel import hosts
from calibtrain.parallel.mesh import make_layout
from calibtrain.training.loop import Observer, Outcome, Stopped, train
from calibtrain.training.plan import Plan
from calibtrain.training.run import RunFolder


def train_run(
    config: Config,
    path: Path,
    *,
    cache: Path | None = None,
    observer: Observer = lambda event: None,
) -> Outcome:
    """Train a run with its evaluations, or go on with it if it is there (see `training.loop`)."""
    cache = cache or cache_directory()
    observer = observer if hosts.is_primary() else ignore
    return train(
        config,
        path,
        cache=cache,
        evaluator=lambda plan, run: EvaluationWhileTraining(plan, run, cache, observer),
        observer=observer,
    )


class EvaluationWhileTraining:
    """Validation text at a cadence, whole splits at the end."""

    def __init__(self, plan: Plan, run: RunFolder, cache: Path, observer: Observer = ignore):
        settings = plan.config.evaluation
        self.plan = plan
        self.run = run
        self.settings = settings
        self.stores: dict[str, TokenStore] = {
            split: open_store(plan.corpus, split, plan.tokenizer, cache, observer)
            for split in {"validation", *settings.final_splits}
        }
        self.evaluator = TokenEvaluator(
            plan.network,
            frequency_deciles(plan.store.counts),
            rows=settings.rows,
            context=plan.context,
            bins=settings.bins,
            layout=make_layout(plan.config.mesh, plan.config.batch.rows),
        )

    def during(self, params: Params, step: int, stop: Callable[[], bool]) -> Mapping[str, float]:
        """Score about `evaluation.bytes` of the validation split."""
        evaluation = self._evaluate(params, "validation", step, self.settings.bytes, stop)
        if step < self.plan.budget.steps:  # at the end, the final evaluation is enough
            self._write(evaluation)
        return evaluation.figures

    def final(
        self, params: Params, step: int, stop: Callable[[], bool]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Score the splits of `evaluation.final_splits`, except those that are done."""
        results: dict[str, Mapping[str, Any]] = {}
        for split in self.settings.final_splits:
            found = self._done(split, step)
            if not hosts.agreed(found is not None):
                evaluation = self._evaluate(params, split, step, self.settings.final_bytes, stop)
                self._write(evaluation)
                found = evaluation.to_dict()
            if found is not None:  # it is, but for a host whose view of the disk is stale
                results[f"{found['corpus']}-{split}"] = found
        return results

    def _done(self, split: str, step: int) -> dict[str, Any] | None:
        """The final evaluation of a split, if it is there and is what would be made now."""
        wanted = {**self._about(split, step), "limit": self.settings.final_bytes}
        path = self.run.evaluations / f"{evaluation_name(wanted)}.json"
        found = read_evaluation(path) if path.is_file() else {}
        fits = all(found.get(key, "missing") == value for key, value in wanted.items())
        return found if fits else None

    def _write(self, evaluation: Evaluation) -> None:
        if not self.run.writes:
            return
        corpus_hash = self.plan.corpus.provenance.content_hash
        evaluation.write(self.run.evaluations, corpus_hash, self.settings.final_bytes)

    def _about(self, split: str, step: int) -> dict[str, Any]:
        identity = self.plan.identity
        return {
            "corpus": self.plan.corpus.provenance.name,
            "split": split,
            "step": step,
            "corpus_hash": identity.corpus,
            "tokenizer_hash": identity.tokenizer,
            "config_hash": identity.config,
            "vocab_size": self.plan.tokenizer.vocab_size,
        }

    def _evaluate(
        self, params: Params, split: str, step: int, limit: int | None, stop: Callable[[], bool]
    ) -> Evaluation:
        def check() -> None:
            if stop():
                raise Stopped

        return self.evaluator.evaluate(
            params, self.stores[split], self._about(split, step), limit=limit, check=check
        )
