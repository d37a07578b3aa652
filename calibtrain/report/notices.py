"""What a page says before its results: what is not done, failed, or was lost."""

from collections.abc import Mapping
from html import escape

from calibtrain.report.cells import section
from calibtrain.report.results import Run, Study


def failures(study: Study) -> str:
    """The arms that are not done."""
    bad = [arm for arm in study.arms if arm.status != "done"]
    if not bad:
        return ""
    items = "".join(
        f"<li><code>{escape(arm.name)}</code> {escape(arm.status)}"
        f"{': ' + escape(arm.error) if arm.error else ''}</li>"
        for arm in bad
    )
    share = f"{len(bad)} of {len(study.arms)} arms did not finish"
    note = '<p class="note">Means and intervals are over the arms that have results.</p>'
    return section(
        "failures", share, f"<ul>{items}</ul>", note if study.main else "", kind="notice"
    )


def unfinished(run: Run) -> str:
    """That a run is not done, and why it failed if it did."""
    if run.status in ("done", "imported"):
        return ""
    place = f"step {run.step:,} of {run.steps:,}"
    if run.status == "failed":
        title = f"This run failed at {place}"
        text = f"<p>{escape(run.error or 'It left no reason.')}</p>"
    else:
        title = f"This run is {run.status}, not done"
        text = f"<p>It stands at {place}; what follows is provisional.</p>"
    return section("unfinished", title, text, kind="notice")


def lost_lines(runs: Mapping[str, Run | None]) -> str:
    """The runs, by their names, whose curves of training are not whole."""
    told = {name: run.lost_lines for name, run in runs.items() if run is not None}
    items = "".join(
        f"<p>{escape(f'{name}: {text}' if name else text)}</p>"
        for name, text in told.items()
        if text
    )
    return (
        section("lost", "Curves of training are not whole", items, kind="notice") if items else ""
    )
