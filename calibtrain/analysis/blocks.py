"""A text cut into blocks of bytes, so that a test reads it alike in every vocabulary."""

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.tokenizers.tokenizer import utf8_bytes

BLOCK = 16
"""Bytes of a block, at least: a block ends with the token that completes it."""


class Blocks:
    """Adds tokens up to blocks, as they come.

    Example:
        >>> blocks = Blocks(size=4)
        >>> [blocks.read((bits, 0.0), size) for bits, size in ((3.0, 2), (5.0, 2), (1.0, 1))]
        [None, (2.0, 0.0), None]
        >>> blocks.byte
        5
    """

    def __init__(self, size: int = BLOCK, byte: int = 0):
        """Args:
        size: bytes of a block, at least.
        byte: of the text, at which the first block begins.
        """
        self.byte, self._size = byte, size
        self._sums, self._bytes = (0.0, 0.0), 0

    def read(self, bits: tuple[float, float], size: int) -> tuple[float, float] | None:
        """Reads two quantities of a token; returns those of the block that it completes, a byte."""
        self._sums = self._sums[0] + bits[0], self._sums[1] + bits[1]
        self._bytes += size
        self.byte += size
        if self._bytes < self._size:
            return None
        found = self._sums[0] / self._bytes, self._sums[1] / self._bytes
        self._sums, self._bytes = (0.0, 0.0), 0
        return found


def blocks_of(
    bits: Float[np.ndarray, "tokens 2"], sizes: Int[np.ndarray, " tokens"], size: int = BLOCK
) -> tuple[Int[np.ndarray, " blocks"], Int[np.ndarray, " blocks"], Float[np.ndarray, "blocks 2"]]:
    """Returns the blocks of a text: their last tokens, the bytes at which they end, bits a byte.

    Tokens after the last whole block are left out.

    Args:
        bits: two quantities of each token.
        sizes: its bytes.
        size: bytes of a block, at least.
    """
    blocks, tokens, ends, rates = Blocks(size), [], [], []
    for token, ((one, other), length) in enumerate(zip(bits.tolist(), sizes.tolist(), strict=True)):
        if (rate := blocks.read((one, other), length)) is not None:
            tokens.append(token)
            ends.append(blocks.byte)
            rates.append(rate)
    found = np.array(rates, np.float64).reshape(-1, 2)
    return np.array(tokens, np.int64), np.array(ends, np.int64), found


def first_bytes(text: str, limit: int) -> str:
    """Returns the whole characters among a text's first bytes.

    Example:
        >>> first_bytes("née", 2)
        'n'
    """
    return utf8_bytes(text)[:limit].decode(errors="ignore")
