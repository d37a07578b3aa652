"""The page: one HTML file with its figures, its tables, Plotly and the results themselves.

Its content is data; `page_files/` holds the Jinja2 templates (which escape every text), the style
sheet and the script that draws the figures. What studies and runs have in common is here.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from calibtrain.figures.panels import Figure
from calibtrain.figures.strata import CUTS, has_reference
from calibtrain.figures.style import palette
from calibtrain.report import tables
from calibtrain.report.blocks import (
    Block,
    NumberedFigure,
    Pairs,
    Section,
    Text,
    joined,
    note,
)
from calibtrain.report.findings import Findings
from calibtrain.report.strata import run_strata
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.results import RunResults

Part = Section | NumberedFigure

_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}

BY_EVENT = "Results by other events"
SUITE_TITLE = "Calibration suite"
EVERY = "Every metric, with its meaning"
ROUNDED = (
    "Numbers are rounded; hold the pointer over one for its full value, or for why it has no "
    "interval."
)


def render(
    *,
    title: str,
    kind: str,
    findings: Findings,
    warnings: Sequence[str],
    parts: Sequence[Part],
    version: str,
    results: str,
    shades: int,
) -> str:
    """Returns the page as HTML.

    Args:
        title: the heading.
        kind: what it reports, in small print above.
        findings: the verdict and what belongs to it.
        warnings: what a reader must know before any figure.
        parts: sections and figures, in their order.
        version: of calibtrain.
        results: the results as JSON, which the page carries along.
        shades: number of sequential colours that the figures use.
    """
    from plotly.offline import get_plotlyjs

    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            kind=kind,
            findings=findings,
            warnings=warnings,
            parts=parts,
            version=version,
            results=_json(results),
            light=palette("light", shades),
            dark=palette("dark", shades),
            style=_file("page.css"),
            plotly=Markup(get_plotlyjs()),
            script=_file("page.js"),
            dashes=_DASHES,
        )
    )


@functools.cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("calibtrain.report", "page_files"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["plot_json"] = lambda plot: _json(plot.to_json())
    return found


def _file(name: str) -> Markup:
    return Markup((files("calibtrain.report") / "page_files" / name).read_text(encoding="utf-8"))


def _json(text: str) -> Markup:
    # In JSON, `<` occurs only in strings, where its escape means the same.
    return Markup(text.replace("<", "\\u003c"))


def section(anchor: str, title: str, blocks: Sequence[Block]) -> list[Section]:
    """Returns a section; nothing if it is empty."""
    return [Section(anchor, title, blocks)] if blocks else []


def numbered(
    figures: Sequence[Figure], beneath: Callable[[str], Sequence[Block]]
) -> list[NumberedFigure]:
    """Returns the figures in their order, with what stands below those of an anchor."""
    return [
        NumberedFigure(number, each, beneath(each.anchor)) for number, each in enumerate(figures, 1)
    ]


def unreferenced(evaluations: Sequence[EvaluationRecord]) -> list[Section]:
    """Returns a section on groups that were not drawn, as what they should show is not known."""
    for stratum in CUTS:
        cut = [e for e in evaluations if stratum.by_outcome and stratum.name in e.strata]
        if cut and not has_reference(cut, stratum) and stratum.event == "token":
            text = (
                "Not drawn: such groups are known only afterwards, so that a calibrated model "
                "shows gaps too, and these files do not say which. `calibtrain evaluate` of this "
                "version adds what a perfect model would show."
            )
            table = run_strata(cut[0], stratum) if len(cut) == 1 else []
            return [Section(stratum.anchor, stratum.title, [*note(text), *table])]
    return []


def lost_lines(runs: Mapping[str, RunResults | None]) -> list[Section]:
    """Returns a notice on runs whose training curves are incomplete."""
    told = {name: run.lost_lines for name, run in runs.items() if run is not None}
    lines = [f"{name}: {text}" if name else text for name, text in told.items() if text]
    if not lines:
        return []
    blocks: list[Block] = [Text(line, "p") for line in lines]
    return [Section("lost", "Curves of training are not whole", blocks, kind="notice")]


def signatures(
    owners: Mapping[str, Sequence[EvaluationRecord]],
    more: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
) -> list[Section]:
    found: dict[str, Sequence[Mapping[str, str]]] = {
        owner: [e.signatures or {} for e in each] for owner, each in owners.items()
    }
    found |= more or {}
    blocks = tables.signature_blocks(found) if any(found.values()) else []
    return section("signatures", "Signatures", blocks)


def software(runs: Sequence[RunResults], version: str, *more: tuple[str, str]) -> Pairs:
    records = [run.record for run in runs]
    return Pairs(
        [
            ("calibtrain", version),
            ("JAX", joined(each.jax for each in records)),
            ("Device", joined(each.device for each in records)),
            ("Context", joined(f"{each.context_tokens:,} tokens" for each in records)),
            *more,
        ]
    )
