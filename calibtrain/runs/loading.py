"""A run that is there, opened: its network and parameters, and text to measure or fit it on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from calibtrain.config import Config
from calibtrain.data.batches.store import TokenStore, open_store
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.corpora.named import Columns, own_corpus, parse_corpus, settings_are_options
from calibtrain.errors import DIVERGED_ADVICE, NonFiniteError, UserError
from calibtrain.models import TEMPERATURE, Network, Params
from calibtrain.models.attention import require_available
from calibtrain.parallel.mesh import Layout
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import fitted_head, latest_step, load_params
from calibtrain.runs.own_text import notes_on_own_text, notes_on_text, open_measured
from calibtrain.storage.disk import cache_directory, is_read_only
from calibtrain.storage.places import place
from calibtrain.temperature import network_of, tempered
from calibtrain.temperature.saved_head import SavedHead

Say = Callable[[str], None]
"""Is told in words what the user must know."""


@contextmanager
def opened(
    path: Path,
    cache: Path | None = None,
    temperature: str | None = None,
    *,
    columns: Mapping[str | None, Columns] | None = None,
    say: Say = lambda text: None,
    writes: bool = False,
) -> Iterator["SavedRun"]:
    """Holds a run for this process, and gives its latest checkpoint.

    Args:
        path: the run folder.
        cache: where prepared data is kept; None means the user's own.
        temperature: the name of a fitted head that is to divide the logits.
        columns: the fields that are read of corpora, by their names.
        say: is told in words of a result that cannot be written beside the run.
        writes: whether what is asked for is of no use unless the run may be written.

    Raises:
        UserError: for a folder that holds no run or no whole checkpoint, or that another process
            is writing; for a head that is not there or was fitted to another checkpoint.
    """
    run = RunFolder(place(path))
    config = run.read_config()
    if run.read_summary() is None:  # which refuses a format that is not known
        say(f"note: {run.path / 'run.json'}: is missing; what is measured does not depend on it")
    with run.locked() if writes else run.locked_to_read():
        try:
            head = None if temperature is None else fitted_head(run, config, temperature)
            yield SavedRun(run, config, cache or cache_directory(), head, columns, say)
        except NonFiniteError as error:
            raise NonFiniteError(f"{path}: {error}. {DIVERGED_ADVICE}") from None


class SavedRun:
    """The latest checkpoint of a run, and the corpora that it is looked at with.

    Attributes:
        run: its folder.
        config: its configuration.
        tokenizer: its tokenizer.
        head: was fitted to it and divides its logits; None means that nothing does.
        cache: where prepared data is kept.
        say: is told in words what the user must know.
    """

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        cache: Path,
        head: SavedHead | None = None,
        columns: Mapping[str | None, Columns] | None = None,
        say: Say = lambda text: None,
    ):
        self.run, self.cache, self.head, self.say = run, cache, head, say
        self.config = _computed_here(config, say)
        self.tokenizer = run.read_tokenizer()
        self._columns = columns or {}
        self._corpora: dict[str | None, tuple[Corpus, list[str]]] = {}

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return latest_step(self.run)

    @property
    def network(self) -> Network:
        """The run's network, with the head that divides its logits."""
        own = network_of(self.config, self.tokenizer.vocab_size)
        return own if self.head is None else tempered(own, self.head.config)

    def params(self, layout: Layout | None = None) -> Params:
        """Returns the checkpoint's parameters and the head's.

        Args:
            layout: of the devices that are to hold them; None means one device.
        """
        _, params = load_params(self.run, layout)
        if self.head is None:
            return params
        head = self.network.head
        assert head is not None
        return {**params, TEMPERATURE: self.head.read_params(head)}

    @cached_property
    def target_counts(self) -> Int[np.ndarray, " vocab"]:
        """How often each vocabulary entry is a target in the training text."""
        return self.run.read_target_counts(self.tokenizer.vocab_size)

    @property
    def context(self) -> int:
        """How many tokens the model sees back."""
        return context_seen(self.config, self.target_counts, self.tokenizer.byte_lengths)

    def corpus(self, name: str | None) -> Corpus:
        """Returns a corpus as the command line names it; None means the run's own.

        Raises:
            UserError: where it cannot be had, or the run's own holds another text than it did.
        """
        return self._measured(name)[0]

    def notes(self, corpus: str | None) -> list[str]:
        """Returns what is to be noted of anything measured on a corpus, or fitted to it."""
        return self._measured(corpus)[1]

    def store(self, corpus: str | None, split: str) -> TokenStore:
        """Returns a split of a corpus in the run's vocabulary."""
        return open_store(self.corpus(corpus), split, self.tokenizer, self.cache)

    def _measured(self, name: str | None) -> tuple[Corpus, list[str]]:
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
            self._corpora[name] = corpus, notes
        return self._corpora[name]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Says that a result cannot be written beside the run, where that may only be read."""
        with noted_if_read_only(self.run.path, self.say):
            yield


@contextmanager
def noted_if_read_only(run: Path, say: Say) -> Iterator[None]:
    """Says that a result cannot be written beside a run, where that may only be read."""
    try:
        yield
    except UserError as error:
        if not is_read_only(error):
            raise
        say(
            f"note: {run}: may be read and not written, so that the result is shown "
            "and not kept beside the run; copy the run to keep it"
        )


def context_seen(
    config: Config, counts: Int[np.ndarray, " vocab"], byte_lengths: Int[np.ndarray, " vocab"]
) -> int:
    """Returns how many tokens a model sees back.

    Args:
        config: of its run.
        counts: how often each vocabulary entry is a target in the training text.
        byte_lengths: how many bytes each stands for.
    """
    return config.context.in_tokens(float(counts @ byte_lengths) / float(counts.sum()))


def _computed_here(config: Config, say: Say) -> Config:
    """Returns the configuration with an attention that the devices here have."""
    try:
        require_available(config.model)
    except UserError as error:
        say(f"note: {error}; auto is used, which gives the same figures within rounding")
        return config.model_copy(
            update={"model": config.model.model_copy(update={"attention": "auto"})}
        )
    return config
