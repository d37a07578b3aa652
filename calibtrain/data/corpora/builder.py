"""The TFDS builder that writes every corpus: documents in order, as `array_record`.

Importing this file imports TFDS (about half a second), so only `corpus` does so, when needed.
"""

import contextlib
import errno
import io
import os
import struct
from array import array
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from calibtrain.data.corpora.documents import Document
from calibtrain.process.phases import Phase

SHARD = 2**26
"""Bytes of a shard; TFDS holds about so much in memory while it writes."""
_HEADER = struct.Struct("<QQQ")


class Spool:
    """Documents kept in one temporary file, to be read back in any order.

    A source is read once, and the split of a document is only known after the last document.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._offsets, self._sizes = array("Q"), array("Q")

    def append(self, document: Document) -> None:
        """Writes a document to the file."""
        parts = [part.encode() for part in (document.id, document.text, document.group)]
        self._offsets.append(self._file.tell())
        self._sizes.append(sum(map(len, parts)))
        self._file.write(_HEADER.pack(*map(len, parts)) + b"".join(parts))

    def __len__(self) -> int:
        return len(self._offsets)

    def size_of(self, numbers: Any) -> int:
        """Returns the bytes of one document or several."""
        return int(np.frombuffer(self._sizes, np.uint64)[numbers].sum()) if self._sizes else 0

    def shards(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Returns the numbers in groups of consecutive documents of about `SHARD` bytes."""
        before = np.cumsum(np.frombuffer(self._sizes, np.uint64)[numbers].astype(np.int64))
        edges = np.flatnonzero(np.diff(before // SHARD)) + 1
        return np.split(numbers, edges)

    def read(self, numbers: np.ndarray) -> Iterator[Document]:
        """Yields the documents of these numbers, in this order."""
        for number in numbers:
            self._file.seek(self._offsets[number])
            sizes = _HEADER.unpack(self._file.read(_HEADER.size))
            yield Document(*(self._file.read(size).decode() for size in sizes))


class DocumentsBuilder(
    tfds.core.ShardBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Writes the documents of a spool, split by split and shard by shard.

    TFDS holds a shard in memory while it writes it. A builder that leaves the shards to TFDS holds
    up to 1 GiB of a split, and needs TensorFlow beyond that.
    """

    name = "documents"
    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS would look for checksums of downloads, which there are not

    def __init__(self, spool: Spool, numbers: Mapping[str, np.ndarray], **options: Any):
        self._spool, self._numbers = spool, numbers
        self._phase = Phase("writing the corpus", sum(map(spool.size_of, numbers.values())))
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"id": text, "text": text, "group": text}),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Any]]:
        return {
            split: [partial(self._examples, shard) for shard in self._spool.shards(numbers)]
            for split, numbers in self._numbers.items()
        }

    def _examples(self, numbers: np.ndarray) -> Iterator[tuple[int, dict[str, str]]]:
        for number, document in zip(numbers, self._spool.read(numbers), strict=True):
            yield int(number), {"id": document.id, "text": document.text, "group": document.group}
            self._phase.add(self._spool.size_of(number))


def write_documents(spool: Spool, numbers: Mapping[str, np.ndarray], folder: Path) -> Path:
    """Writes the splits under `folder` and returns the folder of the record files.

    Raises:
        OSError: when the disk is full or may not be written.
    """
    builder = DocumentsBuilder(spool, numbers, data_dir=str(folder), file_format="array_record")
    shown = tqdm_utils._active
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except RuntimeError as error:
        raise disk_error(error) or error from None
    finally:
        tfds.display_progress_bar(shown)
    return Path(builder.data_dir)


def disk_error(error: Exception) -> OSError | None:
    """Returns the OSError behind an error, or None; the record writer only quotes it as text."""
    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
    if isinstance(error, OSError) and error.errno in refusals:
        return error
    quoted = [code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code) in str(error)]
    return OSError(quoted[0], os.strerror(quoted[0])) if quoted else None


def read_documents(folder: Path) -> dict[str, Any]:
    """Returns each split's records as a random-access data source; texts are UTF-8 bytes."""
    with contextlib.redirect_stdout(io.StringIO()):
        return dict(tfds.builder_from_directory(str(folder)).as_data_source())
