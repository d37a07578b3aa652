"""The text that a tokenizer is trained on: all of a corpus, or a sample drawn by hashes.

Memory of training grows with its text, so that a large corpus is sampled. What is drawn depends on
the seed and on the texts of the documents alone: not on their order, their names, or how many cores
or processes there are.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from calibtrain.data.corpora.splits import draw_sample, text_key
from calibtrain.data.tokenizers.encoder import HasText
from calibtrain.process.phases import Phase

SAMPLE = "sample"
"""The setting of a manifest that says how the training text was sampled; absent where all of it
was read."""
PIECE = 2**18
"""Characters of a piece. A longer document is drawn in pieces, so that a sample of a few very long
documents is no larger than asked for."""


def sample_settings(
    wanted: int | None, seed: int, size: int, documents: int
) -> dict[str, dict[str, int]]:
    """Returns what a manifest says of a sample; {} where the text is not larger than the sample.

    Args:
        wanted: bytes of the sample; None means all text.
        seed: seed of the hash by which it is drawn.
        size: bytes of the text.
        documents: how many documents the text has.

    Example:
        >>> sample_settings(1_000, 0, size=800, documents=3)
        {}
        >>> sample_settings(1_000, 0, size=8_000, documents=30)
        {'sample': {'bytes': 1000, 'seed': 0, 'of_bytes': 8000, 'of_documents': 30}}
    """
    if wanted is None or size <= wanted:
        return {}
    about = {"bytes": wanted, "seed": seed, "of_bytes": size, "of_documents": documents}
    return {SAMPLE: about}


class AllTexts(Sequence[str]):
    """The texts of documents in their order, each read when it is needed."""

    def __init__(self, documents: Sequence[HasText]):
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: Any) -> Any:
        return self._documents[index].text


class Part(NamedTuple):
    """Characters start..stop of a document."""

    document: int
    start: int
    stop: int


class SampledTexts(Sequence[str]):
    """Documents, or pieces of long ones, in the order of their hashes, read when needed.

    Attributes:
        documents: how many documents have a part in the sample.
    """

    def __init__(self, documents: Sequence[HasText], parts: Int[np.ndarray, "parts 3"]):
        self._documents, self._parts = documents, parts
        self.documents = len(np.unique(parts[:, 0]))
        self._last = -1, ""

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        document, start, stop = (int(value) for value in self._parts[index])
        if self._last[0] != document:
            self._last = document, self._documents[document].text
        return self._last[1][start:stop]


def draw_texts(documents: Sequence[HasText], about: dict[str, int]) -> SampledTexts:
    """Returns the sample that `sample_settings` describes, from one reading of all documents.

    Args:
        documents: of the training text.
        about: bytes of the sample, its seed, and the bytes of all documents.
    """
    phase = Phase("drawing the tokenizer's sample", about["of_bytes"])
    prefix = f"tokenizer sample {about['seed']}\0"
    keys, sizes, parts = array("Q"), array("Q"), array("q")
    for number, document in enumerate(documents):
        size = 0
        for start, stop in pieces(document.text):
            text = document.text[start:stop]
            keys.append(text_key(prefix + text))
            sizes.append(len(text.encode()))
            parts.extend((number, start, stop))
            size += sizes[-1]
        phase.add(size)
    found = np.array(keys, np.uint64)
    taken = draw_sample(found, np.array(sizes, np.uint64), about["bytes"])
    taken = taken[np.argsort(found[taken], kind="stable")]
    return SampledTexts(documents, np.array(parts, np.int64).reshape(-1, 3)[taken])


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Yields where the pieces of a text start and stop: after a newline, if they have one.

    Example:
        >>> list(pieces("a line"))
        [(0, 6)]
    """
    start = 0
    while len(text) - start > PIECE:
        newline = text.rfind("\n", start, start + PIECE)
        stop = newline + 1 if newline >= start else start + PIECE
        yield start, stop
        start = stop
    yield start, len(text)
