"""The report of an evaluation alone: the predictions of any model."""

import json

from calibtrain.figures.of_run import evaluation_figures
from calibtrain.figures.strata import CUTS
from calibtrain.report import tables
from calibtrain.report.blocks import Block, Pairs, Section, Text, folded
from calibtrain.report.documents import few_documents
from calibtrain.report.findings import evaluation_findings
from calibtrain.report.page import EVERY, SUITE_TITLE, numbered, render, section, signatures
from calibtrain.report.strata import run_strata
from calibtrain.report.suite import run_suite
from calibtrain.runs.evaluation_records import EvaluationRecord


def evaluation_page(evaluation: EvaluationRecord) -> str:
    """Returns the report of a single evaluation, such as the predictions of any model, as HTML."""
    noted: list[Block] = [Text(text, "p") for text in evaluation.notes or ()]
    cuts = {stratum.anchor: stratum for stratum in CUTS}
    figures = numbered(
        evaluation_figures(evaluation),
        lambda anchor: run_strata(evaluation, cuts[anchor]) if anchor in cuts else [],
    )
    origin = Pairs(
        [
            ("calibtrain", evaluation.version or ""),
            ("Predictions", evaluation.corpus),
            ("Hash of their content", evaluation.corpus_hash or ""),
        ]
    )
    return render(
        title=evaluation.corpus,
        kind="predictions",
        findings=evaluation_findings(evaluation),
        warnings=few_documents([evaluation]),
        parts=[
            *([Section("notes", "What to know", noted, kind="notice")] if noted else []),
            *figures[:1],
            Section("results", "Results", [tables.predictions_table(evaluation)]),
            *section("suite", SUITE_TITLE, folded(EVERY, run_suite(evaluation, ""))),
            *figures[1:],
            *signatures({evaluation.corpus: [evaluation]}),
            Section("provenance", "Provenance", [origin]),
        ],
        version=evaluation.version or "",
        results=json.dumps(evaluation.document(), ensure_ascii=False),
        shades=0,
    )
