"""The text a run is measured on, and whether its own corpus still is what it was trained on.

Splits are drawn by a hash of each document: where texts have changed, a document that was trained
on may stand in the test split, a little changed, and a score on it says nothing of new text.
"""

import os
from pathlib import Path

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.corpus import Corpus, TooFewDocuments, open_corpus
from calibtrain.data.corpora.text_files import find_files
from calibtrain.errors import UserError
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder


def open_measured(settings: CorpusConfig, cache: Path, *, named: bool) -> tuple[Corpus, list[str]]:
    """Returns a corpus to measure on, and what is to be noted of it.

    Args:
        settings: of the corpus.
        cache: where prepared data is kept.
        named: whether a command named it: then it need not have enough documents to be split.

    Raises:
        UserError: for a corpus that cannot be had.
    """
    try:
        return open_corpus(settings, cache), []
    except TooFewDocuments:
        if not named:
            raise
    corpus = open_corpus(settings, cache, split=False)
    count = corpus.provenance.splits["test"].documents
    what = "one document" if count == 1 else f"{count:,} documents"
    note = f"{settings.name} holds {what}, too few to be split: each split is all of it"
    return corpus, [note]


def notes_on_own_text(run: RunFolder, step: int, own: CorpusConfig, corpus: Corpus) -> list[str]:
    """Returns what is to be noted of a score on a run's own corpus.

    Args:
        run: the folder.
        step: of a checkpoint, which says what it was trained on.
        own: the settings of the run's corpus.
        corpus: what it holds now.

    Raises:
        UserError: where it holds another text than the run was trained on. An imported model is
            spared: it was trained on neither.
    """
    before, now = trained_on(run, step), corpus.provenance.content_hash
    if before in (None, now):
        return []
    if run.is_imported:
        return [
            f"{_spec(own)} holds another text now (content hash {now}) than when the model was "
            f"imported ({before}), of which the frequency deciles are"
        ]
    raise UserError(
        f"{run.path}: its corpus {_spec(own)} holds another text now (content hash {now}) than "
        f"it was trained on ({before}): its splits were drawn anew, and test text may have "
        "been trained on; restore the text, or name it as the one --corpus, to measure on it "
        f"with a note: --corpus {_spec(own)}"
    )


def notes_on_text(
    run: RunFolder, step: int, own: CorpusConfig, settings: CorpusConfig, corpus: Corpus
) -> list[str]:
    """Returns what is to be noted of a score on a corpus that a command named.

    Args:
        run: the folder.
        step: of a checkpoint, which says what it was trained on.
        own: the settings of the run's own corpus.
        settings: of the corpus that was named.
        corpus: what it holds.
    """
    before, now = trained_on(run, step), corpus.provenance.content_hash
    if before in (None, now) or not _is_same_source(own, settings):
        return []
    if run.is_imported:
        return []
    return [
        f"{settings.name} holds another text now (content hash {now}) than the run was trained on "
        f"({before}): its splits were drawn anew, and text that is scored may have been trained on"
    ]


def trained_on(run: RunFolder, step: int) -> str | None:
    """Returns the content hash of the text a checkpoint was trained on; None if it does not say."""
    return checkpoint.read_identity(run.checkpoints, step).corpus


def _spec(own: CorpusConfig) -> str:
    """Returns the corpus as a command line names it."""
    return f"files:{','.join(own.paths)}" if own.name == "files" else own.name


def _is_same_source(own: CorpusConfig, other: CorpusConfig) -> bool:
    """Returns whether two corpora read the same source, or share a file."""
    kinds = [each.name.partition(":")[0] for each in (own, other)]
    if kinds != ["files", "files"]:
        return own.name == other.name
    return bool(_files(own) & _files(other))


def _files(corpus: CorpusConfig) -> set[str]:
    """Returns the real paths of a corpus's files; of those that are gone, the names."""
    patterns = corpus.paths or tuple(corpus.name.partition(":")[2].split(","))
    found: set[str] = set()
    for pattern in filter(None, (each.strip() for each in patterns)):
        try:
            found |= {os.path.realpath(path) for path in find_files([pattern])}
        except UserError:
            found.add(os.path.realpath(os.path.expanduser(pattern)))
    return found
