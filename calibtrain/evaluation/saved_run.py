"""Evaluate a run on any corpus, when it is done or while it rests: `calibtrain evaluate`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from calibtrain.config import Config, MeshConfig, config_hash
from calibtrain.data.batches.store import TokenStore, frequency_deciles, open_store
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.corpora.named import Columns, own_corpus, parse_corpus, settings_are_options
from calibtrain.errors import UserError
from calibtrain.evaluation.bytes import NEXT_BYTE, Beam, EventSpace, Progress, TextEvaluator
from calibtrain.evaluation.latest_checkpoint import fitted_head, latest_step, load_params
from calibtrain.evaluation.own_text import notes_on_own_text, notes_on_text, open_measured
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.evaluation.vocabulary import vocabulary_table, with_vocabulary_errors
from calibtrain.evaluation.words import NEXT_WORD
from calibtrain.models import TEMPERATURE, Network, Params
from calibtrain.models.attention import require_available
from calibtrain.parallel.mesh import Layout, make_layout
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.disk import cache_directory, is_read_only
from calibtrain.storage.places import place
from calibtrain.temperature import FittedTemperature, fit_temperature, tempered
from calibtrain.temperature.saved_head import SavedHead
from calibtrain.temperature.scalar import NotFiniteError
from calibtrain.training.finite import ADVICE, NonFiniteError
from calibtrain.training.networks import network_of
from calibtrain.training.plan import context_seen

Say = Callable[[str], None]
"""Is told in words what the user must know."""
EVENT_SPACES = {space.name: space for space in (NEXT_BYTE, NEXT_WORD)}
"""Events of text, the same for every vocabulary."""


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
    say: Say = lambda text: None,
) -> Evaluation:
    """Evaluate a run's latest checkpoint, and write the result into its `evaluations/`.

    All devices here share the work, whichever the run was trained on.

    Args:
        path: the run folder.
        corpus: kjv, pydoc, markov, files:GLOB, tfds:NAME[/CONFIG]; default the run's own.
        split: train, validation or test.
        limit: bytes of text, about; none: the whole split.
        temperature: name of a head that was fitted to this checkpoint; none: without.
        columns: the fields of the corpus that are read; None means those of the run's own.
        full: whether Full-ECE and classwise ECE are measured too, which takes another pass.
        cache: where prepared data is kept.
        check: called between batches; may raise to give up.
        say: told in words of a result that cannot be written beside the run.

    Raises:
        UserError: for a run whose own corpus is not the text that it was trained on; for a folder
            that holds no run or no whole checkpoint, or that another process is writing; for a
            corpus or split that cannot be had; and for a head that is not there or was fitted to
            another checkpoint.
    """
    read = {corpus: columns or Columns()}
    with opened(path, cache, check, temperature, columns=read, say=say) as saved:
        return saved.evaluate(corpus, split, limit, full=full)


def evaluate_run_on_text(
    path: Path,
    *,
    events: str = "byte",
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
    """Score a run's latest checkpoint on next bytes or words, and write that to `evaluations/`.

    Args:
        path: the run folder; as are the others not named here, as for `evaluate_run`.
        events: byte or word.
        corpus: which text.
        split: of it.
        limit: bytes of text, about; none: the whole split.
        width: tokenisations that are followed; default 5.
        ratio: none is followed below this share of the best one's weight; default 0.05.
        temperature: as for `evaluate_run`.
        columns: likewise.
        cache: where prepared data is kept.
        progress: called with symbols read, and of all; may raise to give up.
        say: as for `evaluate_run`.

    Raises:
        UserError: as `evaluate_run` does.
    """
    beam = Beam()
    beam = Beam(beam.width if width is None else width, beam.ratio if ratio is None else ratio)
    read = {corpus: columns or Columns()}
    with opened(path, cache, temperature=temperature, columns=read, say=say) as saved:
        return saved.evaluate_text(EVENT_SPACES[events], corpus, split, limit, beam, progress)


@contextmanager
def opened(
    path: Path,
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
    temperature: str | None = None,
    *,
    columns: Mapping[str | None, Columns] | None = None,
    say: Say = lambda text: None,
    writes: bool = False,
) -> Iterator["SavedRun"]:
    """A run, held for this process, with its latest checkpoint ready to be evaluated.

    Args:
        path: the run folder.
        cache: where prepared data is kept.
        check: called between batches; may raise to give up.
        temperature: name of a fitted head that is to divide the logits.
        columns: the fields that are read of corpora, by their names.
        say: told in words of a result that cannot be written beside the run.
        writes: whether what is asked for is of no use unless the run may be written.

    Raises:
        UserError: as `evaluate_run` does.
    """
    run = RunFolder(place(path))
    config = run.read_config()
    if not run.read_summary():  # which refuses a format that is not known
        say(f"note: {run.path / 'run.json'}: is missing; what is measured does not depend on it")
    with run.locked() if writes else run.locked_to_read():
        try:
            head = None if temperature is None else fitted_head(run, config, temperature)
            yield SavedRun(run, config, cache or cache_directory(), check, head, columns, say)
        except (NonFiniteError, NotFiniteError) as error:
            raise NonFiniteError(f"{path}: {error}. {ADVICE}") from None


class SavedRun:
    """The latest checkpoint of a run, on all devices here.

    Attributes:
        run: its folder.
        config: its configuration.
        tokenizer: its tokenizer.
        head: that was fitted to it and divides its logits; none: none.
        cache: where prepared data is kept.
    """

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        cache: Path,
        check: Callable[[], None] = lambda: None,
        head: SavedHead | None = None,
        columns: Mapping[str | None, Columns] | None = None,
        say: Say = lambda text: None,
    ):
        self.run, self._say = run, say
        self.config = _computed_here(config, say)
        self.tokenizer = run.read_tokenizer()
        self.head, self.cache, self._check = head, cache, check
        self._columns = columns or {}
        self._corpora: dict[str | None, Corpus] = {}
        self._notes: dict[str | None, list[str]] = {}
        self._loaded: tuple[Any, TokenEvaluator] | None = None

    def corpus(self, name: str | None) -> Corpus:
        """A corpus as the command line names it; None means the run's own.

        Raises:
            UserError: where it cannot be had, or the run's own holds another text than it did.
        """
        if name not in self._corpora:
            own, columns = self.config.corpus, self._columns.get(name)
            if name is None:
                settings = own_corpus(own, columns)
            else:
                settings = parse_corpus(name, own, columns)
            with settings_are_options():
                corpus, notes = open_measured(settings, self.cache, named=name is not None)
            if name is None:
                notes += notes_on_own_text(self.run, self.step, own, corpus)
            else:
                notes += notes_on_text(self.run, self.step, own, settings, corpus)
            self._notes[name] = notes
            self._corpora[name] = corpus
        return self._corpora[name]

    def notes(self, corpus: str | None) -> list[str]:
        """What is to be noted of whatever is measured on a corpus, or fitted to it."""
        self.corpus(corpus)
        return self._notes[corpus]

    def store(self, corpus: str | None, split: str) -> TokenStore:
        """A split of a corpus in the run's vocabulary."""
        return open_store(self.corpus(corpus), split, self.tokenizer, self.cache)

    def evaluate(
        self,
        corpus: str | None,
        split: str,
        limit: int | None,
        temperature: float = 1.0,
        *,
        full: bool = False,
    ) -> Evaluation:
        """Evaluate on a split of a corpus, and write the result into the run.

        With `full`, Full-ECE and classwise ECE too, by another pass over the text.
        """
        store = self.store(corpus, split)  # what cannot be had is told before the model is loaded
        params, evaluator = self._load()
        with settings_are_options():
            evaluation = evaluator.evaluate(
                params,
                store,
                self._about(corpus, split),
                limit=limit,
                groups=self.corpus(corpus).groups(split),
                temperature=temperature,
                check=self._check,
            )
        if full:
            table = vocabulary_table(
                self.network,
                params,
                EvaluationWindows(
                    store, rows=evaluator.rows, context=evaluator.context, limit=limit
                ),
                bins=evaluator.bins,
                temperature=temperature,
                layout=_all_devices(self.config.evaluation.rows),
                check=self._check,
            )
            evaluation = with_vocabulary_errors(evaluation, table)
        return self._write(evaluation)

    def evaluate_text(
        self,
        events: EventSpace,
        corpus: str | None,
        split: str,
        limit: int | None,
        beam: Beam,
        progress: Progress,
    ) -> Evaluation:
        """Evaluate on events of text, on one device, and write the result into the run."""
        store = self.store(corpus, split)
        evaluator = TextEvaluator(
            self.network,
            self.tokenizer,
            context=self.context,
            bins=self.config.evaluation.bins,
            beam=beam,
            events=events,
            fitted=None if self.head is None else self.head.name,
        )
        with settings_are_options():
            evaluation = evaluator.evaluate(
                self.params(),
                store,
                self._about(corpus, split),
                limit=limit,
                groups=self.corpus(corpus).groups(split),
                progress=progress,
            )
        return self._write(evaluation)

    def _about(self, corpus: str | None, split: str) -> dict[str, Any]:
        provenance = self.corpus(corpus).provenance
        return {
            "corpus": provenance.name,
            "split": split,
            "step": self.step,
            "corpus_hash": provenance.content_hash,
            "tokenizer_hash": self.tokenizer.hash,
            "config_hash": config_hash(self.config),
            "vocab_size": self.tokenizer.vocab_size,
            **({"notes": notes} if (notes := self.notes(corpus)) else {}),
        }

    def _write(self, evaluation: Evaluation) -> Evaluation:
        own = checkpoint.read_identity(self.run.checkpoints, self.step)
        settings = self.config.evaluation
        with self.writing():
            evaluation.write(self.run.evaluations, own.corpus, settings.final_bytes)
        return evaluation

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say that a result cannot be written beside the run, where that may only be read."""
        try:
            yield
        except UserError as error:
            if not is_read_only(error):
                raise
            self._say(
                f"note: {self.run.path}: may be read and not written, so that the result is shown "
                "and not kept beside the run; copy the run to keep it"
            )

    @property
    def step(self) -> int:
        """Of the latest checkpoint."""
        return latest_step(self.run)

    @cached_property
    def _counts(self) -> Any:
        return self.run.read_target_counts(self.tokenizer.vocab_size)

    @property
    def network(self) -> Network:
        """The run's network, with the head that divides its logits."""
        own = network_of(self.config, self.tokenizer.vocab_size)
        return own if self.head is None else tempered(own, self.head.config)

    def params(self, layout: Layout | None = None) -> Params:
        """The checkpoint's parameters on the devices of a layout (none: one), and the head's."""
        _, params = load_params(self.run, layout)
        if self.head is None:
            return params
        head = self.network.head
        assert head is not None
        return {**params, TEMPERATURE: self.head.read_params(head)}

    @property
    def context(self) -> int:
        """Tokens that the model sees back."""
        return context_seen(self.config, self._counts, self.tokenizer.byte_lengths)

    def fit_temperature(self, split: str, limit: int | None) -> FittedTemperature:
        """The temperature of the lowest nll on a split of the run's own corpus."""
        store = self.store(None, split)
        params, evaluator = self._load()
        about = self._about(None, split)
        return fit_temperature(
            lambda temperature: evaluator.likelihood(
                params, store, about, temperature, limit=limit, check=self._check
            )
        )

    def _load(self) -> tuple[Any, TokenEvaluator]:
        """The parameters of the checkpoint, and what evaluates them by tokens."""
        if self._loaded is None:
            layout = _all_devices(self.config.evaluation.rows)
            evaluator = TokenEvaluator(
                self.network,
                frequency_deciles(self._counts),
                rows=self.config.evaluation.rows,
                context=self.context,
                bins=self.config.evaluation.bins,
                layout=layout,
                fitted=None if self.head is None else self.head.name,
            )
            self._loaded = self.params(layout), evaluator
        return self._loaded


def _computed_here(config: Config, say: Say) -> Config:
    """The configuration, with an attention that the devices here have."""
    try:
        require_available(config.model)
    except UserError as error:
        say(f"note: {error}; auto is used, which gives the same figures within rounding")
        return config.model_copy(
            update={"model": config.model.model_copy(update={"attention": "auto"})}
        )
    return config


def _all_devices(rows: int) -> Layout:
    """Every device here, each with an equal share of at least so many rows."""
    count = jax.device_count()
    return make_layout(MeshConfig(), -(-rows // count) * count)
