"""The blocks of a page: tables with their cells, notes and sections, as data for the templates.

Cells show rounded numbers and hold exact ones in `data-` attributes; a figure without an interval
says why. Texts are plain: the templates escape them.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from calibtrain.figures.panels import Figure
from calibtrain.metrics.quantities import NOTHING, Quantity
from calibtrain.runs.evaluation_records import (
    EvaluationRecord,
    FrequencyMassRow,
    IntervalRecord,
    StratumRow,
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the visible text.
        kind: its class on the page, such as num.
        names_row: whether it is the row's title.
        small: text in small print below, such as a meaning or a step.
        half: an interval, below.
        exact: exact numbers by the name of their `data-` attribute.
        title: text shown on hover.
        mark: `code`, or `status` with its kind, around the text.
    """

    text: str = ""
    kind: str = ""
    names_row: bool = False
    small: str = ""
    half: str = ""
    exact: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    mark: str = ""

    @property
    def data(self) -> dict[str, str]:
        """The `data-` attributes, as JSON numbers."""
        return {f"data-{name}": json.dumps(value) for name, value in self.exact.items()}


@dataclass(frozen=True)
class Head:
    """A column's title with its unit below."""

    text: str
    unit: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table that scrolls inside its own box.

    A `quiet` caption is for screen readers only, as the heading above the table shows it. In a
    table that `explains`, a row's title has a line of its own on narrow screens.
    """

    shape: ClassVar[str] = "table"
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    quiet: bool = False
    explains: bool = False


@dataclass(frozen=True)
class Text:
    """A line of small print, a paragraph (`p`), or what was typed (`pre`)."""

    text: str
    shape: str = "note"


@dataclass(frozen=True)
class Pairs:
    """Pairs of a name and a text: facts side by side, or the items of a list (`items`)."""

    rows: Sequence[tuple[str, str]]
    shape: str = "facts"


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader can unfold."""

    shape: ClassVar[str] = "folded"
    title: str
    blocks: Sequence["Block"]


Block = Table | Text | Pairs | Folded


@dataclass(frozen=True)
class Section:
    """A titled part of the page; a section of kind `notice` is emphasised."""

    shape: ClassVar[str] = "section"
    anchor: str
    title: str
    blocks: Sequence[Block]
    kind: str = ""


@dataclass(frozen=True)
class NumberedFigure:
    """A numbered figure of the page, with the blocks below its caption."""

    shape: ClassVar[str] = "figure"
    number: int
    figure: Figure
    blocks: Sequence[Block] = ()

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return self.figure.anchor

    @property
    def title(self) -> str:
        """Its title in the list of contents."""
        return f"Figure {self.number}. {self.figure.title}"


def note(text: str) -> list[Block]:
    """Returns a line of small print; nothing for an empty text."""
    return [Text(text)] if text else []


def folded(title: str, blocks: Sequence[Block]) -> list[Block]:
    """Returns blocks that a reader can unfold; nothing if there are none."""
    return [Folded(title, blocks)] if blocks else []


def joined(values: Iterable[object]) -> str:
    """Returns the distinct values, separated by commas."""
    return ", ".join(dict.fromkeys(map(str, values)))


# --- heads and cells -----------------------------------------------------------------------------


def figure_heads(quantities: Iterable[Quantity], event: str = "token") -> list[Head]:
    """Returns the titles of columns of figures; units may depend on the event."""
    return [Head(each.name, each.unit_of(event), numeric=True) for each in quantities]


def titled(text: str, small: str = "", kind: str = "") -> Cell:
    """Returns a cell that names its row, with a text in small print."""
    return Cell(text, kind, names_row=True, small=small)


def code(text: str, *, shorten: int | None = None) -> Cell:
    """Returns a cell of a hash; a shortened one has the whole hash in its title."""
    short = text if shorten is None or len(text) <= shorten else text[:shorten] + "…"
    return Cell(short, title=text, mark="code")


def status(text: str, kind: str) -> Cell:
    """Returns a cell that shows a status."""
    return Cell(text, mark=f"status {kind}")


def num(value: float | None, show: Callable[[Any], str], why: str = "") -> Cell:
    """Returns a cell of a number; `why` says, on hover, why it has no interval."""
    if value is None:
        return Cell(NOTHING, "num", title=why)
    exact = json.dumps(value)
    return Cell(
        show(value), "num", exact={"value": value}, title=f"{exact}; {why}" if why else exact
    )


def mean(quantity: Quantity, value: float | None, half: float | None, seeds: int) -> Cell:
    """Returns a cell of a mean over seeds, with the half width of its interval."""
    if value is None or half is None:
        return num(value, quantity.show, "" if value is None else no_seed_interval(seeds))
    return Cell(
        quantity.show(value),
        "num",
        half=f"±\u200a{quantity.show_half(half)}",
        exact={"value": value, "half-width": half},
        title=f"{json.dumps(value)} ± {json.dumps(half)}",
    )


def estimate(
    value: float | None, show: Callable[[float], str], interval: IntervalRecord | None, why: str
) -> Cell:
    """Returns a cell of a figure with its 95 % interval over documents, or why it has none."""
    if value is None or interval is None:
        return num(value, show, why)
    low, high = interval.lower, interval.upper
    return Cell(
        show(value),
        "num",
        half=f"[{show(low)}, {show(high)}]",
        exact={"value": value, "lower": low, "upper": high},
        title=f"{json.dumps(value)}, 95 % interval over documents {json.dumps(low)} to "
        f"{json.dumps(high)} ({interval.method})",
    )


def apart(
    difference: float, show: Callable[[float], str], ends: tuple[float, float] | None, why: str = ""
) -> Cell:
    """Returns a cell of a difference with its interval, emphasised where that excludes 0."""
    if ends is None:
        return num(difference, show, why)
    low, high = ends
    return Cell(
        show(difference),
        "num apart" if low > 0 or high < 0 else "num",
        half=f"[{show(low)}, {show(high)}]",
        exact={"value": difference, "lower": low, "upper": high},
        title=f"{json.dumps(difference)}, 95 % interval {json.dumps(low)} to {json.dumps(high)}",
    )


def figure(
    found: EvaluationRecord | StratumRow | FrequencyMassRow, quantity: Quantity, why: str
) -> Cell:
    """Returns a cell of a figure of an evaluation, or of a group in it."""
    key = quantity.key
    return estimate(found.numbers.get(key), quantity.show, found.interval(key), why)


# --- why a figure has no interval ----------------------------------------------------------------


def no_seed_interval(seeds: int) -> str:
    """Returns why a mean over `seeds` seeds has no interval."""
    return "no interval: one seed" if seeds == 1 else "no interval over seeds was made"


def no_interval(evaluation: EvaluationRecord | None, key: str) -> str:
    """Returns why a figure of an evaluation has no interval over documents."""
    if evaluation is None:
        return "no interval: the evaluation's own file was not found"
    if "intervals" not in evaluation:
        return "no interval: the file is of a version that made none"
    if evaluation.documents < 2:
        return "no interval: one document"
    if not any((evaluation.intervals or {}).values()):
        return "no interval: one block of documents"
    if "ece_mass" in evaluation and not evaluation.interval("ece_mass"):
        return "no interval: in the midst of training only the main figures have one"
    return f"no interval is made for {key.replace('_', ' ')}"


def no_row_interval(tokens: float, whole: EvaluationRecord) -> str:
    """Returns why a figure of one group of a stratum has no interval."""
    if not tokens:
        return "no token is in this group"
    if whole.documents < 2 or not any((whole.intervals or {}).values()):
        return no_interval(whole, "")
    if not whole.interval("ece_mass"):
        return "no interval: in the midst of training groups have none"
    return "no interval: one document holds all of this group"
