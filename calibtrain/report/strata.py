"""Tables of the strata: every group with its figures and intervals."""

from collections.abc import Mapping, Sequence

from calibtrain.figures.display import count
from calibtrain.figures.signatures import mixed_in
from calibtrain.figures.strata import COMPARED, Stratum, labels_of, row_of, worst_line
from calibtrain.metrics.quantities import QUANTITIES
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
from calibtrain.runs.records import EvaluationRecord, StratumRow
from calibtrain.runs.seeds import mean_and_half_width

_COLUMNS = ("ece", "signed_gap", "accuracy", "mean_confidence", "nll", "entropy_rate")


def run_strata(evaluation: EvaluationRecord, stratum: Stratum) -> list[Block]:
    """Returns one row per group, then all tokens, then a line on the worst group."""
    quantities = [QUANTITIES[key] for key in _COLUMNS]
    groups = evaluation.strata[stratum.name]
    entries = any("vocabulary_entries" in row.numbers for row in groups)
    rows = []
    for row in groups:
        why = no_row_interval(row.tokens, evaluation)
        held = [num(row.numbers.get("vocabulary_entries"), count)] if entries else []
        figures = [figure(row, q, why) for q in quantities]
        rows.append([titled(row.name), num(row.tokens, count), *held, *figures])
    whole = [figure(evaluation, q, no_interval(evaluation, q.key)) for q in quantities]
    tokens = num(evaluation.numbers.get("tokens"), count)
    rows.append([titled("all"), tokens, *([Cell("", "num")] if entries else []), *whole])
    heads = [Head(stratum.group.capitalize()), Head("Tokens", numeric=True)]
    heads += [Head("Entries", "of the vocabulary", numeric=True)] if entries else []
    caption = f"By {stratum.axis}, with 95 % intervals over documents"
    table = Table(caption, [*heads, *figure_heads(quantities)], rows, quiet=True)
    return [*note(worst_line([evaluation], stratum)), *_shown(stratum, [table])]


def study_strata(seeds: Mapping[str, Sequence[EvaluationRecord]], stratum: Stratum) -> list[Block]:
    """Returns one row per group, with the mean over seeds of each combination and its interval.

    A combination with one seed has intervals over documents, as in that seed's own report.

    Args:
        seeds: the evaluations of each combination of settings, by its name.
        stratum: how the events are divided.
    """
    everything = [e for found in seeds.values() for e in found]
    rows = []
    for label in labels_of(everything, stratum):
        cells = [titled(label)]
        for found in seeds.values():
            known = [row for e in found if (row := row_of(e, stratum, label))]
            why = no_row_interval(known[0].tokens, found[0]) if known else ""
            cells += _compared(known, dict.fromkeys(COMPARED, why), single=len(found) == 1)
        rows.append(cells)
    whole = [titled("all")]
    for found in seeds.values():
        whys = {key: no_interval(found[0], key) for key in COMPARED}
        whole += _compared(found, whys, single=len(found) == 1)
    heads = [Head(stratum.group.capitalize())]
    heads += [Head(QUANTITIES[key].name, name, numeric=True) for name in seeds for key in COMPARED]
    over = "documents" if max(map(len, seeds.values())) == 1 else "seeds"
    caption = f"By {stratum.axis}: means over seeds, with 95 % intervals over {over}"
    lines: list[Block] = []
    for name, found in seeds.items():
        if cut := [e for e in found if stratum.name in e.strata]:
            lines += note(worst_line(cut, stratum, name))
    table = Table(caption, heads, [*rows, whole], quiet=True)
    return _shown(stratum, [*lines, table, *note(mixed_in(everything, COMPARED))])


def _compared(
    found: Sequence[EvaluationRecord | StratumRow], whys: Mapping[str, str], *, single: bool
) -> list[Cell]:
    """Returns the compared figures: those of a single seed, or means over several."""
    cells = []
    for key in COMPARED:
        quantity = QUANTITIES[key]
        if single and len(found) == 1:
            cells.append(figure(found[0], quantity, whys[key]))
            continue
        values = [each.numbers[key] for each in found if key in each.numbers]
        middle, half = mean_and_half_width(values) if values else (None, None)
        cells.append(mean(quantity, middle, half, len(values)))
    return cells


def _shown(stratum: Stratum, blocks: list[Block]) -> list[Block]:
    """Returns the blocks folded, except for groups of documents, which pooling must not hide."""
    return blocks if stratum.name == "groups" else folded("The same as a table", blocks)
