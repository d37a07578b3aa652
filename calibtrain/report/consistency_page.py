"""The report of the samples of one prompt: how far they agree, with both heat maps."""

import json
from collections.abc import Mapping
from typing import Any

from calibtrain.figures.agreement import agreement_figures
from calibtrain.figures.display import plural
from calibtrain.report.blocks import Block, Cell, Head, Pairs, Section, Table, Text, num, titled
from calibtrain.report.findings import Findings
from calibtrain.report.page import numbered, render

_MEASURES = (
    ("agreement", "Share of the samples that give the most frequent answer; biased upwards."),
    ("held_out", "The same, of an answer that is chosen on one half and measured on the other."),
    ("entropy", "1 - entropy of the answers / log of how many answers there are."),
    ("entropy_by_samples", "1 - entropy of the answers / log of how many samples have one."),
    ("fsd", "First-second distance: share of the first answer less that of the second."),
)
_UNCERTAINTIES = ("degree", "eccentricity", "eigenvalue")


def consistency_page(document: Mapping[str, Any], prompt: str | None, version: str) -> str:
    """Returns the page as HTML.

    Args:
        document: what `calibtrain consistency --json` prints.
        prompt: what the samples continue; None for answers of a file.
        version: of calibtrain.
    """
    count, answers = len(document["samples"]), document["answers"]
    verdict = "No sample has an answer: nothing is defined."
    if answers:
        first = answers[0]
        verdict = (
            f"{first['samples']} of {plural(count, 'sample')} give one answer, and "
            f"{plural(len(answers), 'different answer')} were given."
        )
    without = f"{plural(document['without_answer'], 'sample')} without an answer." * bool(
        document["without_answer"]
    )
    figures = numbered(agreement_figures(document), lambda anchor: [])
    origin = [
        (name, str(document[name]))
        for name in ("run", "step", "head", "seed", "extract", "sampling")
        if document.get(name) not in (None, {})
    ]
    notes: list[Block] = [Text(text, "p") for text in document["notes"]]
    asked: list[Block] = [Text(prompt, "pre")] if prompt else []
    return render(
        title="Consistency of samples",
        kind="samples",
        findings=Findings(verdict, without, "", "", ""),
        warnings=(),
        parts=[
            *([Section("notes", "What to know", notes, kind="notice")] if notes else []),
            *([Section("prompt", "Prompt", asked)] if asked else []),
            *figures,
            Section("measures", "Measures", [_measures(document), _uncertainties(document)]),
            Section("answers", "Answers", [_answers(document)]),
            Section("texts", "Texts", [_texts(document)]),
            Section("provenance", "Provenance", [Pairs([("calibtrain", version), *origin])]),
        ],
        version=version,
        results=json.dumps(document, ensure_ascii=False),
        shades=0,
    )


def _measures(document: Mapping[str, Any]) -> Table:
    rows = [
        [titled(name, said, "titled"), num(document[name], _three, "not defined")]
        for name, said in _MEASURES
    ]
    heads = [Head("measure"), Head("value", "0 to 1", numeric=True)]
    return Table("Consistency of answers", heads, rows, explains=True)


def _uncertainties(document: Mapping[str, Any]) -> Table:
    heads = [Head("similarity"), *(Head(name, numeric=True) for name in _UNCERTAINTIES)]
    rows = [
        [titled(name), *(num(own[key], _three) for key in _UNCERTAINTIES)]
        for name, own in document["similarity"].items()
    ]
    return Table("Uncertainty by the similarity of texts: less is more consistent", heads, rows)


def _answers(document: Mapping[str, Any]) -> Table:
    rows = [[titled(each["answer"]), num(each["samples"], str)] for each in document["answers"]]
    return Table("Answers", [Head("answer"), Head("samples", numeric=True)], rows, quiet=True)


def _texts(document: Mapping[str, Any]) -> Table:
    heads = [Head("sample"), Head("text"), Head("answer"), Head("information", "bits", True)]
    rows = [
        [
            titled(str(number)),
            Cell(each["text"]),
            Cell(each["answer"] or ""),
            num(each["information_bits"], "{:.1f}".format),
        ]
        for number, each in enumerate(document["samples"])
    ]
    return Table("Texts", heads, rows, quiet=True)


def _three(value: float) -> str:
    return f"{value:.3f}"
