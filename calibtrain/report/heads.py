"""The comparison of temperature heads as tables: figures, and their differences from no head."""

from collections.abc import Mapping

from calibtrain.figures.display import duration, plural, text_bytes
from calibtrain.metrics.quantities import COMPARED, NOTHING, QUANTITIES, number
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    apart,
    figure_heads,
    note,
    num,
    titled,
)
from calibtrain.report.tables import notes
from calibtrain.runs.records import HeadComparisonRecord, HeadRow, HeadTable

HEAD_DECIMALS = 4
"""Decimals of the figures of heads, whose differences are small."""
_ALONE = ("bits_per_byte",)
"""Figures without a column of differences: those of bits per byte are those of the NLL, scaled."""
_APART = tuple(key for key in COMPARED if key not in _ALONE)


def heads_blocks(found: HeadComparisonRecord) -> list[Block]:
    """Returns the comparison of temperature heads, with one table per corpus."""
    text = (
        f"Fitted on {found.fitted_on.corpus}-{found.fitted_on.split} to the frozen model of step "
        f"{found.checkpoint.step:,}. Differences are to no head, over the same documents, with "
        "95 % intervals; those that exclude 0 are bold, and where an interval holds 0 the text "
        "does not tell the two apart. A head that lowers the ECE and raises the NLL has made the "
        "predictions worse."
    )
    heads = [Head("Head")]
    for quantity in (QUANTITIES[key] for key in _APART):
        heads += [*figure_heads([quantity]), Head("Difference", "to no head", numeric=True)]
    heads += [
        *figure_heads([QUANTITIES[key] for key in _ALONE]),
        Head("Parameters", numeric=True),
        Head("Fitted in", numeric=True),
    ]
    heads += figure_heads(QUANTITIES[key] for key in _ALONE)
    tables = [
        Table(
            f"{corpus.name} ({'in domain' if corpus.in_domain else 'out of domain'})"
            f"{_head_limits(corpus)}",
            heads,
            [
                [
                    titled(row.head, _cost(row), "titled"),
                    *(cell for key in _APART for cell in _head_cells(row, key)),
                    *(num(row.numbers[key], QUANTITIES[key].show) for key in _ALONE),
                ]
                for row in corpus.rows
            ],
        )
        for corpus in found.corpora
    ]
    noted = [(corpus.name, text) for corpus in found.corpora for text in corpus.notes or ()]
    return [*tables, *notes(noted), *note(text)]


def _cost(row: HeadRow) -> str:
    """Returns how many parameters a head has, and how long they took to fit."""
    if not row.parameters:
        return ""
    return f"{plural(row.parameters, 'parameter')}, {duration(row.seconds)}"


def _head_limits(table: HeadTable) -> str:
    """Returns how much text heads were measured on."""
    size = next((row.numbers["bytes"] for row in table.rows if "bytes" in row.numbers), None)
    said = [] if size is None else [text_bytes(size)]
    said += [] if table.documents is None else [plural(table.documents, "document")]
    asked = "the whole split" if table.limit is None else f"a limit of {text_bytes(table.limit)}"
    return f": {' in '.join(said)}, {asked}" if said else f": {asked}"


def _head_cells(row: HeadRow, key: str) -> list[Cell]:
    """Returns a figure of a head, and its difference from no head."""
    quantity, found = QUANTITIES[key], (row.differences or {}).get(key)
    value = num(row.numbers[key], lambda amount: quantity.show(amount, HEAD_DECIMALS))
    if found is None:
        return [value, Cell("" if row.head == "none" else NOTHING, "num")]

    def show(amount: float) -> str:
        return number(amount, HEAD_DECIMALS, signed=True)

    return [value, apart(found.difference, show, (found.lower, found.upper))]


def head_signatures(found: HeadComparisonRecord) -> dict[str, list[Mapping[str, str]]]:
    """Returns the signatures of every head's figures, by corpus and head."""
    return {
        f"{corpus.name}: {row.head}": [row.signatures or {}]
        for corpus in found.corpora
        for row in corpus.rows
    }
