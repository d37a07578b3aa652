"""Samples of one prompt token by token: each aligned with the sample that is most like all others.

References:
    Wagner and Fischer (1974), The String-to-String Correction Problem.
"""

import dataclasses
import re
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Letters of scripts that write no space between words: Thai, Lao, Burmese, Khmer, kana, Han."""
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


@dataclasses.dataclass(frozen=True)
class TokenAgreement:
    """How far samples agree at each token of a reference.

    Attributes:
        reference: number of the sample that gives the columns.
        columns: its tokens.
        cells: of each sample and column the token that is aligned there; None where it has none.
        agreement: of each sample and column, the share of the other samples that have the same
            token there. NaN where this one has none, and for a single sample.
        inserted: tokens of each sample that are aligned with no column.
    """

    reference: int
    columns: list[Hashable]
    cells: list[list[Hashable | None]]
    agreement: Float[np.ndarray, "samples columns"]
    inserted: list[int]


def words(text: str) -> list[str]:
    """Returns the words of a text; of scripts without spaces, each letter is one.

    Example:
        >>> words("The sea, 海は"), words("")
        (['The', 'sea,', '海', 'は'], [])
    """
    return _WORD.findall(text)


def align(
    reference: Int[np.ndarray, " columns"], other: Int[np.ndarray, " tokens"]
) -> Int[np.ndarray, " columns"]:
    """Returns the token of `other` that is aligned with each of a reference, -1 where none is.

    An alignment of the least Levenshtein distance: a token is replaced, left out or inserted at the
    cost of 1. Of several, one that aligns the first tokens with each other, as far as it can.

    Example:
        >>> align(np.array([7, 8, 9]), np.array([7, 9])).tolist()
        [0, -1, 1]
        >>> align(np.array([7, 8, 9]), np.array([1])).tolist()
        [0, -1, -1]
    """
    rows, columns = len(reference), np.arange(len(other) + 1)
    # Row r holds the distances of what follows token r, so that the way back begins at the first.
    table = np.empty((rows + 1, len(other) + 1), np.int32)
    table[rows] = columns[::-1]
    # An insertion comes from the right in the same row: a running minimum, once each column's
    # number is added.
    for row in range(rows - 1, -1, -1):
        found = table[row + 1] + 1
        found[:-1] = np.minimum(found[:-1], table[row + 1, 1:] + (other != reference[row]))
        table[row] = np.minimum.accumulate((found + columns)[::-1])[::-1] - columns
    places = np.full(rows, -1)
    row = column = 0
    while row < rows:
        here = table[row, column]
        if column < len(other) and here == table[row + 1, column + 1] + (
            other[column] != reference[row]
        ):
            places[row] = column
            row, column = row + 1, column + 1
        elif here == table[row + 1, column] + 1:
            row += 1
        else:
            column += 1
    return places


def token_agreement(samples: Sequence[Sequence[Hashable]], reference: int) -> TokenAgreement:
    """Returns how far samples agree at each token of one of them.

    Args:
        samples: the tokens of each.
        reference: number of the sample that all others are aligned with.

    Raises:
        IndexError: where there is no such sample.

    Example:
        >>> found = token_agreement(["abc", "abd", "ac"], reference=0)
        >>> found.cells
        [['a', 'b', 'c'], ['a', 'b', 'd'], ['a', None, 'c']]
        >>> found.agreement.tolist()
        [[1.0, 0.5, 0.5], [1.0, 0.5, 0.0], [1.0, nan, 0.5]]
    """
    names: dict[Hashable, int] = {}
    codes = [
        np.array([names.setdefault(token, len(names)) for token in each], int) for each in samples
    ]
    places = np.stack([align(codes[reference], each) for each in codes])
    found = np.full(places.shape, -1)
    for row, (place, code) in enumerate(zip(places, codes, strict=True)):
        found[row, place >= 0] = code[place[place >= 0]]
    same = (found[:, None] == found).sum(1) - 1  # sample, column; itself is not another
    tokens, others = list(names), len(samples) - 1
    return TokenAgreement(
        reference=reference,
        columns=list(samples[reference]),
        cells=[[None if code < 0 else tokens[code] for code in row] for row in found],
        agreement=np.where((found >= 0) & (others > 0), same / max(others, 1), np.nan),
        inserted=[
            int(len(each) - (row >= 0).sum()) for each, row in zip(codes, places, strict=True)
        ],
    )
