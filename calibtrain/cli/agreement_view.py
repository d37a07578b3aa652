"""What `consistency` shows in a terminal: measures, answers, and both heat maps in colours."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from calibtrain.cli.result_tables import print_table
from calibtrain.process.output import can_print

_SHADES, _PLAIN = " ░▒▓█", " .-+#"
_COLOURS = ("grey35", "red", "yellow", "", "green")
"""Colours of tokens, from one that no other sample has to one that all others have."""
_SHOWN_ANSWERS, _SHOWN_SAMPLES = 10, 64
MEASURES = {
    "agreement": "agreement",
    "held_out": "held-out agreement",
    "entropy": "entropy, by answers",
    "entropy_by_samples": "entropy, by samples",
    "fsd": "first-second distance",
}
"""Measures of answers, and what they are called."""


def show_consistency(document: Mapping[str, Any]) -> None:
    """Prints the measures, the answers and the heat maps of a document of `--json`."""
    print_table(_measures(document))
    print()
    if document["answers"]:
        print_table(_answers(document))
    if len(document["samples"]) > 1:
        print()
        _show_matrix(document)
        print()
        _show_tokens(document)
        if (rest := len(document["samples"]) - _SHOWN_SAMPLES) > 0:
            print(f"({rest} more samples; --figure FILE.html draws all)")


def _measures(document: Mapping[str, Any]) -> Table:
    table = Table(show_edge=False, title=_title(document), title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, name in MEASURES.items():
        value = document[key]
        table.add_row(name, "undefined" if value is None else f"{value:.3f}")
    chosen = document["chosen"]
    for name, own in document["similarity"].items():
        for key in ("degree", "eccentricity", "eigenvalue"):
            table.add_row(f"{key}, {name}", f"{own[key]:.3f}")
        if own["cocoa"] is not None and chosen is not None:
            table.add_row(f"CoCoA of the answer, {name}, bits", f"{own['cocoa'][chosen]:.3f}")
    return table


def _title(document: Mapping[str, Any]) -> str:
    count, without = len(document["samples"]), document["without_answer"]
    found = f"{count} sample{'s' * (count != 1)}"
    if without == count:
        return f"{found}, none with an answer: the measures of answers are undefined"
    return f"{found}, {without} without an answer" if without else found


def _answers(document: Mapping[str, Any]) -> Table:
    from calibtrain.figures.agreement import cut, printable

    table = Table(show_edge=False)
    table.add_column("answer", overflow="fold")
    table.add_column("samples", justify="right")
    answers = document["answers"]
    for each in answers[:_SHOWN_ANSWERS]:
        table.add_row(escape(cut(printable(each["answer"]), 60)), str(each["samples"]))
    if rest := answers[_SHOWN_ANSWERS:]:
        table.add_row(f"({len(rest)} more)", str(sum(each["samples"] for each in rest)))
    return table


def _show_matrix(document: Mapping[str, Any]) -> None:
    """Prints a cell for each two samples, in the order of their answers."""
    from calibtrain.figures.agreement import sample_label, sample_order

    order, matrix = sample_order(document)[:_SHOWN_SAMPLES], document["matrix"]
    shades = _SHADES if can_print(_SHADES) else _PLAIN
    print(f"similarity of each two samples ({document['matrix_of']}), by answer:")
    labels = [sample_label(document, i) for i in order]
    width = max(map(cell_len, labels))
    for i, label in zip(order, labels, strict=True):
        row = "".join(shades[round(matrix[i][j] * (len(shades) - 1))] for j in order)
        print(f"{label}{' ' * (width - cell_len(label))} {row}")


def _show_tokens(document: Mapping[str, Any]) -> None:
    """Prints each sample along the central one, its tokens coloured by agreement."""
    from calibtrain.figures.agreement import sample_order, shown

    found = document["aligned"]
    print(
        f"tokens along sample {found['reference']}: green, all others have the same; "
        "red, few; grey, none; _ stands for no token"
    )
    given = document["samples"][0]["finish_reason"] == "given"  # aligned by words, without spaces
    console = Console(highlight=False)
    for i in sample_order(document)[:_SHOWN_SAMPLES]:
        line = Text().append(f"{i:>3}", "dim")
        for token, share in zip(found["cells"][i], found["agreement"][i], strict=True):
            line.append(" " * (given or len(line) == 3))
            line.append("_" if token is None else shown(token), _colour(share))
        console.print(line, soft_wrap=True)


def _colour(share: float | None) -> str:
    return _COLOURS[min(4, 1 + int(share * 3.999)) if share else 0]


def show_questions(document: Mapping[str, Any]) -> None:
    """Prints the calibration of each measure over questions, and how it changes with samples."""
    figures = document["figures"]
    columns = ("brier", "ece", "area_under_roc", "prediction_rejection_ratio")
    names = ("Brier", "ECE", "AUROC", "PRR")
    undefined = document["undefined"]
    title = f"{document['questions']} questions, {document['samples']} samples each; accuracy "
    title += _figure(document["accuracy"])
    if undefined:
        title += f"; {undefined} without any answer are not in the rows below"
    table = Table(show_edge=False, title=title, title_justify="left")
    table.add_column("measure")
    for name in names:
        table.add_column(name, justify="right")
    last = document["sample_counts"][-1]
    for row in (each for each in figures if each["samples"] == last):
        table.add_row(row["measure"], *(_figure(row[key]) for key in columns))
    print_table(table)
    for key, name in zip(columns, names, strict=True):
        print()
        print_table(_by_samples(figures, key, name, document["sample_counts"]))


def _by_samples(
    figures: Sequence[Mapping[str, Any]], key: str, name: str, counts: Sequence[int]
) -> Table:
    table = Table(show_edge=False, title=f"{name} by samples", title_justify="left")
    table.add_column("measure")
    for count in counts:
        table.add_column(str(count), justify="right")
    by_measure: dict[str, dict[int, Any]] = {}
    for row in figures:
        by_measure.setdefault(row["measure"], {})[row["samples"]] = row[key]
    for measure, found in by_measure.items():
        values = [found.get(count) for count in counts]
        if any(values):
            shown = ("" if each is None else f"{each['estimate']:.3f}" for each in values)
            table.add_row(measure, *shown)
    return table


def _figure(found: Mapping[str, Any] | None) -> str:
    """Returns a figure with its interval."""
    if found is None:
        return "-"
    if found["lower"] is None:
        return f"{found['estimate']:.3f}"
    return f"{found['estimate']:.3f} [{found['lower']:.3f}, {found['upper']:.3f}]"
