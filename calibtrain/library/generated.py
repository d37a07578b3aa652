"""`Generated`: texts that a run generated, with their trace as a table; `Listed` shows texts."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from calibtrain.library.table import Table

if TYPE_CHECKING:
    from calibtrain.generation.generate import GeneratedText
    from calibtrain.generation.of_run import Generation

_SHOWN = 4
_WIDEST = 72


class Listed:
    """Texts that show themselves as a short list: the first few, each with why it ended.

    Attributes:
        texts: the characters of each, in the order of their numbers.
        details: of each, what is known of it.
    """

    texts: tuple[str, ...]
    details: Sequence[Any]

    @property
    def _title(self) -> str:
        """How they were made, behind their number."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.texts)

    def _lines(self) -> list[str]:
        lines = [f"{len(self)} text{'s' * (len(self) != 1)}{self._title}"]
        for number, text in enumerate(self.details[:_SHOWN]):
            start = repr(text.text)
            start = start if len(start) <= _WIDEST else f"{start[: _WIDEST - 1]}…"
            lines.append(f"{number} ({text.finish_reason}, {text.bytes:,} bytes): {start}")
        if len(self) > _SHOWN:
            lines.append(f"and {len(self) - _SHOWN:,} more")
        return lines

    def __repr__(self) -> str:
        return f"<{(chr(10) + '  ').join(self._lines())}>"

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, self._lines()))


class Generated(Listed):
    """The texts of one request.

    Attributes:
        texts: the characters of each, in the order of their numbers.
        details: of each: why it ended, its tokens and bytes, its information and entropy in bits.
        about: run, step, seed and sampling.
        path: the file that holds the trace; None where it is not kept.
    """

    def __init__(self, found: "Generation"):
        """Args:
        found: what was generated.
        """
        self.details: tuple[GeneratedText, ...] = found.texts
        self.texts = tuple(text.text for text in found.texts)
        self.about, self.path = dict(found.record.about), found.path
        self._record = found.record

    @property
    def trace(self) -> Table:
        """One row per token, the prompts' too (docs/generation.md lists the columns)."""
        return Table(self._record.table)

    @property
    def _title(self) -> str:
        return f", seed {self.about['seed']}"
