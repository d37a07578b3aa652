"""The page: one HTML file with its figures, its tables, Plotly and the results themselves.

Its content is composed here, as data; `page_files/` holds the Jinja2 templates (which escape every
text), the style sheet and the script that draws the figures.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from calibtrain.figures.display import text_bytes
from calibtrain.figures.grouping import Comparison, compare
from calibtrain.figures.of_run import evaluation_figures, run_figures
from calibtrain.figures.of_study import lines_of, study_figures
from calibtrain.figures.panels import Figure
from calibtrain.figures.strata import CUTS, Stratum
from calibtrain.figures.style import palette
from calibtrain.report import tables
from calibtrain.report.blocks import (
    Block,
    NumberedFigure,
    Pairs,
    Section,
    Text,
    folded,
    joined,
    note,
)
from calibtrain.report.findings import (
    Findings,
    evaluation_findings,
    run_findings,
    study_findings,
)
from calibtrain.report.strata import run_strata, study_strata
from calibtrain.report.suite import run_suite, study_suite
from calibtrain.runs.records import EvaluationRecord
from calibtrain.runs.results import RunResults, StudyResults

Part = Section | NumberedFigure

_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}


def study_page(study: StudyResults) -> str:
    """Returns the report of a study, as HTML."""
    comparison = compare(study)
    evaluations = {
        group.label: [e for arm in group.arms for e in arm.scored.values()]
        for group in comparison.groups
    }
    lines = lines_of(study, comparison)
    seeds = {each.name: each.evaluations for each in lines if each.evaluations}
    return _page(
        title=study.record.title,
        kind="ablation",
        findings=study_findings(study, comparison),
        parts=[
            *_failures(study),
            *_lost_lines({arm.record.name: arm.run for arm in study.arms}),
            *_study_results(study, comparison),
            *_section("events", _BY_EVENT, _study_events(study, comparison)),
            *_section("suite", _SUITE, study_suite(study, comparison, study.main)),
            *_numbered(
                study_figures(study, comparison), lambda stratum: _study_strata(seeds, stratum)
            ),
            Section("controls", "What was held fixed", _controls(study)),
            *_signatures(evaluations),
            Section("provenance", "Provenance", _study_provenance(study)),
        ],
        version=study.record.version,
        results=study.text,
        shades=comparison.shades,
    )


def run_page(run: RunResults) -> str:
    """Returns the report of a single run, as HTML."""
    heads = [] if run.heads is None else tables.heads_blocks(run.heads)
    return _page(
        title=run.record.name,
        kind="training run",
        findings=run_findings(run),
        parts=[
            *_unfinished(run),
            *_lost_lines({"": run}),
            *_section("results", "Results", _run_results(run)),
            *_section("events", _BY_EVENT, _run_events(run)),
            *_section("suite", _SUITE, _run_suite(run)),
            *_section("temperature-heads", "Temperature heads", heads),
            *_numbered(
                run_figures(run), lambda stratum: run_strata(run.main, stratum) if run.main else []
            ),
            Section("size", "Size and budget", [tables.size_table(run)]),
            *_signatures(_by_owner(run)),
            Section("provenance", "Provenance", _run_provenance(run)),
        ],
        version=run.record.version,
        results=json.dumps(run.document(), ensure_ascii=False),
        shades=0,
    )


_BY_EVENT = "Results by other events than the token"
_SUITE = "Calibration suite"


def _page(
    *,
    title: str,
    kind: str,
    findings: Findings,
    parts: Sequence[Part],
    version: str,
    results: str,
    shades: int,
) -> str:
    from plotly.offline import get_plotlyjs

    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            kind=kind,
            findings=findings,
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


# --- sections of both ---------------------------------------------------------------------------


def _section(anchor: str, title: str, blocks: Sequence[Block]) -> list[Section]:
    """Returns a section; nothing if it is empty."""
    return [Section(anchor, title, blocks)] if blocks else []


def _numbered(
    figures: Sequence[Figure], beneath: Callable[[Stratum], Sequence[Block]]
) -> list[NumberedFigure]:
    """Returns the figures in their order; those of strata have their table below."""
    cuts = {stratum.anchor: stratum for stratum in CUTS}
    return [
        NumberedFigure(number, each, beneath(cuts[each.anchor]) if each.anchor in cuts else ())
        for number, each in enumerate(figures, 1)
    ]


def _lost_lines(runs: Mapping[str, RunResults | None]) -> list[Section]:
    """Returns a notice on runs whose training curves are incomplete."""
    told = {name: run.lost_lines for name, run in runs.items() if run is not None}
    lines = [f"{name}: {text}" if name else text for name, text in told.items() if text]
    if not lines:
        return []
    blocks: list[Block] = [Text(line, "p") for line in lines]
    return [Section("lost", "Curves of training are not whole", blocks, kind="notice")]


def _signatures(owners: Mapping[str, Sequence[EvaluationRecord]]) -> list[Section]:
    found = {owner: [e.signatures or {} for e in each] for owner, each in owners.items()}
    blocks = tables.signature_blocks(found) if any(owners.values()) else []
    return _section("signatures", "Signatures", blocks)


def _software(runs: Sequence[RunResults], version: str, *more: tuple[str, str]) -> Pairs:
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


# --- a study's sections --------------------------------------------------------------------------


def _failures(study: StudyResults) -> list[Section]:
    bad = [arm.record for arm in study.arms if arm.record.status != "done"]
    if not bad:
        return []
    items = [(a.name, f"{a.status}: {a.error}" if a.error else a.status) for a in bad]
    blocks: list[Block] = [Pairs(items, "items")]
    if study.main:
        blocks += note("Means and intervals are over the arms that have results.")
    title = f"{len(bad)} of {len(study.arms)} arms did not finish"
    return [Section("failures", title, blocks, kind="notice")]


def _study_results(study: StudyResults, comparison: Comparison) -> list[Section]:
    if not study.main:
        return []
    others: list[Block] = []
    for name in study.evaluations:
        if name != study.main:
            others += tables.result_table(study, comparison, name)
    text = (
        "Numbers are rounded; hold the pointer over one for its full value, or for why it has no "
        "interval. Signed gap is mean confidence minus accuracy: positive is over-confident. "
        "Entropy rate is the mean entropy of the model’s own predictions on the same text."
    )
    blocks = [
        *tables.result_table(study, comparison, study.main),
        *note(text),
        *folded("Other evaluations", others),
        *folded("Every arm", tables.arms_table(study)),
    ]
    return [Section("results", "Results", blocks)]


def _study_events(study: StudyResults, comparison: Comparison) -> list[Block]:
    """Returns the results of events that do not depend on the tokenizer."""
    blocks: list[Block] = []
    for event, names in study.by_event.items():
        for name in names:
            blocks += tables.result_table(study, comparison, name, event)
            blocks += folded(f"{_SUITE}: {name}", study_suite(study, comparison, name))
    return blocks


def _study_strata(seeds: Mapping[str, Sequence[EvaluationRecord]], stratum: Stratum) -> list[Block]:
    """Returns the table of a stratum: that of a run for one evaluation, means for several."""
    if len(seeds) == 1 and len(found := next(iter(seeds.values()))) == 1:
        return run_strata(found[0], stratum)
    cut = {
        name: found for name, found in seeds.items() if any(stratum.name in e.strata for e in found)
    }
    return study_strata(cut, stratum)


def _controls(study: StudyResults) -> list[Block]:
    rules = [
        (name.replace("_", " ").capitalize(), str(value).replace("_", " "))
        for name, value in study.record.controls.items()
    ]
    held = [tables.controls_table(study)] if study.record.held_fixed else []
    return [Pairs(rules), *held]


def _study_provenance(study: StudyResults) -> list[Block]:
    blocks: list[Block] = [*note("Command"), Text(study.record.command, "pre")]
    if runs := study.runs:
        blocks.append(_software(runs, study.record.version))
        blocks += [tables.corpus_table(runs), tables.tokenizer_table(runs)]
    return blocks


# --- a run's sections ----------------------------------------------------------------------------


def _by_owner(run: RunResults) -> dict[str, list[EvaluationRecord]]:
    """Returns the evaluations of a run by name; those during training have one name."""
    found: dict[str, list[EvaluationRecord]] = {}
    for evaluation in run.evaluations:
        last = run.main is None or evaluation.step == run.main.step
        name = _called(evaluation, "" if last else "on the way")
        found.setdefault(name, []).append(evaluation)
    return found


def _called(evaluation: EvaluationRecord, when: str = "") -> str:
    """Returns the name of an evaluation in its run; `when` replaces its step."""
    event = "" if evaluation.event == "token" else f"by {evaluation.event}"
    limit = "" if evaluation.limit is None else f"about {text_bytes(evaluation.limit)}"
    step = when or f"step {evaluation.step:,}"
    parts = (evaluation.corpus, evaluation.split, event, step, limit, evaluation.tempered)
    return ", ".join(filter(None, parts))


def _unfinished(run: RunResults) -> list[Section]:
    record = run.record
    if record.status in ("done", "imported"):
        return []
    place = f"step {record.step:,} of {record.steps:,}"
    if record.status == "failed":
        title = f"This run failed at {place}"
        text = record.error or "It left no reason."
    else:
        title = f"This run is {record.status}, not done"
        text = f"It stands at {place}; what follows is provisional."
    return [Section("unfinished", title, [Text(text, "p")], kind="notice")]


def _run_results(run: RunResults) -> list[Block]:
    """Returns the evaluations of tokens: the main one, the last ones, those during training."""
    main = run.main
    if main is None:
        return []
    others = [e for e in run.of_tokens if e is not main]
    last = [main, *(e for e in others if e.step == main.step)]
    before = sorted((e for e in others if e.step != main.step), key=lambda e: -e.step)
    text = (
        "Numbers are rounded; hold the pointer over one for its full value, or for why it has no "
        "interval. Brackets are 95 % intervals over documents: they show the sampling of the text, "
        "not the variation between seeds."
    )
    on_the_way = tables.evaluations_table(before) if before else []
    folded_away = folded("Evaluations on the way", on_the_way)
    return [*tables.evaluations_table(last), *note(text), *folded_away]


def _run_events(run: RunResults) -> list[Block]:
    """Returns the evaluations of other events, with one table per event."""
    blocks: list[Block] = []
    for event, found in run.by_event.items():
        blocks += tables.evaluations_table(found, event)
        for e in found:
            blocks += folded(f"{_SUITE}: {_called(e)}", run_suite(e, ""))
    return blocks


def _run_suite(run: RunResults) -> list[Block]:
    """Returns every metric of the main evaluation; others of its step can be unfolded."""
    main = run.main
    if main is None or not (blocks := run_suite(main, _called(main))):
        return []
    for e in run.of_tokens:
        if e is not main and e.step == main.step:
            blocks += folded(_called(e), run_suite(e, ""))
    return blocks


def _imported(run: RunResults) -> list[tuple[str, str]]:
    """Returns the origin of an imported model."""
    about = run.record.imported
    if about is None:
        return []
    sums = about.get("sha256", {})
    found = ", ".join(f"{name} (SHA-256 {digits[:16]})" for name, digits in sums.items())
    return [("Imported from", f"{about.get('from')}, {about.get('format')}: {found}")]


def _run_provenance(run: RunResults) -> list[Block]:
    config = ("Configuration hash", run.record.config_hash[:16])
    software = _software([run], run.record.version, config, *_imported(run))
    return [software, tables.corpus_table([run]), tables.tokenizer_table([run])]


# --- an evaluation alone -------------------------------------------------------------------------


def evaluation_page(evaluation: EvaluationRecord) -> str:
    """Returns the report of a single evaluation, such as the predictions of any model, as HTML."""
    notes: list[Block] = [Text(text, "p") for text in evaluation.notes or ()]
    noted = [Section("notes", "What to know", notes, kind="notice")] if notes else []
    return _page(
        title=evaluation.corpus,
        kind="predictions",
        findings=evaluation_findings(evaluation),
        parts=[
            *noted,
            Section("results", "Results", [tables.predictions_table(evaluation)]),
            *_section("suite", _SUITE, run_suite(evaluation, evaluation.corpus)),
            *_numbered(
                evaluation_figures(evaluation), lambda stratum: run_strata(evaluation, stratum)
            ),
            *_signatures({evaluation.corpus: [evaluation]}),
            Section("provenance", "Provenance", [_origin(evaluation)]),
        ],
        version=evaluation.version or "",
        results=json.dumps(evaluation.document(), ensure_ascii=False),
        shades=0,
    )


def _origin(evaluation: EvaluationRecord) -> Pairs:
    return Pairs(
        [
            ("calibtrain", evaluation.version or ""),
            ("Predictions", evaluation.corpus),
            ("Hash of their content", evaluation.corpus_hash or ""),
        ]
    )
