"""The report of a single run: trained, fine-tuned or imported."""

import json

from calibtrain.figures.display import text_bytes
from calibtrain.figures.of_run import run_figures, words_of
from calibtrain.figures.signatures import mixed_in
from calibtrain.figures.strata import drawn_at
from calibtrain.metrics.quantities import MAIN, SUITE
from calibtrain.report import tables
from calibtrain.report.blocks import (
    Block,
    Section,
    Text,
    folded,
    note,
)
from calibtrain.report.documents import few_documents
from calibtrain.report.findings import Findings, run_findings
from calibtrain.report.finetuning import finetuning_blocks
from calibtrain.report.heads import head_signatures, heads_blocks
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
from calibtrain.report.strata import run_strata
from calibtrain.report.suite import run_suite
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.results import RunResults


def run_page(run: RunResults) -> str:
    """Returns the report of a single run, as HTML."""
    heads = [] if run.heads is None else heads_blocks(run.heads)
    signed = {} if run.heads is None else head_signatures(run.heads)
    figures = numbered(run_figures(run), lambda name: _below_run(run, name))
    findings = run_findings(run)
    ahead = 1 if run.main else 0
    main = [] if run.main is None else [run.main]
    return render(
        title=run.record.name,
        kind=_kind(run),
        findings=findings,
        warnings=few_documents([*main, *(e for each in run.by_event.values() for e in each)]),
        parts=[
            *_unfinished(run),
            *lost_lines({"": run}),
            *figures[:ahead],
            *section("results", "Results", _run_results(run, findings)),
            *section("finetuning", "Fine-tuning", finetuning_blocks(run)),
            *section("events", BY_EVENT, _run_events(run)),
            *section("suite", SUITE_TITLE, _run_suite(run)),
            *section("temperature-heads", "Temperature heads", heads),
            *figures[ahead:],
            *unreferenced(main),
            Section("size", "Size and budget", [tables.size_table(run)]),
            *signatures(_by_owner(run), signed),
            Section("provenance", "Provenance", _run_provenance(run)),
        ],
        version=run.record.version,
        results=json.dumps(run.document(), ensure_ascii=False),
        shades=0,
    )


def _kind(run: RunResults) -> str:
    if run.record.status == "imported":
        return "imported model"
    return "training run" if run.finetune is None else "fine-tuning"


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


def _run_results(run: RunResults, findings: Findings) -> list[Block]:
    """Returns the evaluations of tokens: the main one, the last ones, those during training."""
    main = run.main
    prose: list[Block] = [Text(findings.found, "p"), *note(findings.limits)]
    if main is None:
        return prose
    others = [e for e in run.of_tokens if e is not main]
    last = [main, *(e for e in others if e.step == main.step)]
    before = sorted((e for e in others if e.step != main.step), key=lambda e: -e.step)
    text = (
        f"{ROUNDED} Brackets are 95 % intervals over documents: they show the sampling of the "
        "text, not the variation between seeds."
    )
    on_the_way = tables.evaluations_table(before) if before else []
    return [
        *tables.evaluations_table(last),
        *prose[:1],
        *note(text),
        *note(mixed_in(last, (*MAIN, *SUITE), ("corpus", "bins"))),
        *folded("Evaluations on the way", on_the_way),
    ]


def _run_events(run: RunResults) -> list[Block]:
    """Returns the evaluations of other events, with one table per event."""
    blocks: list[Block] = []
    for event, found in run.by_event.items():
        blocks += tables.evaluations_table(found, event)
        for e in found:
            blocks += folded(f"{SUITE_TITLE}: {_called(e)}", run_suite(e, ""))
    return blocks


def _run_suite(run: RunResults) -> list[Block]:
    """Returns every metric of the evaluations of the last step, folded."""
    main = run.main
    if main is None:
        return []
    blocks: list[Block] = []
    for e in (main, *(e for e in run.of_tokens if e is not main and e.step == main.step)):
        blocks += folded(f"{EVERY}: {_called(e)}", run_suite(e, ""))
    return blocks


def _below_run(run: RunResults, anchor: str) -> list[Block]:
    stratum = drawn_at(anchor)
    found = words_of(run) if stratum and stratum.event == "word" else run.main
    return run_strata(found, stratum) if stratum and found else []


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
    facts = software([run], run.record.version, config, *_imported(run))
    return [facts, tables.corpus_table([run]), tables.tokenizer_table([run])]
