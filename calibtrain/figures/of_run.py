"""The figures of a single run: during training, reliability, by stratum, generations, memory."""

import math
from dataclasses import replace

import plotly.graph_objects as go

from calibtrain.figures.calibration import Line, ece_by_bin, reliability_panel, training_panel
from calibtrain.figures.curves import curves
from calibtrain.figures.display import shown, shown_ends, text_bytes
from calibtrain.figures.ensembles import ensemble_figure
from calibtrain.figures.finetuning import finetuning_figures
from calibtrain.figures.generations import analysis_figures
from calibtrain.figures.heads import heads_figure
from calibtrain.figures.lens import lens_figure
from calibtrain.figures.memory import run_memory
from calibtrain.figures.panels import Figure, Key, told
from calibtrain.figures.questions import questions_figures
from calibtrain.figures.strata_figures import strata_figures
from calibtrain.figures.style import SOFT
from calibtrain.metrics.quantities import number
from calibtrain.runs.analysis_records import Analyses
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.results import RunResults

HELD_OUT, TRAINING = "Held-out text", "Training batches"
COLOUR = "var(--cat-0)"
MOST_POINTS = 800


def run_figures(run: RunResults) -> list[Figure]:
    """Returns every figure that the run has data for."""
    figures = []
    if run.main is not None:
        figures.append(_reliability(run.main, _line(run, run.main)))
    if run.finetune is not None and run.measured:
        figures += finetuning_figures(run)
    if run.measured or run.training:
        figures.append(_along_training(run))
    if run.heads is not None and (heads := heads_figure(run.heads)) is not None:
        figures.append(heads)
    if run.main is not None:
        figures += evaluation_figures(run.main, _line(run, run.main))[1:]
    if (words := words_of(run)) is not None:
        figures += strata_figures([_line(run, words)], event="word")
    figures += analysis_figures(run.analyses)
    figures += instrument_figures(run.analyses)
    memory = run.record.memory
    if any((memory.parameters, memory.optimizer, memory.peak_temporary)):
        figures.append(run_memory(run.record))
    return figures


def instrument_figures(found: Analyses) -> list[Figure]:
    """Returns the figures of questions, of the lens, and of ensembles; those that are there."""
    figures = [each for record in found.questions for each in questions_figures(record)]
    figures += map(lens_figure, found.lens)
    for scores in found.ensembles:
        figures.append(ensemble_figure(scores, scores.path.stem if scores.path else "scores"))
    counts: dict[str, int] = {}
    for place, each in enumerate(figures):
        count = counts[each.anchor] = counts.get(each.anchor, -1) + 1
        if count:
            figures[place] = replace(each, anchor=f"{each.anchor}-{count}")
    return figures


def evaluation_figures(main: EvaluationRecord, line: Line | None = None) -> list[Figure]:
    """Returns every figure of an evaluation alone; `line` says how it is drawn."""
    line = line or Line("Predictions", COLOUR, "solid", (main,), ())
    found = [_reliability(main, line), curves([line]), *strata_figures([line])]
    return [figure for figure in found if figure is not None]


def words_of(run: RunResults) -> EvaluationRecord | None:
    """Returns the latest evaluation of words, of the most text; None where there is none."""
    found = run.by_event.get("word", ())
    return max(found, key=lambda e: (e.step, e.bytes), default=None)


def _line(run: RunResults, *evaluations: EvaluationRecord) -> Line:
    return Line(HELD_OUT, COLOUR, "solid", evaluations, (run,))


def training_loss(run: RunResults) -> list[tuple[float, float]]:
    """Returns the training loss in bits per byte against bytes of text, thinned for a screen.

    The loss, in nats per token, is converted by the tokens and bytes read so far.
    """
    points = [
        (m.bytes, m.values["loss"] * m.tokens / m.bytes / math.log(2))
        for m in run.training
        if m.bytes and m.tokens and "loss" in m.values
    ]
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    return points[::-stride][::-1]


def _along_training(run: RunResults) -> Figure:
    # What a fine-tuning minimises is of other text, and has a panel of its own.
    loss = training_loss(run) if run.finetune is None else []
    exact = run.record.corpus.entropy_bits_per_byte
    trace = go.Scatter(
        **told(
            (x, y, f"{TRAINING}<br>after {text_bytes(x)}<br>{number(y, 3)} bits/byte")
            for x, y in loss
        ),
        mode="lines",
        line={"color": SOFT, "width": 1},
        opacity=0.7,
        legendgroup=TRAINING,
    )
    lines = [_line(run)]
    panels = [
        training_panel(
            "Bits per byte", "bits_per_byte", lines, exact=exact, extra=[trace] if loss else []
        )
    ]
    if run.measured:
        panels += [
            training_panel(
                "Entropy rate of the predictions", "entropy_bits_per_byte", lines, exact=exact
            ),
            training_panel("ECE", "ece", lines, exact=None),
            training_panel("Signed gap", "signed_gap", lines, exact=None),
        ]
    keys = [Key(HELD_OUT, COLOUR)] if run.measured else []
    keys += [Key(TRAINING, SOFT)] if loss else []
    return Figure(
        anchor="training",
        title="Bits per byte, entropy rate and calibration along training",
        caption="The heavy line is the held-out text scored during training, the thin one the "
        "training batches (nats per token, converted to bits per byte by the tokens and bytes so "
        "far); for a calibrated model, entropy rate and bits per byte agree.",
        panels=tuple(panels),
        keys=tuple(keys),
    )


def _reliability(main: EvaluationRecord, line: Line) -> Figure:
    interval = shown_ends("ece", main.interval("ece"))
    name = main.corpus if main.step == 0 and not main.bytes else f"{main.corpus}, {main.split}"
    title = f"{name}: ECE {shown('ece', main.ece)}{interval}"
    return Figure(
        anchor="reliability",
        title="Reliability: accuracy against confidence",
        caption=f"Points below the dashed diagonal are over-confident, points above it "
        f"under-confident; a point is one of {main.bins} equal-width bins, its size and the "
        "bars below give the share of events in the bin, and the last panel weighs "
        "each bin's distance from the diagonal by its share, so that the sizes add up to the ECE.",
        panels=(reliability_panel(title, [main], COLOUR, line.name), ece_by_bin([line])),
    )
