"""The page: one HTML file that holds its figures, its tables, Plotly and the results themselves."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from calibtrain.report import notices, provenance_tables, tables
from calibtrain.report.appearance import SCRIPT, style_sheet
from calibtrain.report.cells import facts, folded, joined, note, section
from calibtrain.report.display import text_bytes
from calibtrain.report.figures import Figure, Key, Panel
from calibtrain.report.findings import Findings, run_findings, study_findings
from calibtrain.report.grouping import Comparison, compare
from calibtrain.report.head_comparison import heads_section
from calibtrain.report.reading import results_of_run
from calibtrain.report.results import Evaluation, Run, Study
from calibtrain.report.run_figures import run_figures
from calibtrain.report.signatures import signature_table
from calibtrain.report.study_figures import study_figures
from calibtrain.report.suite_tables import run_suite, study_suite

# Nothing may be fetched, whatever a script on the page asks for.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}


def study_page(study: Study) -> str:
    """The report of a study, as HTML."""
    comparison = compare(study)
    return _page(
        title=study.title,
        kind="ablation",
        findings=study_findings(study, comparison),
        parts=[
            notices.failures(study),
            notices.lost_lines({arm.name: arm.run for arm in study.arms}),
            _study_results(study, comparison),
            _study_events(study, comparison),
            _suite(study_suite(study, comparison, study.main) if study.main else ""),
            *_figures(study_figures(study, comparison)),
            _controls(study),
            _signatures(
                {
                    group.label: [e for arm in group.arms for e in arm.scored.values()]
                    for group in comparison.groups
                }
            ),
            _study_provenance(study),
        ],
        version=study.version,
        results=study.text,
        shades=comparison.shades,
    )


def run_page(run: Run) -> str:
    """The report of a single run, as HTML."""
    return _page(
        title=run.name,
        kind="training run",
        findings=run_findings(run),
        parts=[
            notices.unfinished(run),
            notices.lost_lines({"": run}),
            _run_results(run),
            _run_events(run),
            _suite(_run_suite(run)),
            _heads(run),
            *_figures(run_figures(run)),
            section("size", "Size and budget", tables.size_table(run)),
            _signatures(_by_owner(run)),
            _run_provenance(run),
        ],
        version=run.version,
        results=json.dumps(results_of_run(run), ensure_ascii=False),
        shades=0,
    )


def _page(
    *,
    title: str,
    kind: str,
    findings: Findings,
    parts: Iterable[str],
    version: str,
    results: str,
    shades: int,
) -> str:
    from plotly.offline import get_plotlyjs

    body = "\n".join(part for part in parts if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · calibtrain</title>
<style>{style_sheet(shades)}</style>
</head>
<body>
<main>
<header>
<p class="kicker">calibtrain · {escape(kind)}</p>
<h1>{escape(title)}</h1>
<div id="findings">
<p class="lead">{escape(findings.found)}</p>
<p class="limits">{escape(findings.limits)}</p>
</div>
</header>
<noscript><p class="note">The figures need JavaScript; the tables do not.</p></noscript>
{body}
<footer>Made by calibtrain {escape(version)}. This file is complete in itself: it holds its figures
and, as JSON under the id <code>calibtrain-results</code>, the results they show.</footer>
</main>
{_json_script(results, 'id="calibtrain-results"')}
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _json_script(text: str, attributes: str) -> str:
    # `<` occurs in JSON inside strings only, where its escape means the same.
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" {attributes}>{safe}</script>'


# --- sections of both ---------------------------------------------------------------------------


def _suite(content: str) -> str:
    return section("suite", "Calibration suite", content) if content else ""


def _signatures(owners: Mapping[str, Sequence[Evaluation]]) -> str:
    content = signature_table(owners) if any(owners.values()) else ""
    return section("signatures", "Signatures", content) if content else ""


def _by_owner(run: Run) -> dict[str, list[Evaluation]]:
    """The evaluations of a run by name; those on the way, which differ in their step, together."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in run.evaluations:
        last = run.main is None or evaluation.step == run.main.step
        name = _called(evaluation, "" if last else "on the way")
        found.setdefault(name, []).append(evaluation)
    return found


def _called(evaluation: Evaluation, when: str = "") -> str:
    """An evaluation among those of its run; `when` takes the place of its step."""
    event = "" if evaluation.event == "token" else f"by {evaluation.event}"
    limit = "" if evaluation.limit is None else f"about {text_bytes(evaluation.limit)}"
    step = when or f"step {evaluation.step:,}"
    parts = (evaluation.corpus, evaluation.split, event, step, limit, evaluation.tempered)
    return ", ".join(filter(None, parts))


# --- figures -------------------------------------------------------------------------------------


def _figures(figures: Sequence[Figure]) -> list[str]:
    return [_figure(number, figure) for number, figure in enumerate(figures, 1)]


def _figure(number: int, figure: Figure) -> str:
    keys = "".join(f"<li>{_key(key)}</li>" for key in figure.keys)
    key_list = f'<ul class="keys" aria-label="Key">{keys}</ul>' if keys else ""
    panels = "".join(_panel(panel) for panel in figure.panels)
    return (
        f'<figure id="{figure.anchor}">'
        f'<h2><span class="figure-number">Figure {number}.</span> {escape(figure.title)}</h2>'
        f'{key_list}<div class="panels {figure.columns}">{panels}</div>'
        f"<figcaption>{escape(figure.caption)}</figcaption>{figure.below}</figure>"
    )


def _key(key: Key) -> str:
    shape = (
        f'<rect width="14" height="12" x="5" y="1" rx="2" fill="{key.colour}"/>'
        if key.mark == "block"
        else f'<line x1="0" x2="26" y1="7" y2="7" stroke="{key.colour}" stroke-width="2.5" '
        f'stroke-dasharray="{_DASHES.get(key.dash, "")}"/>'
    )
    width = 22 if key.mark == "block" else 26
    return (
        f'<button type="button" aria-pressed="true" data-group="{escape(key.name)}">'
        f'<svg width="{width}" height="14" aria-hidden="true">{shape}</svg>'
        f"{escape(key.name)}</button>"
    )


def _panel(panel: Panel) -> str:
    data = _json_script(panel.plot.to_json() or "", 'class="plot-data"')
    kind = "panel full" if panel.full else "panel"
    return (
        f'<div class="{kind}"><h3>{escape(panel.title)}</h3>'
        f'<div class="plot" role="img" aria-label="{escape(panel.title)}" '
        f'style="height:{panel.height}px"></div>'
        f"{data}</div>"
    )


# --- a study's sections --------------------------------------------------------------------------


def _study_results(study: Study, comparison: Comparison) -> str:
    if not study.main:
        return ""
    others = "".join(
        tables.result_table(study, comparison, name)
        for name in study.evaluations
        if name != study.main
    )
    text = (
        "Numbers are rounded; hold the pointer over one for its full value, or for why it has no "
        "interval. Signed gap is mean confidence minus accuracy: positive is over-confident. "
        "Entropy rate is the mean entropy of the model’s own predictions on the same text."
    )
    return section(
        "results",
        "Results",
        tables.result_table(study, comparison, study.main),
        note(text),
        folded("Other evaluations", others),
        folded("Every arm", tables.arms_table(study)),
    )


def _study_events(study: Study, comparison: Comparison) -> str:
    """Events that do not depend on the tokenizer, apart from those that do."""
    content = "".join(
        tables.result_table(study, comparison, name, event)
        + folded(f"Calibration suite: {name}", study_suite(study, comparison, name))
        for event, names in study.by_event.items()
        for name in names
    )
    return section("events", "Results by other events than the token", content) if content else ""


def _controls(study: Study) -> str:
    rules = facts(
        (name.replace("_", " ").capitalize(), escape(str(value).replace("_", " ")))
        for name, value in study.controls.items()
    )
    held = tables.controls_table(study) if study.held_fixed else ""
    return section("controls", "What was held fixed", rules, held)


def _study_provenance(study: Study) -> str:
    runs = study.runs
    if not runs:
        return section("provenance", "Provenance", _command(study.command))
    return section(
        "provenance",
        "Provenance",
        _command(study.command),
        _software(runs, study.version),
        provenance_tables.corpus_table(runs),
        provenance_tables.tokenizer_table(runs),
    )


def _command(command: str) -> str:
    return f'<p class="note">Command</p><pre>{escape(command)}</pre>'


def _software(runs: Sequence[Run], version: str, *more: tuple[str, str]) -> str:
    return facts(
        [
            ("calibtrain", escape(version)),
            ("JAX", joined(run.jax for run in runs)),
            ("Device", joined(run.device for run in runs)),
            ("Context", joined(f"{run.context_tokens:,} tokens" for run in runs)),
            *more,
        ]
    )


# --- a run's sections ----------------------------------------------------------------------------


def _run_results(run: Run) -> str:
    """The evaluations of tokens: the one the page is about, the last ones, those on the way."""
    main = run.main
    if main is None:
        return ""
    others = [e for e in run.of_tokens if e is not main]
    last = [main, *(e for e in others if e.step == main.step)]
    before = sorted((e for e in others if e.step != main.step), key=lambda e: -e.step)
    text = (
        "Numbers are rounded; hold the pointer over one for its full value, or for why it has no "
        "interval. Brackets are 95 % intervals over documents: they show the sampling of the text, "
        "not the variation between seeds."
    )
    return section(
        "results",
        "Results",
        tables.evaluations_table(last),
        note(text),
        folded("Evaluations on the way", tables.evaluations_table(before)) if before else "",
    )


def _run_events(run: Run) -> str:
    """Evaluations of other events, each event in a table of its own."""
    content = "".join(
        tables.evaluations_table(found, event)
        + "".join(folded(f"Calibration suite: {_called(e)}", run_suite(e, "")) for e in found)
        for event, found in run.by_event.items()
    )
    return section("events", "Results by other events than the token", content) if content else ""


def _heads(run: Run) -> str:
    """Temperature heads that were fitted to the run, side by side."""
    if run.heads is None:
        return ""
    return section("temperature-heads", "Temperature heads", heads_section(run.heads))


def _run_suite(run: Run) -> str:
    """Every metric of the main evaluation; of the others of its step when asked."""
    main = run.main
    if main is None or not (content := run_suite(main, f"{_called(main)}")):
        return ""
    others = [e for e in run.of_tokens if e is not main and e.step == main.step]
    return content + "".join(folded(_called(e), run_suite(e, "")) for e in others)


def _imported(run: Run) -> list[tuple[str, str]]:
    """Where an imported model comes from."""
    about = run.raw.get("imported")
    if not isinstance(about, Mapping):
        return []
    sums = about.get("sha256", {})
    files = ", ".join(f"{name} (SHA-256 {found[:16]})" for name, found in sums.items())
    return [("Imported from", escape(f"{about.get('from')}, {about.get('format')}: {files}"))]


def _run_provenance(run: Run) -> str:
    return section(
        "provenance",
        "Provenance",
        _software(
            [run],
            run.version,
            ("Configuration hash", escape(run.config_hash[:16])),
            *_imported(run),
        ),
        provenance_tables.corpus_table([run]),
        provenance_tables.tokenizer_table([run]),
    )
