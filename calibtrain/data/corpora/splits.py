"""Which documents train, which validate, which test: a pure function of their texts.

Documents are ranked by a hash of their text; the first share tests, the next validates, the rest
trains. Nothing is drawn at random, so the split is the same on every machine; identical texts have
one rank, so no text is on two sides; and growing a share only moves documents out of train.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt64

SPLITS = ("train", "validation", "test")


def text_key(text: str) -> int:
    """64 bits of SHA-256 of the UTF-8 text: the rank of a document in the split."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def assign_splits(
    keys: UInt64[np.ndarray, " documents"], shares: Mapping[str, float]
) -> Int[np.ndarray, " documents"] | None:
    """The split of each document, as an index into `SPLITS`.

    `shares` gives the share of the distinct texts that each held-out split takes; each gets its
    share, rounded, and at least one text, and train gets the rest, at least one.
    None if there are too few distinct texts for that.
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
