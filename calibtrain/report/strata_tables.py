"""Tables of the strata: every group with its figures and intervals; none is left out."""

from collections.abc import Mapping, Sequence
from functools import partial

from calibtrain.report.cells import estimate, folded, note, num, row_head, table, th
from calibtrain.report.display import QUANTITIES, count, shown, shown_half
from calibtrain.report.results import Evaluation, Row
from calibtrain.report.signatures import mixed_note
from calibtrain.report.strata import Stratum, labels_of, row_of, worst_line
from calibtrain.report.uncertainty import no_interval, no_row_interval, no_seed_interval, student

COLUMNS = ("ece", "signed_gap", "accuracy", "mean_confidence", "nll", "entropy_rate")
COMPARED = ("ece", "signed_gap")


def run_strata(evaluation: Evaluation, stratum: Stratum) -> str:
    """A row a group of one evaluation, all tokens last, and a line that names the worst."""
    entries = any("vocabulary_entries" in row.values for row in evaluation.strata[stratum.name])
    rows = [_run_row(row, evaluation, entries) for row in evaluation.strata[stratum.name]]
    rows.append(
        [
            row_head("all"),
            num(evaluation.values.get("tokens"), count(evaluation.values.get("tokens"))),
            *(['<td class="num"></td>'] if entries else []),
            *(_figure(evaluation, key, no_interval(evaluation, key)) for key in COLUMNS),
        ]
    )
    head = [th(stratum.group.capitalize()), th("Tokens", numeric=True)]
    head += [th("Entries", "of the vocabulary", numeric=True)] if entries else []
    head += [th(QUANTITIES[key].name, QUANTITIES[key].unit_of(), numeric=True) for key in COLUMNS]
    caption = f"By {stratum.axis}, with 95 % intervals over documents"
    return note(worst_line([evaluation], stratum)) + _shown(
        stratum, table(caption, head, rows, quiet=True)
    )


def _run_row(row: Row, whole: Evaluation, entries: bool) -> list[str]:
    held = row.values.get("vocabulary_entries")
    return [
        row_head(row.label),
        num(row.tokens, count(row.tokens)),
        *([num(held, count(held))] if entries else []),
        *(_figure(row, key, no_row_interval(row.tokens, whole)) for key in COLUMNS),
    ]


def study_strata(seeds: Mapping[str, Sequence[Evaluation]], stratum: Stratum) -> str:
    """A row a group; for each combination of settings the mean over its seeds, and its interval.

    A combination of one seed has its intervals over documents, as that seed's own report has.

    Args:
        seeds: the evaluations of each combination, by its name.
        stratum: how the events are cut.
    """
    everything = [e for found in seeds.values() for e in found]
    rows = []
    for label in labels_of(everything, stratum):
        cells = [row_head(label)]
        for found in seeds.values():
            for key in COMPARED:
                known = [row for e in found if (row := row_of(e, stratum, label))]
                if len(found) == len(known) == 1:
                    cells.append(_figure(known[0], key, no_row_interval(known[0].tokens, found[0])))
                else:
                    cells.append(_mean([r.values[key] for r in known if key in r.values], key))
        rows.append(cells)
    whole = [row_head("all")]
    for found in seeds.values():
        whole += [
            _figure(found[0], key, no_interval(found[0], key))
            if len(found) == 1
            else _mean([e.values[key] for e in found], key)
            for key in COMPARED
        ]
    head = [th(stratum.group.capitalize())]
    head += [th(QUANTITIES[key].name, name, numeric=True) for name in seeds for key in COMPARED]
    over = "documents" if max(map(len, seeds.values())) == 1 else "seeds"
    caption = f"By {stratum.axis}: means over seeds, with 95 % intervals over {over}"
    lines = [
        worst_line([e for e in found if stratum.name in e.strata], stratum, name)
        for name, found in seeds.items()
        if any(stratum.name in e.strata for e in found)
    ]
    content = "".join(map(note, lines)) + table(caption, head, [*rows, whole], quiet=True)
    return _shown(stratum, content + mixed_note(everything, COMPARED))


def _figure(found: Row | Evaluation, key: str, why: str) -> str:
    interval = found.intervals.get(key)
    return estimate(found.values.get(key), partial(shown, key), interval, why)


def _mean(values: Sequence[float], key: str) -> str:
    if not values:
        return num(None, "")
    mean, half = student(values)
    width = "" if half is None else shown_half(key, half)
    return num(mean, shown(key, mean), half, width, no_seed_interval(len(values)))


def _shown(stratum: Stratum, content: str) -> str:
    """Groups of documents stand open, as pooling must not hide one; the others open when asked."""
    return content if stratum.name == "groups" else folded("The same as a table", content)
