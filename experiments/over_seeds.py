"""Means over seeds of figures in analyses of runs, as rows of a Markdown table."""

from collections.abc import Callable, Sequence
from typing import Any

from calibtrain.metrics.student import student_half_width


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    print("| " + " | ".join(headings) + " |")
    print("|---" * len(headings) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def kinds(records: Sequence[Any]) -> dict[str, list[Any]]:
    """Returns the records of each kind of run (model, vocabulary and corpus); one per seed.

    Raises:
        SystemExit: for records that were measured by different protocols.
    """
    for each in records[1:]:
        if each.protocol != records[0].protocol:
            raise SystemExit(
                f"{each.path or each.run} and {records[0].path or records[0].run} were measured by "
                "different protocols; remove one, and measure it again"
            )
    found: dict[str, list[Any]] = {}
    for each in sorted(records, key=lambda each: (each.corpus, each.model, each.vocab_size)):
        name = f"{each.corpus}, {each.model}, {each.vocab_size:,}"
        found.setdefault(name, []).append(each)
    return found


def over_seeds(
    records: Sequence[Any], figure: Callable[[Any], Any], decimals: int = 3, signed: bool = False
) -> str:
    """Returns the mean of a figure over seeds with Student's 95 % interval.

    A single seed has the figure's own interval over documents.

    Args:
        records: one per seed.
        figure: from a record to its figure, which may be None.
        decimals: that are shown.
        signed: whether a plus is shown.
    """
    form = f"{'+' if signed else ''}.{decimals}f"
    found = [each for each in map(figure, records) if each is not None]
    if not found:
        return "-"
    if len(found) == 1:
        (only,) = found
        ends = "" if only.lower is None else f" ({only.lower:{form}} to {only.upper:{form}})"
        return f"{only.estimate:{form}}{ends}"
    values = [each.estimate for each in found]
    mean, half = sum(values) / len(values), student_half_width(values) or 0.0
    return f"{mean:{form}} ± {half:.{decimals}f}"
