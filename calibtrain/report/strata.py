"""Tables of the strata: every group with its figures and intervals."""

from collections.abc import Mapping, Sequence

from calibtrain.figures.display import count
from calibtrain.figures.strata import (
    COMPARED,
    Stratum,
    has_reference,
    labels_of,
    row_of,
    worst_line,
)
from calibtrain.metrics.quantities import QUANTITIES, number
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    apart,
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
from calibtrain.runs.records import EvaluationRecord, FrequencyMassRow, StratumRow
from calibtrain.runs.seeds import mean_and_half_width

_COLUMNS = ("ece", "signed_gap", "accuracy", "mean_confidence", "nll", "entropy_rate")
PERFECT = Head("Perfect model", "signed gap", numeric=True)
"""The column of what a perfect model with the same probabilities would show."""


def run_strata(evaluation: EvaluationRecord, stratum: Stratum) -> list[Block]:
    """Returns one row per group, then all events, then a line on the worst group."""
    quantities = [QUANTITIES[key] for key in _COLUMNS]
    groups = evaluation.strata[stratum.name]
    entries = any("vocabulary_entries" in row.numbers for row in groups)
    perfect = has_reference([evaluation], stratum)
    rows = []
    for row in groups:
        why = no_row_interval(row.tokens, evaluation)
        held = [num(row.numbers.get("vocabulary_entries"), count)] if entries else []
        held += _beside_perfect(row) if perfect else []
        figures = [figure(row, q, why) for q in quantities]
        rows.append([titled(row.name), num(row.tokens, count), *held, *figures])
    whole = [figure(evaluation, q, no_interval(evaluation, q.key)) for q in quantities]
    tokens = num(evaluation.numbers.get("tokens"), count)
    rows.append([titled("all"), tokens, *[Cell("", "num")] * (entries + 2 * perfect), *whole])
    heads = [Head(stratum.group.capitalize()), Head(f"{evaluation.event}s".capitalize(), "", True)]
    heads += [Head("Entries", "of the vocabulary", numeric=True)] if entries else []
    heads += [PERFECT, Head("Gap", "less the perfect model’s", numeric=True)] if perfect else []
    caption = f"By {stratum.axis}, with 95 % intervals over documents"
    heads += figure_heads(quantities, evaluation.event)
    table = Table(caption, heads, rows, quiet=True)
    worst = "" if stratum.by_outcome else worst_line([evaluation], stratum)
    return [*note(worst), *_shown(stratum, [table])]


def study_strata(seeds: Mapping[str, Sequence[EvaluationRecord]], stratum: Stratum) -> list[Block]:
    """Returns one row per group, with the mean over seeds of each combination and its interval.

    A combination with one seed has intervals over documents, as in that seed's own report.

    Args:
        seeds: the evaluations of each combination of settings, by its name.
        stratum: how the events are divided.
    """
    everything = [e for found in seeds.values() for e in found]
    perfect = has_reference(everything, stratum)
    rows = []
    for label in labels_of(everything, stratum):
        cells = [titled(label)]
        for found in seeds.values():
            known = [row for e in found if (row := row_of(e, stratum, label))]
            why = no_row_interval(known[0].tokens, found[0]) if known else ""
            cells += _compared(known, dict.fromkeys(COMPARED, why), single=len(found) == 1)
            if perfect:
                gaps = [row.reference_gap for row in known if row.reference_gap is not None]
                middle = sum(gaps) / len(gaps) if gaps else None
                cells.append(num(middle, QUANTITIES["signed_gap"].show))
        rows.append(cells)
    whole = [titled("all")]
    for found in seeds.values():
        whys = {key: no_interval(found[0], key) for key in COMPARED}
        whole += _compared(found, whys, single=len(found) == 1)
        whole += [Cell("", "num")] if perfect else []
    heads = [Head(stratum.group.capitalize())]
    for name in seeds:
        heads += [Head(QUANTITIES[key].name, name, numeric=True) for key in COMPARED]
        heads += [Head(PERFECT.text, name, numeric=True)] if perfect else []
    over = "documents" if max(map(len, seeds.values())) == 1 else "seeds"
    caption = f"By {stratum.axis}: means over seeds, with 95 % intervals over {over}"
    lines: list[Block] = []
    for name, found in seeds.items():
        cut = [e for e in found if stratum.name in e.strata]
        if cut and not stratum.by_outcome:
            lines += note(worst_line(cut, stratum, name))
    return [*lines, *_shown(stratum, [Table(caption, heads, [*rows, whole], quiet=True)])]


def mass_table(seeds: Mapping[str, Sequence[EvaluationRecord]]) -> list[Block]:
    """Returns one row per decile: the shares and the gap of each combination of settings.

    The gap has an interval over documents for one seed, over seeds for several.
    """
    tables = {name: [e.frequency_mass or [] for e in found] for name, found in seeds.items()}
    tables = {name: [table for table in found if table] for name, found in tables.items()}
    known = {name: found for name, found in tables.items() if found}
    rows = []
    for index, row in enumerate(next(iter(known.values()))[0] if known else ()):
        cells = [titled(row.label)]
        for found in known.values():
            each = [table[index] for table in found if index < len(table)]
            for share in ("predicted_share", "observed_share"):
                values = [getattr(one, share) for one in each]
                cells.append(num(sum(values) / len(values) if values else None, _share))
            cells.append(_mass_gap(each))
        rows.append(cells)
    heads = [Head("Decile")]
    for name in known:
        below = name if known.keys() - {name} else ""
        heads += [Head(text, below, True) for text in ("Predicted", "Observed", "Gap")]
    over = "documents" if all(len(found) == 1 for found in known.values()) else "seeds"
    caption = f"Mass by frequency decile, with 95 % intervals over {over}; bold: it excludes 0"
    return folded("The same as a table", [Table(caption, heads, rows, quiet=True)])


def _mass_gap(rows: Sequence[FrequencyMassRow]) -> Cell:
    if len(rows) == 1:
        interval = rows[0].interval("gap")
        ends = (interval.lower, interval.upper) if interval else None
        return apart(rows[0].gap, _gap, ends, "no interval was made")
    middle, half = mean_and_half_width([row.gap for row in rows])
    return apart(middle, _gap, None if half is None else (middle - half, middle + half))


def _share(value: float) -> str:
    return f"{value:.2%}"


def _gap(value: float) -> str:
    return number(value, 4, signed=True)


def _beside_perfect(row: StratumRow) -> list[Cell]:
    """Returns the gap of a perfect model, and how far this one's is from it."""
    show = QUANTITIES["signed_gap"].show
    excess, interval = row.excess_gap, row.interval("excess_gap")
    ends = (interval.lower, interval.upper) if interval else None
    beyond = num(None, show) if excess is None else apart(excess, show, ends)
    return [num(row.reference_gap, show), beyond]


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
