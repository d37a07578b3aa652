"""Prompts cut from documents: the same text for every vocabulary, at most one of a document."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from calibtrain.data.corpora.documents import Document


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A piece of a document, after which a model goes on.

    Attributes:
        document: the name of the document.
        text: the characters before the position.
        continuation: what the document says from there on.
    """

    document: str
    text: str
    continuation: str


def cut_prompts(
    documents: Iterable[Document], *, count: int, characters: int, seed: int = 0
) -> list[Prompt]:
    """Returns prompts from randomly drawn documents, at positions that are drawn evenly.

    Prompts of different documents are independent, so that intervals over prompts are intervals
    over documents. A position may lie inside a word, never inside a character.

    Args:
        documents: what the prompts are cut from. Those with fewer than `characters` characters give
            none.
        count: prompts; fewer are returned where fewer documents are long enough.
        characters: length of each prompt.
        seed: of the draw. The result depends on it and on the documents alone.

    Raises:
        ValueError: for a count or length below 1.

    Example:
        >>> texts = [Document("a", "In the beginning"), Document("b", "short")]
        >>> cut_prompts(texts, count=2, characters=6)
        [Prompt(document='a', text='ginnin', continuation='g')]
    """
    for name, value in (("count", count), ("characters", characters)):
        if value < 1:
            raise ValueError(f"{name}: {value!r}: must be at least 1")
    long = [each for each in documents if len(each.text) >= characters]
    rng = np.random.default_rng(seed)
    found = []
    for index in rng.permutation(len(long))[:count].tolist():
        text = long[index].text
        end = int(rng.integers(characters, len(text) + 1))
        found.append(Prompt(long[index].id, text[end - characters : end], text[end:]))
    return found
