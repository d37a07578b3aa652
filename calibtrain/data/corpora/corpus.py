"""Opens a corpus, preparing it once through TFDS.

Every source of text (`sources`) is stored in the same form under the cache: `array_record` files
and a `provenance.json` that identifies the text to the byte.
"""

import dataclasses
import hashlib
import json
import shutil
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.documents import (
    Corpus,
    Document,
    Provenance,
    Source,
    SplitSize,
)
from calibtrain.data.corpora.named import parse_corpus
from calibtrain.data.corpora.sources import source_of
from calibtrain.data.corpora.splits import (
    SPLITS,
    assign_splits,
    draw_sample,
    sample_key,
    text_key,
)
from calibtrain.errors import UserError
from calibtrain.process.phases import Phase
from calibtrain.storage.disk import cache_directory, disk_errors
from calibtrain.storage.json_text import read_json
from calibtrain.storage.prepared import prepare_once

__all__ = [
    "Corpus",
    "Document",
    "Provenance",
    "SplitSize",
    "TooFewDocuments",
    "cache_directory",
    "open_corpus",
    "parse_corpus",
]

_FORM = 2  # version of the prepared folder and of the split rule; a new one prepares again
_LARGEST = 2**30  # bytes per document; a TFDS record must stay below 2 GiB


class TooFewDocuments(UserError):
    """A corpus has too few documents to be split: each split needs at least one."""


def open_corpus(config: CorpusConfig, cache: Path, *, split: bool = True) -> Corpus:
    """Opens a corpus; it is prepared once under `cache`, and again if it was damaged.

    Splits are by document and depend only on the texts and the shares (see `splits`); a TFDS data
    set with its own splits keeps them as published.

    Args:
        config: the text.
        cache: the folder in which it is prepared.
        split: whether each document is in one split only; otherwise every split has all of them,
            for text that is measured on and never trained on.

    Raises:
        TooFewDocuments: for fewer distinct documents than splits.
        UserError: for text that does not exist or cannot be read exactly, a split without text, or
            a cache that is full or read-only.
    """
    cache = cache.absolute()
    with disk_errors(cache):
        source = source_of(config, cache)
    folder = cache / "corpora" / f"{config.name.partition(':')[0]}-{_key(config, source)}"
    if not split:
        folder = folder.with_name(f"{folder.name}-unsplit")
    prepare_once(folder, lambda made: _prepare(config, source, made, split), sound=_is_sound)
    corpus = _read(folder, config.name)
    if corpus is None:
        raise UserError(f"{folder}: cannot be read; delete it, or set CALIBTRAIN_CACHE elsewhere")
    return corpus


# --- preparing -----------------------------------------------------------------------------------


def _key(config: CorpusConfig, source: Source) -> str:
    parts = [_FORM, config.name.partition(":")[0], source.version, source.fingerprint]
    shares = [config.validation_fraction, config.test_fraction]
    if config.sample_bytes is not None:
        shares.append(config.sample_bytes)
    return hashlib.sha256(json.dumps(parts + shares).encode()).hexdigest()[:16]


def _prepare(config: CorpusConfig, source: Source, folder: Path, split: bool) -> None:
    from calibtrain.data.corpora.builder import Spool, read_documents, write_documents

    work = folder / "work"
    work.mkdir()
    keys, own, drawn_by, sizes = array("Q"), array("b"), array("Q"), array("Q")
    with (work / "spool").open("w+b") as file:
        spool = Spool(file)
        for side, document in source.read():
            sizes.append(len(document.text.encode()))
            if sizes[-1] > _LARGEST:
                raise UserError(
                    f"corpus {config.name}: document {document.id!r} is larger than 1 GiB; "
                    "cut it up"
                )
            spool.append(document)
            keys.append(text_key(document.text))
            own.append(SPLITS.index(side) if side else -1)
            if config.sample_bytes is not None:
                drawn_by.append(sample_key(document.text))
        taken = np.arange(len(keys))
        if config.sample_bytes is not None:
            columns = np.array(drawn_by, np.uint64), np.array(sizes, np.uint64)
            taken = draw_sample(*columns, config.sample_bytes)
        numbers = dict.fromkeys(SPLITS, taken)
        if split or not keys:
            found = np.array(keys, np.uint64)[taken], np.array(own, np.int8)[taken]
            numbers = {name: taken[chosen] for name, chosen in _split(config, *found).items()}
        source = _sampled(source, config, sum(sizes), len(keys) - len(taken))
        write_documents(spool, numbers, work).rename(folder / "records")
    shutil.rmtree(work)
    provenance = _describe(config, source, read_documents(folder / "records"))
    if sum(size.documents for size in provenance.splits.values()) != sum(
        map(len, numbers.values())
    ):
        raise UserError(f"{folder}: documents were lost while writing; is the disk full?")
    for name, size in provenance.splits.items():
        if not size.bytes:
            raise UserError(
                f"corpus {config.name}: the {name} split holds only empty documents; leave empty "
                "documents out, or give more text"
            )
    (folder / "provenance.json").write_text(json.dumps(provenance.to_dict(), indent=2), "utf-8")


def _sampled(source: Source, config: CorpusConfig, size: int, left_out: int) -> Source:
    """Returns the source with a description that says what was drawn from it."""
    if config.sample_bytes is None:
        return source
    drawn = f"a sample of about {config.sample_bytes:,} of {size:,} bytes, in whole documents"
    if not left_out:
        drawn = f"all of its {size:,} bytes, of which corpus.sample_bytes leaves none out"
    return dataclasses.replace(source, description=f"{source.description} Read: {drawn}.")


def _split(config: CorpusConfig, keys: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the numbers of each split's documents: as published, and the others by the rule."""
    if not keys.size:
        raise UserError(f"corpus {config.name}: holds no documents")
    shares = {"validation": config.validation_fraction, "test": config.test_fraction}
    missing = {name: share for name, share in shares.items() if SPLITS.index(name) not in own}
    free = own < 0
    assigned = assign_splits(keys[free], missing)
    if assigned is None:
        raise TooFewDocuments(
            f"corpus {config.name}: holds {np.unique(keys[free]).size} distinct document(s) to "
            f"split, and train{''.join(f', {name}' for name in missing)} need at least one each; "
            "give more documents, for example one for each chapter of a long text"
        )
    side = own.copy()
    side[free] = assigned
    return {name: np.flatnonzero(side == index) for index, name in enumerate(SPLITS)}


def _describe(config: CorpusConfig, source: Source, records: Mapping[str, Any]) -> Provenance:
    """Returns the provenance, from reading back every stored record."""
    content_hash, splits = _measure(records)
    return Provenance(
        name=config.name,
        source=source.description,
        version=source.version,
        content_hash=content_hash,
        splits=splits,
        entropy_bits_per_byte=source.entropy_bits_per_byte(),
    )


def _measure(records: Mapping[str, Any]) -> tuple[str, dict[str, SplitSize]]:
    """Returns the content hash and the size of each split."""
    digest = hashlib.sha256()
    splits = {}
    phase = Phase("reading the corpus back", sum(map(len, records.values())), "documents")
    for name in SPLITS:
        size = 0
        for record in records[name]:
            lengths = struct.pack(
                "<BQQ", SPLITS.index(name), len(record["id"]), len(record["text"])
            )
            digest.update(lengths + record["id"] + record["text"])
            size += len(record["text"])
            phase.add(1)
        splits[name] = SplitSize(documents=len(records[name]), bytes=size)
    return digest.hexdigest()[:16], splits


def _is_sound(folder: Path) -> bool:
    """Returns whether a prepared folder holds the text of its provenance, to the byte."""
    from calibtrain.data.corpora.builder import read_documents

    corpus = _read(folder, "")
    try:
        found = _measure(read_documents(folder / "records"))
    except Exception:  # readers of damaged records raise anything
        return False
    return corpus is not None and found == (
        corpus.provenance.content_hash,
        corpus.provenance.splits,
    )


def _read(folder: Path, name: str) -> Corpus | None:
    """Returns the corpus in a prepared folder, or None if it cannot be read."""
    from calibtrain.data.corpora.builder import read_documents

    try:
        tree = read_json(folder / "provenance.json")
        provenance = Provenance.from_dict(tree | {"name": name})
        records = read_documents(folder / "records")
        whole = all(
            len(records[split]) == size.documents and records[split][size.documents - 1]
            for split, size in provenance.splits.items()
        )
    except Exception:
        return None
    return Corpus(provenance, records) if whole else None
