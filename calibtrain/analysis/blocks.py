"""A text cut into blocks of bytes, so that a test reads it alike in every vocabulary."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

BLOCK = 16
"""Bytes of a block, at least: a block ends with the token that completes it."""


class Blocks:
    """Adds tokens up to blocks, as they come.

    Example:
        >>> blocks = Blocks(size=4)
        >>> [blocks.read(bits, size) for bits, size in ((3.0, 2), (5.0, 2), (1.0, 1))]
        [None, 2.0, None]
        >>> blocks.byte
        5
    """

    def __init__(self, size: int = BLOCK, byte: int = 0):
        """Args:
        size: bytes of a block, at least.
        byte: of the text, at which the first block begins.
        """
        self.byte, self._size = byte, size
        self._bits, self._bytes = 0.0, 0

    def read(self, bits: float, size: int) -> float | None:
        """Reads a token; returns the bits a byte of the block that it completes, if it does."""
        self._bits += bits
        self._bytes += size
        self.byte += size
        if self._bytes < self._size:
            return None
        rate = self._bits / self._bytes
        self._bits, self._bytes = 0.0, 0
        return rate


def blocks_of(
    bits: Sequence[float] | Float[np.ndarray, " tokens"],
    sizes: Sequence[int] | Int[np.ndarray, " tokens"],
    size: int = BLOCK,
) -> tuple[Int[np.ndarray, " blocks"], Int[np.ndarray, " blocks"], Float[np.ndarray, " blocks"]]:
    """Returns the blocks of a text: their last tokens, the bytes at which they end, bits a byte.

    Tokens after the last whole block are left out.

    Args:
        bits: of each token.
        sizes: its bytes.
        size: bytes of a block, at least.
    """
    blocks, tokens, ends, rates = Blocks(size), [], [], []
    for token, (own, length) in enumerate(zip(bits, sizes, strict=True)):
        if (rate := blocks.read(float(own), int(length))) is not None:
            tokens.append(token)
            ends.append(blocks.byte)
            rates.append(rate)
    return np.array(tokens, np.int64), np.array(ends, np.int64), np.array(rates, np.float64)
