"""The figures of a study: against its axis, reliability, training, strata, generations, memory."""

from collections.abc import Sequence

from calibtrain.figures.against_axis import against_axis, lead_figure
from calibtrain.figures.calibration import Line, ece_by_bin, reliability_panel, training_panel
from calibtrain.figures.comparable import Lead
from calibtrain.figures.curves import curves
from calibtrain.figures.display import shown_with_half
from calibtrain.figures.grouping import Comparison
from calibtrain.figures.memory import study_memory
from calibtrain.figures.panels import Columns, Figure, Key
from calibtrain.figures.strata_figures import strata_figures
from calibtrain.figures.study_generations import study_generations
from calibtrain.runs.results import StudyResults
from calibtrain.runs.seeds import mean_and_half_width


def study_figures(study: StudyResults, comparison: Comparison, lead: Lead) -> list[Figure]:
    """Returns every figure that the study has data for: first what compares, then the details."""
    if not lead.evaluation:
        figures = []
    else:
        figures = [lead_figure(study, comparison, lead)]
        if lead.event != "token":
            scored = lines_of(study, comparison, lead.evaluation)
            figures.append(_reliability([e for e in scored if e.evaluations], comparison, lead))
    lines = lines_of(study, comparison, study.main)
    scored = [each for each in lines if each.evaluations]
    trained = [each for each in lines if any(run.measured for run in each.runs)]
    keys = _keys(scored)
    figures += [
        against_axis(study, comparison, names[0], event)
        for event, names in study.by_event.items()
        if event != lead.event
    ]
    if scored:
        if not (lead.event == "token" and lead.compares):
            figures.append(against_axis(study, comparison, study.main))
        figures.append(_reliability(scored, comparison, Lead(study.main, "token", compares=False)))
        figures += [figure for figure in (curves(scored, keys),) if figure is not None]
    if trained:
        figures.append(_along_training(study, trained, comparison))
    figures += strata_figures(scored, keys)
    for name in study.by_event.get("word", ())[:1]:
        words = [each for each in lines_of(study, comparison, name) if each.evaluations]
        figures += strata_figures(words, _keys(words), "word")
    figures += study_generations(comparison)
    if any(group.run for group in comparison.groups):
        figures.append(study_memory(comparison))
    return figures


def lines_of(study: StudyResults, comparison: Comparison, evaluation: str) -> list[Line]:
    """Returns a line for each combination of settings, with an evaluation's files and its runs."""
    lines = []
    for group in comparison.groups:
        arms = group.done or group.arms
        lines.append(
            Line(
                name=group.label,
                colour=group.colour,
                dash=group.dash,
                evaluations=tuple(a.scored[evaluation] for a in arms if evaluation in a.scored),
                runs=tuple(arm.run for arm in arms if arm.run is not None),
            )
        )
    return lines


def _keys(lines: Sequence[Line]) -> tuple[Key, ...]:
    return tuple(Key(each.name, each.colour, each.dash) for each in lines) if lines[1:] else ()


def _reliability(lines: Sequence[Line], comparison: Comparison, lead: Lead) -> Figure:
    panels = []
    for each in lines:
        ece = shown_with_half("ece", *mean_and_half_width([e.ece for e in each.evaluations]))
        panels.append(
            reliability_panel(f"{each.name}: ECE {ece}", each.evaluations, each.colour, each.name)
        )
    per = "vocabulary" if comparison.axis == "vocabulary" else "setting"
    bins = lines[0].evaluations[0].bins
    seeds = any(len(each.evaluations) > 1 for each in lines)
    return Figure(
        anchor="reliability" if lead.event == "token" else f"reliability-{lead.event}",
        title=f"Reliability by {lead.event}: accuracy against confidence, by {per}",
        caption=f"Points below the dashed diagonal are over-confident, points above it "
        f"under-confident; a point is one of {bins} equal-width bins"
        f"{' with its seeds pooled' if seeds else ''}, its size and the bars below give the share "
        f"of {lead.event}s in the bin,{' thin lines are single seeds,' if seeds else ''} and the "
        "last panel weighs each bin's distance from the diagonal by its share, so that the sizes "
        f"add up to the ECE{' of the pooled seeds' if seeds else ''}.",
        panels=(*panels, ece_by_bin(lines)),
        keys=_keys(lines),
        columns=_columns(len(panels)) if lines[1:] else "halves",
    )


def _columns(panels: int) -> Columns:
    """Returns the division of a row that leaves the fewest places empty."""
    if panels <= 2:
        return "halves"
    return "quarters" if -panels % 4 < -panels % 3 else "thirds"


def _along_training(study: StudyResults, lines: Sequence[Line], comparison: Comparison) -> Figure:
    exact = study.exact_entropy
    return Figure(
        anchor="training",
        title="Bits per byte, entropy rate and ECE along training",
        caption="Each line is the mean over seeds on the held-out text scored during training, "
        "thin lines are single seeds; for a calibrated model, entropy rate and bits per byte "
        "agree.",
        columns="thirds",
        panels=(
            training_panel("Bits per byte", "bits_per_byte", lines, exact=exact),
            training_panel(
                "Entropy rate of the predictions", "entropy_bits_per_byte", lines, exact=exact
            ),
            training_panel("ECE", "ece", lines, exact=None),
        ),
        keys=_keys(lines),
    )
