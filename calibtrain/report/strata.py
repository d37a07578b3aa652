"""Tables of the strata: every group with its figures and intervals."""

from collections.abc import Mapping, Sequence

from calibtrain.figures.display import count
from calibtrain.figures.strata import (
    COMPARED,
    Row,
    Stratum,
    labels_of,
    name_of,
    row_of,
    rows_in,
    worst_line,
)
from calibtrain.metrics.quantities import QUANTITIES, Quantity
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    figure,
    figure_heads,
    folded,
    mean,
    no_interval,
    no_row_interval,
    note,
    num,
    titled,
)
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.seeds import mean_and_half_width

_COLUMNS = ("ece", "signed_gap", "accuracy", "mean_confidence", "nll", "entropy_rate")


def _columns(stratum: Stratum, keys: tuple[str, ...]) -> list[Quantity]:
    """Returns the figures of a table: those that are drawn, then those of `keys` that compare."""
    beside = [(key, stratum.beside.get(key, key)) for key in stratum.keys]
    own = [key for pair in beside for key in pair]
    # Where groups are known only afterwards, an ECE says nothing.
    more = [] if stratum.name == "frequency_mass" else [key for key in keys if key != "ece"]
    more = list(keys) if stratum.keys == COMPARED else more
    return [QUANTITIES[key] for key in dict.fromkeys([*own, *more])]


def run_strata(evaluation: EvaluationRecord, stratum: Stratum) -> list[Block]:
    """Returns one row per group, then all events, then a line on the worst group."""
    quantities = _columns(stratum, _COLUMNS)
    groups = rows_in(evaluation, stratum)
    entries = any("vocabulary_entries" in row.numbers for row in groups)
    rows = []
    for row in groups:
        why = no_row_interval(row.tokens, evaluation)
        held = [num(row.numbers.get("vocabulary_entries"), count)] if entries else []
        figures = [figure(row, q, why) for q in quantities]
        rows.append([titled(name_of(row)), num(row.tokens, count), *held, *figures])
    if any(q.key in evaluation for q in quantities):
        whole = [figure(evaluation, q, no_interval(evaluation, q.key)) for q in quantities]
        tokens = num(evaluation.numbers.get("tokens"), count)
        rows.append([titled("all"), tokens, *([Cell("", "num")] if entries else []), *whole])
    heads = [Head(stratum.group.capitalize()), Head(f"{evaluation.event}s".capitalize(), "", True)]
    heads += [Head("Entries", "of the vocabulary", numeric=True)] if entries else []
    caption = f"By {stratum.axis}, with 95 % intervals over documents"
    table = Table(caption, [*heads, *figure_heads(quantities, evaluation.event)], rows, quiet=True)
    worst = worst_line([evaluation], stratum) if stratum.keys == COMPARED else ""
    return [*note(worst), *_shown(stratum, [table])]


def study_strata(seeds: Mapping[str, Sequence[EvaluationRecord]], stratum: Stratum) -> list[Block]:
    """Returns one row per group, with the mean over seeds of each combination and its interval.

    A combination with one seed has intervals over documents, as in that seed's own report.

    Args:
        seeds: the evaluations of each combination of settings, by its name.
        stratum: how the events are divided.
    """
    everything = [e for found in seeds.values() for e in found]
    quantities = _columns(stratum, ())
    rows = []
    for label in labels_of(everything, stratum):
        cells = [titled(label)]
        for found in seeds.values():
            known = [row for e in found if (row := row_of(e, stratum, label))]
            why = no_row_interval(known[0].tokens, found[0]) if known else ""
            cells += [_compared(known, q, why, single=len(found) == 1) for q in quantities]
        rows.append(cells)
    if any(q.key in e for e in everything for q in quantities):
        whole = [titled("all")]
        for found in seeds.values():
            whole += [
                _compared(found, q, no_interval(found[0], q.key), single=len(found) == 1)
                for q in quantities
            ]
        rows.append(whole)
    heads = [Head(stratum.group.capitalize())]
    heads += [Head(q.name, name, numeric=True) for name in seeds for q in quantities]
    over = "documents" if max(map(len, seeds.values())) == 1 else "seeds"
    caption = f"By {stratum.axis}: means over seeds, with 95 % intervals over {over}"
    lines: list[Block] = []
    for name, found in seeds.items():
        cut = [e for e in found if rows_in(e, stratum)]
        if cut and stratum.keys == COMPARED:
            lines += note(worst_line(cut, stratum, name))
    return [*lines, *_shown(stratum, [Table(caption, heads, rows, quiet=True)])]


def _compared(
    found: Sequence[EvaluationRecord | Row], quantity: Quantity, why: str, *, single: bool
) -> Cell:
    """Returns a figure of a single seed, or its mean over several."""
    if single and len(found) == 1:
        return figure(found[0], quantity, why)
    values = [each.numbers[quantity.key] for each in found if quantity.key in each.numbers]
    middle, half = mean_and_half_width(values) if values else (None, None)
    return mean(quantity, middle, half, len(values))


def _shown(stratum: Stratum, blocks: list[Block]) -> list[Block]:
    """Returns the blocks folded, except for groups of documents, which pooling must not hide."""
    return blocks if stratum.name == "groups" else folded("The same as a table", blocks)
