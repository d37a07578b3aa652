"""Tokens of a `tokenizer.json` beside its merges: marks that are never text, and pieces of text.

The tokenizers package cuts both kinds out of a text before anything else happens to it. Here a mark
("special": true) is never read in a text; a token that is text (a word, a run of spaces) is found
as that package finds it, and stands for the bytes it is spelled with.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from calibtrain.errors import UserError

ADDED_TEXT = "added_text"
"""The setting of a manifest that lists ids of added tokens that are text; absent in older ones,
whose texts are read without them."""
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """An added token.

    Attributes:
        id: its id.
        content: how it is spelled.
        flags: `special` and how it is found in a text, as the file has them.
    """

    id: int
    content: str
    flags: Mapping[str, Any]

    @property
    def is_special(self) -> bool:
        """Whether it is a mark, and no text. A token that does not say so is a mark."""
        return self.flags.get("special") is not False

    def to_json(self) -> dict[str, Any]:
        """The token as a `tokenizer.json` has it."""
        return {"id": self.id, "content": self.content, **self.flags}


def read_added_tokens(tree: Mapping[str, Any]) -> list[AddedToken]:
    """The added tokens of a parsed `tokenizer.json`, in its order.

    Raises:
        KeyError, TypeError, ValueError: where they are not a list of tokens.
    """
    found = []
    for token in tree.get("added_tokens") or ():
        index, content = token["id"], token["content"]
        if type(index) is not int or index < 0 or type(content) is not str:
            raise ValueError("an added token has no id or text")
        flags = {name: token[name] for name in _FLAGS if name in token}
        found.append(AddedToken(index, content, flags))
    return found


def require_distinct(vocabulary: Mapping[str, int], added: Sequence[AddedToken]) -> None:
    """Refuse a file in which an id has two tokens, or a token two ids.

    Raises:
        UserError: naming the first.
    """
    names: dict[int, str] = {}
    ids = dict(vocabulary)
    entries = [*vocabulary.items(), *((token.content, token.id) for token in added)]
    for content, index in entries:
        if names.setdefault(index, content) != content:
            raise UserError(
                f"id {index} is both {names[index][:60]!r} and {content[:60]!r}; the file is "
                "damaged"
            )
        if ids.setdefault(content, index) != index:
            raise UserError(
                f"{content[:60]!r} has the ids {ids[content]} and {index}; the file is damaged"
            )
    for content, count in Counter(token.content for token in added).items():
        if count > 1:
            raise UserError(f"added token {content[:60]!r} is listed twice; the file is damaged")


def text_tokens(added: Sequence[AddedToken], marks: Collection[int]) -> list[int]:
    """Ids of the added tokens that are text.

    Args:
        added: of a file.
        marks: ids that are never text, whatever the file says.

    Raises:
        UserError: naming a token that takes the white space around it, which does not come back,
            or whose flags are missing or not true or false.
    """
    found = []
    for token in added:
        for name in _FLAGS:
            if type(token.flags.get(name)) is not bool:
                said = (
                    f"is {str(token.flags[name])[:60]!r}" if name in token.flags else "is missing"
                )
                raise UserError(
                    f"added token {token.content[:60]!r}: {name} {said}; it must be true or false"
                )
        if token.is_special or token.id in marks or not token.content:
            continue
        if taking := [name for name in ("lstrip", "rstrip") if token.flags[name]]:
            raise UserError(
                f"added token {token.content[:60]!r} takes the white space beside it "
                f"({', '.join(taking)}), which does not come back byte for byte; only a lossless "
                "tokenizer can be used"
            )
        found.append(token.id)
    return sorted(found)
