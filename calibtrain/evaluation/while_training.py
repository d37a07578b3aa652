"""Evaluation as a part of training: what `calibtrain train` runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from calibtrain.config import Config
from calibtrain.data.batches.store import TokenStore, frequency_deciles, ignore, open_store
from calibtrain.evaluation.bytes import Progress, TextEvaluator
from calibtrain.evaluation.final import FinalEvaluation, final_evaluations
from calibtrain.evaluation.result import Evaluation, read_evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.evaluation.words import TEXT_EVENTS
from calibtrain.models import Params
from calibtrain.parallel import hosts
from calibtrain.parallel.mesh import make_layout
from calibtrain.storage.disk import cache_directory
from calibtrain.trackers import require_trackers, tracked
from calibtrain.training.begin import BegunRun, Member, begun
from calibtrain.training.loop import Outcome, train
from calibtrain.training.plan import Plan
from calibtrain.training.run_writer import Observer
from calibtrain.training.stopping import Stopped


def train_run(
    config: Config,
    path: Path,
    *,
    cache: Path | None = None,
    observer: Observer = ignore,
) -> Outcome:
    """Trains a run with its evaluations, or goes on with it if it is there.

    Args:
        config: what to train.
        path: the run folder.
        cache: where prepared data is kept; None means the user's own.
        observer: is told what happens.

    Raises:
        UserError: for anything that the user can mend; a NonFiniteError if it diverges.
    """
    outcome = train_together([Member(config, path, observer)], cache=cache)[0]
    if outcome.error is not None:
        raise outcome.error
    return outcome


def train_together(members: Sequence[Member], *, cache: Path | None = None) -> list[Outcome]:
    """Trains runs that differ in their seed alone; each is what `train_run` would make of it.

    This is where a training is put together: the folders are held, trackers listen, what measures
    the runs is made, and all of it is handed to the loop.

    Raises:
        UserError: for anything that the user can mend, except that a run diverges: its outcome
            tells that.
    """
    folder = cache or cache_directory()
    require_trackers([(member.config, member.path) for member in members])
    with begun(members, cache=folder) as begun_runs, tracked(begun_runs) as runs:
        scorer = token_evaluator(runs[0].plan)  # compiled once: all but the seed is alike
        return train(runs, [EvaluationWhileTraining(each, folder, scorer) for each in runs])


def token_evaluator(plan: Plan) -> TokenEvaluator:
    """Returns the evaluation of a plan's network by tokens, on all devices there are."""
    settings = plan.config.evaluation
    devices = plan.config.mesh.model_copy(update={"replica": 1, "data": None})
    return TokenEvaluator(
        plan.network,
        frequency_deciles(plan.store.counts),
        rows=settings.rows,
        context=plan.context,
        bins=settings.bins,
        layout=make_layout(devices, len(jax.devices())),
    )


def giving_up(stop: Callable[[], bool]) -> Callable[[], None]:
    """Returns what an evaluation calls between batches: it raises `Stopped` once `stop` says so."""

    def check() -> None:
        if stop():
            raise Stopped

    return check


class EvaluationWhileTraining:
    """Evaluates a run on validation text at a cadence, and on whole splits at the end."""

    def __init__(self, run: BegunRun, cache: Path, evaluator: TokenEvaluator):
        """Args:
        run: is held by this process.
        cache: where prepared data is kept.
        evaluator: of its network, which runs that differ in their seed alone share.
        """
        self.plan, self.folder, self.evaluator = run.plan, run.folder, evaluator
        self.observer = run.observer
        self.settings = self.plan.config.evaluation
        corpus, tokenizer = self.plan.corpus, self.plan.tokenizer
        self.stores: dict[str, TokenStore] = {
            split: open_store(corpus, split, tokenizer, cache, run.observer)
            for split in {"validation", *self.settings.final_splits}
        }
        self.groups = {split: corpus.groups(split) for split in self.stores}

    def during(self, params: Params, step: int, stop: Callable[[], bool]) -> Mapping[str, float]:
        """Scores about `evaluation.bytes` of the validation split."""
        evaluation = self._evaluate(
            params, "validation", step, self.settings.bytes, stop, thorough=False
        )
        if step < self.plan.budget.steps:  # at the end, the final evaluation is enough
            self._write(evaluation)
        if self.folder.writes:
            self.observer({"event": "measured", "step": step, "result": evaluation.to_dict()})
        return evaluation.figures

    def final(
        self, params: Params, step: int, stop: Callable[[], bool]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Scores the splits of `evaluation.final_splits`, except those that are done.

        Then it scores the test split by the other events of `evaluation.events`.
        """
        provenance = self.plan.corpus.provenance
        results: dict[str, Mapping[str, Any]] = {}
        for wanted in final_evaluations(
            self.settings, provenance.name, provenance.content_hash, step
        ):
            found = self._done(wanted)
            if not hosts.agreed(found is not None):
                if wanted.event == "token":
                    evaluation = self._evaluate(
                        params, wanted.split, step, wanted.limit, stop, thorough=True
                    )
                else:
                    evaluation = self._evaluate_text(params, wanted, step, stop)
                self._write(evaluation)
                found = evaluation.to_dict()
            if found is not None:  # it is, but for a host whose view of the disk is stale
                results[wanted.name] = found
        return results

    def _done(self, wanted: FinalEvaluation) -> dict[str, Any] | None:
        """Returns a final evaluation, if it is there and is what would be made now."""
        made = {**self.about(wanted.split, wanted.made["step"]), **wanted.made}
        path = self.folder.evaluations / wanted.file
        found = read_evaluation(path) if path.is_file() else None
        fits = found and all(found.get(key, "missing") == value for key, value in made.items())
        if wanted.event != "token" and found and found.sample is None:
            return None  # an earlier version read another text
        return found.document() if found and fits else None

    def _write(self, evaluation: Evaluation) -> None:
        if not self.folder.writes:
            return
        corpus_hash = self.plan.corpus.provenance.content_hash
        evaluation.write(self.folder.evaluations, corpus_hash, self.settings.final_bytes)

    def about(self, split: str, step: int) -> dict[str, Any]:
        """Returns what the results of a split belong to."""
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

    def _evaluate_text(
        self, params: Params, wanted: FinalEvaluation, step: int, stop: Callable[[], bool]
    ) -> Evaluation:
        """Scores bytes or words of a split, on the devices of each host: every host does so."""
        evaluator = TextEvaluator(
            self.plan.network,
            self.plan.tokenizer,
            context=self.plan.context,
            bins=self.settings.bins,
            events=TEXT_EVENTS[wanted.event],
        )
        return evaluator.evaluate(
            hosts.gathered(params),
            self.stores[wanted.split],
            self.about(wanted.split, step),
            limit=wanted.limit,
            groups=self.groups[wanted.split],
            trained_on=self.plan.corpus,
            progress=self._told(wanted.event, giving_up(stop)),
        )

    def _told(self, event: str, check: Callable[[], None]) -> Progress:
        """Tells the observer how far the scoring of a kind of events is, twice a second."""
        told, calls, began, before = 0.0, 0, 0.0, 0

        def tell(done: int, total: int) -> None:
            nonlocal told, calls, began, before
            check()
            now, calls = time.monotonic(), calls + 1
            if calls == 3:  # programs are compiled by now
                began, before = now, done
            elif calls > 3 and now - told >= 0.5:
                told = now
                left = (now - began) * (total - done) / max(1, done - before)
                self.observer(
                    {
                        "event": "measuring",
                        "what": f"{event} events",
                        "done": done,
                        "total": total,
                        "seconds_left": left,
                    }
                )

        return tell

    def _evaluate(
        self,
        params: Params,
        split: str,
        step: int,
        limit: int | None,
        stop: Callable[[], bool],
        *,
        thorough: bool,
    ) -> Evaluation:
        return self.evaluator.evaluate(
            params,
            self.stores[split],
            self.about(split, step),
            limit=limit,
            groups=self.groups[split],
            thorough=thorough,
            check=giving_up(stop),
        )
