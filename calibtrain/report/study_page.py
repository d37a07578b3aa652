"""The report of a study: first what compares between its settings, then the details."""

from calibtrain.figures.against_axis import AGAINST_AXIS
from calibtrain.figures.comparable import Lead, lead_of
from calibtrain.figures.grouping import Comparison, compare
from calibtrain.figures.of_study import lines_of, study_figures
from calibtrain.figures.signatures import mixed_in
from calibtrain.figures.strata import drawn_at, rows_in
from calibtrain.metrics.quantities import MAIN, SUITE
from calibtrain.report import tables
from calibtrain.report.blocks import (
    Block,
    Pairs,
    Section,
    Text,
    folded,
    note,
)
from calibtrain.report.documents import few_documents, unlike_texts
from calibtrain.report.findings import Findings, study_findings
from calibtrain.report.page import (
    BY_EVENT,
    EVERY,
    ROUNDED,
    SUITE_TITLE,
    lost_lines,
    numbered,
    render,
    section,
    signatures,
    software,
    unreferenced,
)
from calibtrain.report.strata import run_strata, study_strata
from calibtrain.report.suite import study_suite
from calibtrain.runs.results import StudyResults


def study_page(study: StudyResults, folder: str) -> str:
    """Returns the report of a study, as HTML; `folder` is named in the commands it advises."""
    comparison = compare(study)
    lead = lead_of(study, comparison)
    figures = numbered(
        study_figures(study, comparison, lead), lambda name: _below_study(study, comparison, name)
    )
    ahead = 1 + (len(figures) > 1 and figures[1].figure.anchor == f"reliability-{lead.event}")
    evaluations = {
        group.label: [e for arm in group.arms for e in arm.scored.values()]
        for group in comparison.groups
    }
    findings = study_findings(study, comparison, lead, folder)
    shown = [arm.scored[lead.evaluation] for arm in study.arms if lead.evaluation in arm.scored]
    return render(
        title=study.record.title,
        kind="ablation",
        findings=findings,
        warnings=[*unlike_texts(shown), *few_documents(shown)],
        parts=[
            *_failures(study),
            *lost_lines({arm.record.name: arm.run for arm in study.arms}),
            *figures[:1],
            *_lead_results(study, comparison, lead, findings),
            *figures[1:ahead],
            *_token_results(study, comparison, lead),
            *section("events", BY_EVENT, _study_events(study, comparison, lead)),
            *section("suite", SUITE_TITLE, _study_suite(study, comparison)),
            *figures[ahead:],
            *unreferenced([e for arm in study.arms for e in arm.scored.values()]),
            Section("controls", "What was held fixed", _controls(study)),
            *signatures(evaluations),
            Section("provenance", "Provenance", _study_provenance(study)),
        ],
        version=study.record.version,
        results=study.text,
        shades=comparison.shades,
    )


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


def _lead_results(
    study: StudyResults, comparison: Comparison, lead: Lead, findings: Findings
) -> list[Section]:
    """Returns the results that compare between settings, with the differences between them."""
    if not lead.evaluation:
        return []
    keys = [key for key in dict.fromkeys((*AGAINST_AXIS, *MAIN)) if lead.allows(key)]
    blocks: list[Block] = [
        *tables.result_table(study, comparison, lead.evaluation, lead.event, keys),
        *tables.difference_table(study, comparison, lead, [k for k in AGAINST_AXIS if k in keys]),
        Text(findings.found, "p"),
        *note(f"{findings.limits} {ROUNDED}"),
        *(_mixture(study, lead.evaluation, lead.event) if lead.compares else []),
    ]
    if lead.event != "token":
        blocks += folded(
            f"{SUITE_TITLE} by {lead.event}", study_suite(study, comparison, lead.evaluation)
        )
    elif lead.compares:
        blocks += _further(study, comparison)
    title = "Results" if lead.event == "token" else f"Results by {lead.event}"
    title += "" if lead.compares else " that compare between vocabularies"
    return [Section("results", title, blocks)]


def _token_results(study: StudyResults, comparison: Comparison, lead: Lead) -> list[Section]:
    """Returns the results by token where another event or figure stands before them."""
    if not study.main or (lead.event == "token" and lead.compares):
        return []
    text = (
        "A token is a different event in every vocabulary: of these figures, only those per byte "
        "of text compare between vocabularies. Signed gap is mean confidence minus accuracy: "
        "positive is over-confident. Entropy rate is the mean entropy of the model’s own "
        "predictions on the same text."
    )
    blocks = [
        *tables.result_table(study, comparison, study.main),
        *note(text),
        *_mixture(study, study.main, "token"),
        *_further(study, comparison),
    ]
    return [Section("tokens", "Results by token: the detail", blocks)]


def _further(study: StudyResults, comparison: Comparison) -> list[Block]:
    others: list[Block] = []
    for name in study.evaluations:
        if name != study.main:
            others += tables.result_table(study, comparison, name)
    return [
        *folded("Other evaluations", others),
        *folded("Every arm", tables.arms_table(study)),
    ]


def _mixture(study: StudyResults, evaluation: str, event: str) -> list[Block]:
    """Returns a note where figures were made differently, in more than the vocabulary."""
    scored = [arm.scored.get(evaluation) for arm in study.arms if evaluation in arm.evaluations]
    expected = ("tok", "bins") if event != "token" or len(study.by_event) else ("bins",)
    return note(mixed_in(scored, (*MAIN, *SUITE), expected))


def _study_suite(study: StudyResults, comparison: Comparison) -> list[Block]:
    return folded(f"{EVERY}: {study.main}", study_suite(study, comparison, study.main))


def _study_events(study: StudyResults, comparison: Comparison, lead: Lead) -> list[Block]:
    """Returns the results of further events that do not depend on the tokenizer."""
    blocks: list[Block] = []
    for event, names in study.by_event.items():
        for name in names:
            if name != lead.evaluation:
                blocks += tables.result_table(study, comparison, name, event)
                blocks += folded(f"{SUITE_TITLE}: {name}", study_suite(study, comparison, name))
    return blocks


def _below_study(study: StudyResults, comparison: Comparison, anchor: str) -> list[Block]:
    """Returns the table of a figure: that of a run for one evaluation, means for several."""
    stratum = drawn_at(anchor)
    if stratum is None:
        return []
    words = study.by_event.get("word", ("",))
    name = words[0] if stratum.event == "word" else study.main
    lines = lines_of(study, comparison, name)
    seeds = {each.name: each.evaluations for each in lines if each.evaluations}
    if len(seeds) == 1 and len(found := next(iter(seeds.values()))) == 1:
        return run_strata(found[0], stratum)
    cut = {name: found for name, found in seeds.items() if any(rows_in(e, stratum) for e in found)}
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
        blocks.append(software(runs, study.record.version))
        blocks += [tables.corpus_table(runs), tables.tokenizer_table(runs)]
    return blocks
