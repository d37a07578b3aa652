"""Splits of documents into train, validation and test: a pure function of their texts.

Documents are ranked by a hash of their text; the first share is for test, the next for validation,
the rest for training. Nothing is drawn at random, so the split is the same on every machine.
Identical texts have one rank, so no text is in two splits. A larger share only moves documents out
of train.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt64

SPLITS = ("train", "validation", "test")


def text_key(text: str) -> int:
    """Returns 64 bits of the SHA-256 of the UTF-8 text, by which documents are ranked."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def sample_key(text: str) -> int:
    """Returns a key that says nothing about a text's split, to draw samples by."""
    return text_key(f"sample\0{text}")


def draw_sample(
    keys: UInt64[np.ndarray, " documents"],
    sizes: UInt64[np.ndarray, " documents"],
    wanted: int,
) -> Int[np.ndarray, " sample"]:
    """Returns the numbers of documents that hold about so many bytes, in ascending order.

    Documents are taken in the order of their keys; the last one is left out where the sample is
    nearer to what is wanted without it.
    """
    order = np.argsort(keys, kind="stable")
    held = np.cumsum(sizes[order].astype(np.int64))
    count = int(np.searchsorted(held, wanted)) + 1
    if 1 < count <= len(held) and held[count - 1] - wanted > wanted - held[count - 2]:
        count -= 1
    return np.sort(order[:count])


def assign_splits(
    keys: UInt64[np.ndarray, " documents"], shares: Mapping[str, float]
) -> Int[np.ndarray, " documents"] | None:
    """Returns the split of each document, as an index into `SPLITS`.

    `shares` gives the share of the distinct texts that each held-out split gets: it is rounded, and
    at least one text. Train gets the rest, at least one text. Returns None if there are too few
    distinct texts.
    """
    distinct, rank = np.unique(keys, return_inverse=True)
    held_out = [name for name in ("test", "validation") if name in shares]
    if distinct.size < len(held_out) + 1:
        return None
    counts = [max(1, round(shares[name] * distinct.size)) for name in held_out]
    while sum(counts) >= distinct.size:
        counts[int(np.argmax(counts))] -= 1
    side = np.zeros(distinct.size, np.int8)
    start = 0
    for name, count in zip(held_out, counts, strict=True):
        side[start : start + count] = SPLITS.index(name)
        start += count
    return side[rank]
