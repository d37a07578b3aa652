"""Which keys of others' files are understood: nothing that they ask for is ignored silently.

Each key is used, harmless (it changes neither logits nor tokens), refused unless it has its neutral
value, or unknown. An unknown key that by its name may change what is computed is refused unless it
is empty or false; any other is named in a note.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from calibtrain.errors import UserError
from calibtrain.models.huggingface.parameters import listed

Neutral = tuple[Any, ...] | Callable[[Any], bool]
"""Values that ask for nothing, beside null; or whether a value does."""
_EMPTY: tuple[Any, ...] = (None, False, "", [], {})


@dataclasses.dataclass(frozen=True)
class KeyRules:
    """What the keys of a kind of file mean.

    Attributes:
        harmless: whole names of keys that are used elsewhere or change nothing, as an expression.
        neutral: by key, the values with which it asks for nothing.
        computes: finds in the name of an unknown key that it may change what is computed.
    """

    harmless: re.Pattern[str]
    neutral: Mapping[str, Neutral]
    computes: re.Pattern[str]

    def review(
        self, tree: Mapping[str, Any], source: str, neutral: Mapping[str, Neutral] | None = None
    ) -> list[str]:
        """Notes on the keys of a file that are not known.

        Args:
            tree: the keys and values.
            source: what messages call the file.
            neutral: as the attribute, for keys whose neutral value depends on the others.

        Raises:
            UserError: naming what the file asks for and calibtrain does not have.
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
    """The expression that matches each of some names, which white space parts; `*` is any text."""
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in text.split()))


def _is_neutral(value: Any, rule: Neutral) -> bool:
    return value is None or (rule(value) if callable(rule) else _is_any(value, rule))


def _is_any(value: Any, choices: tuple[Any, ...]) -> bool:
    """Whether a value is one of some; 1 and 1.0 are the same number, true and 1 are not."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in choices)


def shown(value: Any) -> str:
    """A value as JSON, cut off where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


def _allowed(rule: Neutral) -> str:
    if callable(rule) or not rule:
        return ""
    return f" (allowed: {', '.join(shown(value) for value in rule)})"
