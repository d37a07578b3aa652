"""The figures of a single run: along training, reliability, by stratum, memory."""

import math

import plotly.graph_objects as go

from calibtrain.figures.calibration import Line, ece_by_bin, reliability_panel, training_panel
from calibtrain.figures.curves import curves
from calibtrain.figures.display import memory_bytes, shown, shown_ends, text_bytes
from calibtrain.figures.heads import heads_figure
from calibtrain.figures.panels import Figure, Key, Panel, memory_ticks, plot
from calibtrain.figures.strata_figures import strata_figures
from calibtrain.metrics.quantities import number
from calibtrain.runs.records import EvaluationRecord
from calibtrain.runs.results import RunResults

HELD_OUT, TRAINING = "Held-out text", "Training batches"
COLOUR = "var(--cat-0)"
MOST_POINTS = 800


def run_figures(run: RunResults) -> list[Figure]:
    """Every figure for which the run has something to show."""
    figures = []
    if run.measured or run.training:
        figures.append(_along_training(run))
    if run.main is not None:
        lines = [_line(run, run.main)]
        figures.append(_reliability(run, run.main))
        figures += [figure for figure in (curves(lines),) if figure is not None]
        figures += strata_figures(lines)
    if run.heads is not None and (heads := heads_figure(run.heads)) is not None:
        figures.append(heads)
    memory = run.record.memory
    if any((memory.parameters, memory.optimizer, memory.peak_temporary)):
        figures.append(_memory(run))
    return figures


def _line(run: RunResults, *evaluations: EvaluationRecord) -> Line:
    return Line(HELD_OUT, COLOUR, "solid", evaluations, (run,))


def training_loss(run: RunResults) -> list[tuple[float, float]]:
    """Training loss in bits a byte against bytes of text, thinned to what a screen can show.

    The loss is in nats a token; it is brought to bytes by the tokens and bytes seen so far.
    """
    points = [
        (m.bytes, m.values["loss"] * m.tokens / m.bytes / math.log(2))
        for m in run.training
        if m.bytes and m.tokens and "loss" in m.values
    ]
    stride = math.ceil(len(points) / MOST_POINTS) or 1
    return points[::-stride][::-1]


def _along_training(run: RunResults) -> Figure:
    loss = training_loss(run)
    exact = run.record.corpus.entropy_bits_per_byte
    trace = go.Scatter(
        x=[x for x, _ in loss],
        y=[y for _, y in loss],
        mode="lines",
        line={"color": "var(--ink-soft)", "width": 1},
        opacity=0.7,
        legendgroup=TRAINING,
        hovertext=[
            f"{TRAINING}<br>after {text_bytes(x)}<br>{number(y, 3)} bits/byte" for x, y in loss
        ],
        hoverinfo="text",
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
    keys += [Key(TRAINING, "var(--ink-soft)")] if loss else []
    return Figure(
        anchor="training",
        title="Bits per byte, entropy rate and calibration along training",
        caption="The heavy line is the held-out text scored while training, the thin one the "
        "training batches (nats a token brought to bits a byte by the tokens and bytes seen so "
        "far); for a calibrated model, entropy rate and bits per byte agree.",
        panels=tuple(panels),
        keys=tuple(keys),
    )


def _reliability(run: RunResults, main: EvaluationRecord) -> Figure:
    interval = shown_ends("ece", main.interval("ece"))
    title = f"{main.corpus}, {main.split}: ECE {shown('ece', main.ece)}{interval}"
    return Figure(
        anchor="reliability",
        title="Reliability: accuracy against confidence",
        caption=f"Points below the dashed diagonal are over-confident, points above it "
        f"under-confident; a point is one of {main.bins} equal-width bins, its size and the "
        "bars beneath give the share of tokens in the bin, and the last panel weighs "
        "each bin's distance from the diagonal by its share, so that the sizes add up to the ECE.",
        panels=(
            reliability_panel(title, [main], COLOUR, HELD_OUT),
            ece_by_bin([_line(run, main)]),
        ),
    )


def _memory(run: RunResults) -> Figure:
    parameters, memory = run.record.parameters, run.record.memory
    each = (memory.parameters or 0.0) / parameters.total if parameters.total else 0.0
    rows = [
        ("Embedding", parameters.embedding * each, "var(--cat-0)"),
        ("Unembedding", parameters.unembedding * each, "var(--cat-3)"),
        ("Body", parameters.body * each, "var(--cat-6)"),
        ("Optimizer state", memory.optimizer, "var(--cat-2)"),
        ("Peak temporary", memory.peak_temporary, "var(--cat-5)"),
        ("Logits if materialised", memory.logits, "var(--cat-1)"),
    ]
    kept = [(name, size, colour) for name, size, colour in rows if size]
    sizes = [size for _, size, _ in kept]
    bars = go.Bar(
        x=sizes,
        y=[f"{name}<br>{memory_bytes(size)}" for name, size, _ in kept],
        orientation="h",
        marker={"color": [colour for _, _, colour in kept]},
        hoverinfo="text",
        hovertext=[f"{name}<br>{memory_bytes(size)}" for name, size, _ in kept],
    )
    ticks = memory_ticks(sizes, log=False, most=4)
    return Figure(
        anchor="memory",
        title="Memory of one training step",
        caption="What parameters, optimizer and the step's temporaries take as compiled, beside "
        "what tokens × vocabulary logits would take if they were ever held whole.",
        panels=(
            Panel(
                "Bytes, by use",
                plot(
                    [bars],
                    x={"title": "memory (bytes)", **ticks, "range": [0, max(sizes) * 1.05]},
                    y={"title": "use", "autorange": "reversed"},
                    bargap=0.35,
                ),
                height=80 + 46 * len(kept),
            ),
        ),
    )
