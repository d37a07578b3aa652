"""Evaluates a run on any corpus, when it is done or while it rests: `calibtrain evaluate`."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from calibtrain.config import MeshConfig, config_hash
from calibtrain.data.batches.store import TokenStore, frequency_deciles
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.corpora.named import Columns, settings_are_options
from calibtrain.errors import UserError
from calibtrain.evaluation.bytes import Progress, TextEvaluator, TextEvents
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.evaluation.vocabulary import vocabulary_table, with_vocabulary_errors
from calibtrain.evaluation.words import TEXT_EVENTS
from calibtrain.fitting import FittedTemperature, fit_temperature
from calibtrain.generation.next_byte import Beam
from calibtrain.models import Params
from calibtrain.parallel.mesh import Layout, make_layout
from calibtrain.runs import checkpoint
from calibtrain.runs.loading import SavedRun, Say, opened
from calibtrain.storage.compiled import use_compiled_programs


def evaluate_run(
    path: Path,
    *,
    corpus: str | None = None,
    split: str = "test",
    limit: int | None = None,
    temperature: str | None = None,
    columns: Columns | None = None,
    full: bool = False,
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
    say: Say = lambda text: None,
) -> Evaluation:
    """Evaluates a run's latest checkpoint, and writes the result into its `evaluations/`.

    All devices here share the work, whichever the run was trained on.

    Args:
        path: the run folder.
        corpus: kjv, pydoc, stdlib, markov, files:GLOB, tfds:NAME[/CONFIG]; default the run's own.
        split: train, validation or test.
        limit: about how many bytes of text are read, in whole documents; None means all.
        temperature: the name of a head that was fitted to this checkpoint; None means no head.
        columns: the fields of the corpus that are read; None means those of the run's own.
        full: whether Full-ECE and classwise ECE are measured too, which takes another pass.
        cache: where prepared data is kept.
        check: called between batches; may raise to give up.
        progress: is told the number of batches that are given to the model, and of all.
        say: is told in words of a result that cannot be written beside the run.

    Raises:
        UserError: for a run whose own corpus is not the text that it was trained on; for a folder
            that holds no run or no whole checkpoint, or that another process is writing; for a
            corpus or split that cannot be had; and for a head that is not there or was fitted to
            another checkpoint.
    """
    read = {corpus: columns or Columns()}
    with opened(path, cache, temperature, columns=read, say=say) as saved:
        evaluator = SavedRunEvaluator(saved, check, progress)
        return evaluator.evaluate(corpus, split, limit, full=full)


def evaluate_run_on_text(
    path: Path,
    *,
    events: str = "byte",
    tokenisations: str = "all",
    corpus: str | None = None,
    split: str = "test",
    limit: int | None = None,
    width: int | None = None,
    ratio: float | None = None,
    temperature: str | None = None,
    columns: Columns | None = None,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
    say: Say = lambda text: None,
) -> Evaluation:
    """Scores a run's latest checkpoint on next bytes or words; writes that to `evaluations/`.

    Args:
        path: the run folder.
        events: byte or word.
        tokenisations: all, followed by a beam; or canonical (what the tokenizer itself writes),
            which is exact: then a width or a ratio asks for a beam over all to be measured too.
        corpus: as for `evaluate_run`.
        split: as for `evaluate_run`.
        limit: how many bytes of text are read, in stretches of many documents; None means all.
        width: how many tokenisations are followed; default 5.
        ratio: a tokenisation is given up below this share of the best one's weight; default 0.05.
        temperature: as for `evaluate_run`.
        columns: as for `evaluate_run`.
        cache: where prepared data is kept.
        progress: is called with how many symbols are read, and of how many; may raise to give up.
        say: as for `evaluate_run`.

    Raises:
        UserError: as `evaluate_run` does; and for a tokenizer whose canonical tokenisations cannot
            be told.
    """
    usual, beam = Beam(), None
    if width is not None or ratio is not None:
        beam = Beam(
            usual.width if width is None else width, usual.ratio if ratio is None else ratio
        )
    read = {corpus: columns or Columns()}
    with opened(path, cache, temperature, columns=read, say=say) as saved:
        return evaluate_text(
            saved,
            TEXT_EVENTS[events],
            corpus,
            split,
            limit,
            beam,
            progress,
            canonical=tokenisations == "canonical",
        )


class SavedRunEvaluator:
    """Evaluates a saved run by tokens, on all devices here; its parameters are loaded once."""

    def __init__(
        self,
        saved: SavedRun,
        check: Callable[[], None] = lambda: None,
        progress: Progress = lambda done, total: None,
    ):
        """Args:
        saved: the run.
        check: is called between batches; may raise to give up.
        progress: is told the number of batches that are given to the model, and of all.
        """
        self._saved, self._check, self._progress = saved, check, progress

    def evaluate(
        self,
        corpus: str | None,
        split: str,
        limit: int | None,
        temperature: float = 1.0,
        *,
        full: bool = False,
    ) -> Evaluation:
        """Evaluates on a split of a corpus, and writes the result into the run.

        With `full`, Full-ECE and classwise ECE are measured too, by another pass over the text.
        """
        saved = self._saved
        store = saved.store(corpus, split)  # what cannot be had is told before the model is loaded
        params, evaluator = self._loaded
        counted = self._counted(store, limit, passes=2 if full else 1)
        with settings_are_options():
            evaluation = evaluator.evaluate(
                params,
                store,
                _about(saved, corpus, split),
                limit=limit,
                groups=saved.corpus(corpus).groups(split),
                temperature=temperature,
                check=counted,
            )
        if full:
            table = vocabulary_table(
                saved.network,
                params,
                EvaluationWindows(
                    store, rows=evaluator.rows, context=evaluator.context, limit=limit
                ),
                bins=evaluator.bins,
                temperature=temperature,
                layout=_all_devices(saved.config.evaluation.rows),
                check=counted,
            )
            evaluation = with_vocabulary_errors(evaluation, table)
        return _written(saved, evaluation)

    def fit_temperature(self, split: str, limit: int | None) -> FittedTemperature:
        """Returns the temperature of the lowest nll on a split of the run's own corpus."""
        store = self._saved.store(None, split)
        params, evaluator = self._loaded
        about = _about(self._saved, None, split)
        return fit_temperature(
            lambda temperature: evaluator.likelihood(
                params, store, about, temperature, limit=limit, check=self._counted(store, limit)
            )
        )

    def _counted(self, store: TokenStore, limit: int | None, passes: int = 1) -> Callable[[], None]:
        """Returns what is to be called before each batch of a text: it counts them."""
        _, evaluator = self._loaded
        rows, context = evaluator.rows, evaluator.context
        total = passes * len(EvaluationWindows(store, rows=rows, context=context, limit=limit))
        done = 0

        def count() -> None:
            nonlocal done
            self._check()
            done += 1
            self._progress(done, total)

        return count

    @cached_property
    def _loaded(self) -> tuple[Params, TokenEvaluator]:
        """The parameters of the checkpoint, and what evaluates them."""
        saved, settings = self._saved, self._saved.config.evaluation
        layout = _all_devices(settings.rows)
        evaluator = TokenEvaluator(
            saved.network,
            frequency_deciles(saved.target_counts),
            rows=settings.rows,
            context=saved.context,
            bins=settings.bins,
            layout=layout,
            fitted=None if saved.head is None else saved.head.name,
        )
        return saved.params(layout), evaluator


def evaluate_text(
    saved: SavedRun,
    events: TextEvents,
    corpus: str | None,
    split: str,
    limit: int | None,
    beam: Beam | None,
    progress: Progress,
    *,
    canonical: bool = False,
) -> Evaluation:
    """Evaluates a saved run on events of text, on all devices here, and writes the result."""
    evaluator = TextEvaluator(
        saved.network,
        saved.tokenizer,
        context=saved.context,
        bins=saved.config.evaluation.bins,
        beam=beam,
        canonical=canonical,
        events=events,
        fitted=None if saved.head is None else saved.head.name,
    )
    store = saved.store(corpus, split)
    use_compiled_programs(saved.cache)
    about = _about(saved, corpus, split)
    with settings_are_options():
        evaluation = evaluator.evaluate(
            saved.params(),
            store,
            about,
            limit=limit,
            groups=saved.corpus(corpus).groups(split),
            trained_on=_trained_on(saved) if events.strata else None,
            progress=progress,
        )
    return _written(saved, evaluation)


def _trained_on(saved: SavedRun) -> Corpus | None:
    """Returns the run's own corpus; None where it has changed since, or is gone."""
    try:
        return saved.corpus(None)
    except UserError:  # the run is measured on another text
        return None


def _about(saved: SavedRun, corpus: str | None, split: str) -> dict[str, Any]:
    """Returns what the results of a split belong to."""
    provenance = saved.corpus(corpus).provenance
    return {
        "corpus": provenance.name,
        "split": split,
        "step": saved.step,
        "corpus_hash": provenance.content_hash,
        "tokenizer_hash": saved.tokenizer.hash,
        "config_hash": config_hash(saved.config),
        "vocab_size": saved.tokenizer.vocab_size,
        **({"notes": notes} if (notes := saved.notes(corpus)) else {}),
    }


def _written(saved: SavedRun, evaluation: Evaluation) -> Evaluation:
    """Writes an evaluation into its run, where that may be written; returns it with its path."""
    own = checkpoint.read_identity(saved.run.checkpoints, saved.step)
    final_bytes, path = saved.config.evaluation.final_bytes, None
    with saved.writing():
        path = evaluation.write(saved.run.evaluations, own.corpus, final_bytes)
    return dataclasses.replace(evaluation, path=path)


def _all_devices(rows: int) -> Layout:
    """Returns every device here, each with an equal share of at least so many rows."""
    count = jax.device_count()
    return make_layout(MeshConfig(), -(-rows // count) * count)
