"""Rules for the keys of imported files: nothing that a file asks for is ignored silently.

Each key is used, harmless (it changes neither logits nor tokens), refused unless it has its neutral
value, or unknown. An unknown key whose name suggests that it changes the computation is refused
unless it is empty or false; any other unknown key is named in a note.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from calibtrain.errors import UserError
from calibtrain.models.huggingface.parameters import listed

Neutral = tuple[Any, ...] | Callable[[Any], bool]
"""Neutral values beside null, or a function that returns whether a value is neutral."""
_EMPTY: tuple[Any, ...] = (None, False, "", [], {})


@dataclasses.dataclass(frozen=True)
class KeyRules:
    """The meaning of the keys of one kind of file.

    Attributes:
        harmless: pattern of whole names of keys that are used elsewhere or change nothing.
        neutral: by key, the values with which it changes nothing.
        computes: pattern in names of unknown keys that may change the computation.
    """

    harmless: re.Pattern[str]
    neutral: Mapping[str, Neutral]
    computes: re.Pattern[str]

    def review(
        self, tree: Mapping[str, Any], source: str, neutral: Mapping[str, Neutral] | None = None
    ) -> list[str]:
        """Returns notes on unknown keys of a file.

        Args:
            tree: the keys and values.
            source: name of the file in messages.
            neutral: further neutral values, of keys where they depend on other keys.

        Raises:
            UserError: where the file needs a feature that calibtrain does not have; it names it.
        """
        rules = {**self.neutral, **(neutral or {})}
        refused, unknown = [], []
        for key, value in tree.items():
            if key in rules:
                if not _is_neutral(value, rules[key]):
                    refused.append(f"{key} {shown(value)}{_allowed(rules[key])}")
            elif not self.harmless.fullmatch(key):
                if self.computes.search(key.lower()) and not _is_any(value, _EMPTY):
                    refused.append(f"{key} {shown(value)}")
                else:
                    unknown.append(key[:60])
        if refused:
            raise UserError(
                f"{source}: asks for what calibtrain does not have: {'; '.join(refused[:4])}"
                + (f" and {len(refused) - 4} more" if len(refused) > 4 else "")
            )
        if not unknown:
            return []
        return [f"{source.rsplit('/', 1)[-1]} has keys that are not known: {listed(unknown)}"]


def names(text: str) -> re.Pattern[str]:
    """Returns a pattern that matches any of the names in `text`; `*` stands for any characters."""
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in text.split()))


def _is_neutral(value: Any, rule: Neutral) -> bool:
    return value is None or (rule(value) if callable(rule) else _is_any(value, rule))


def _is_any(value: Any, choices: tuple[Any, ...]) -> bool:
    """Returns whether a value is one of several; 1 and 1.0 are equal, true and 1 are not."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in choices)


def shown(value: Any) -> str:
    """Returns a value as JSON, cut off if it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


def _allowed(rule: Neutral) -> str:
    if callable(rule) or not rule:
        return ""
    return f" (allowed: {', '.join(shown(value) for value in rule)})"
