"""Added tokens of a `tokenizer.json`: special tokens, which are never text, and pieces of text.

The tokenizers package cuts both kinds out of a text before anything else. Here a special token (a
mark: "special": true) is never found in a text. A token that is text (a word, a run of spaces) is
found as that package finds it where marks in a text are letters (`encode_special_tokens`), and
stands for the bytes of its spelling. It is not found inside the spelling of a mark.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from calibtrain.errors import UserError

ADDED_TEXT = "added_text"
"""The setting of a manifest that lists the ids of added tokens that are text. Older manifests do
not have it, and their texts are encoded without such tokens."""
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """An added token.

    Attributes:
        id: its id.
        content: its spelling.
        flags: `special`, and how it is found in a text, as in the file.
    """

    id: int
    content: str
    flags: dict[str, Any]

    @property
    def is_special(self) -> bool:
        """Whether it is a mark and not text; a token without the flag is a mark."""
        return self.flags.get("special") is not False

    def to_json(self) -> dict[str, Any]:
        """Returns the token in the form of a `tokenizer.json`."""
        return {"id": self.id, "content": self.content, **self.flags}


def read_added_tokens(tree: Mapping[str, Any]) -> list[AddedToken]:
    """Returns the added tokens of a parsed `tokenizer.json`, in its order.

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
    """Refuses a file in which an id has two tokens, or a token has two ids.

    Raises:
        UserError: for the first such id or token.
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
    """Returns the ids of the added tokens that are text.

    Args:
        added: the added tokens of a file.
        marks: ids that are never text, regardless of the file.

    Raises:
        UserError: for a token that swallows the white space around it, which would be lost, or
            whose flags are missing or not true or false.
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
