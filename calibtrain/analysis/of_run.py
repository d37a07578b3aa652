"""What every analysis reads of a run and says of it: model, continuations, facts, and its file."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import calibtrain
from calibtrain.analysis.continuations import Continuation, choose_continuations
from calibtrain.data.corpora.named import Columns
from calibtrain.data.corpora.splits import SPLITS
from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText, generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import ANCESTRAL, Sampling
from calibtrain.runs.analysis_records import AnalysisRecord, analysis_file
from calibtrain.runs.loading import SavedRun, Say, noted_if_read_only, opened
from calibtrain.runs.record import FileRecord
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import make_folder
from calibtrain.storage.documents import FORMAT

_SEEDS = 2**31


class Counting(Protocol):
    """Is told how much of a stage is done, and of all; and which stage is begun."""

    def __call__(self, done: int, total: int) -> None: ...

    def stage(self, text: str) -> None:
        """A stage is begun."""


class Silent:
    """Shows nothing."""

    def __call__(self, done: int, total: int) -> None:
        """Shows nothing."""

    def stage(self, text: str) -> None:
        """Shows nothing."""


class Opened:
    """A run whose text is analysed.

    Attributes:
        saved: the run.
        model: what predicts and is drawn from.
        corpus: as the command line names it; None means the run's own.
        split: of the corpus.
        progress: is told what is done.
        say: is told in words what the user should know.
    """

    def __init__(
        self, saved: SavedRun, corpus: str | None, split: str, progress: Counting, say: Say
    ):
        if split not in SPLITS:
            raise UserError(f"--split: {split!r} is not a split; allowed: {', '.join(SPLITS)}")
        use_compiled_programs(saved.cache)
        self.saved, self.corpus, self.split = saved, corpus, split
        self.progress, self.say = progress, say
        self.model = LanguageModel.of(saved)

    def other(self, path: Path) -> LanguageModel:
        """Returns the model of another run, with which this one is compared."""
        with opened(path, self.saved.cache, say=self.say) as saved:
            return LanguageModel.of(saved)

    def continuations(
        self, count: int, prefix: int, reference: int, seed: int, split: str | None = None
    ) -> list[Continuation]:
        """Returns continuations of a split; None means the one that is measured."""
        documents = self.saved.corpus(self.corpus).documents(split or self.split)
        return choose_continuations(
            documents, count=count, prefix=prefix, reference=reference, seed=seed
        )

    def facts(self, documents: int, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of `AnalysisRecord`."""
        saved = self.saved
        provenance, notes = saved.corpus(self.corpus).provenance, saved.notes(self.corpus)
        return {
            "format": FORMAT,
            "version": calibtrain.__version__,
            "run": saved.run.path.name,
            "step": saved.step,
            "corpus": provenance.name,
            "split": self.split,
            "corpus_hash": provenance.content_hash,
            "tokenizer_hash": saved.tokenizer.hash,
            "vocab_size": saved.tokenizer.vocab_size,
            "model": saved.config.model.kind,
            "context": saved.context,
            "head": self.model.head_name,
            "documents": documents,
            "protocol": dict(protocol),
            **({"notes": notes} if notes else {}),
        }

    def write(self, kind: str, record: AnalysisRecord) -> Path | None:
        """Writes an analysis into the run; None where the run may only be read."""
        run = self.saved.run.path
        path = analysis_file(run, kind, record.corpus, record.split)
        return kept(run, path, record, self.saved.say)

    def generate(
        self,
        prompts: Sequence[str],
        what: str,
        *,
        max_bytes: int,
        seed: int,
        samples: int = 1,
        sampling: Sampling = ANCESTRAL,
        model: LanguageModel | None = None,
    ) -> list[list[GeneratedText]]:
        """Returns the texts of each prompt; a text that repeats itself goes on."""
        self.progress.stage(f"generating: {what}")
        counted = _Counted(self.progress, len(prompts) * samples * max_bytes)
        found = generate(
            model or self.model,
            prompts,
            samples=samples,
            seed=seed % _SEEDS,
            sampling=sampling,
            max_bytes=max_bytes,
            loop_stop=False,
            on_piece=counted,
        )
        return [found[i : i + samples] for i in range(0, len(found), samples)]


def kept(run: Path, path: Path, record: FileRecord, say: Say) -> Path | None:
    """Writes a record into a run; returns its file, None where the run may only be read."""
    with noted_if_read_only(run, say):
        make_folder(path.parent)
        record.write(path)
        return path
    return None


class _Counted:
    """Counts the bytes of pieces; texts that end early leave a rest."""

    def __init__(self, progress: Callable[[int, int], None], total: int):
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, number: int, piece: str) -> None:
        self._done += len(piece.encode())
        self._progress(min(self._done, self._total), self._total)


@contextlib.contextmanager
def opened_to_analyse(
    path: Path,
    *,
    corpus: str | None = None,
    split: str = "test",
    columns: Columns | None = None,
    head: str | None = None,
    cache: Path | None = None,
    progress: Counting | None = None,
    say: Say = lambda text: None,
) -> Iterator[Opened]:
    """Holds a run for this process, its latest checkpoint opened to be analysed.

    Args:
        path: the run folder.
        corpus: as `evaluate` names it; None means the run's own.
        split: train, validation or test.
        columns: the fields of the corpus that are read; None means those of the run's own.
        head: name of a fitted temperature head that divides the logits.
        cache: where prepared data is kept.
        progress: is told what is done.
        say: is told in words of a result that cannot be written beside the run.

    Raises:
        UserError: as `evaluate_run` does.
    """
    read = {corpus: columns or Columns()}
    with opened(path, cache, head, columns=read, say=say) as saved:
        yield Opened(saved, corpus, split, progress or Silent(), say)


def require(name: str, value: int, least: int) -> None:
    """Raises a UserError where an option is below what is allowed."""
    if value < least:
        raise UserError(f"--{name}: {value} is not allowed; at least {least}")
