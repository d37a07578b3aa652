"""The figure of the study: byte ECE and signed gap against V, a line per corpus, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Distinguishable with colour-blindness (Okabe and Ito); markers differ as well."""
MARKERS = "osD^vPX"
STYLE = {
    "svg.hashsalt": "vocabulary",  # ids that do not change from run to run
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that texts have the same width
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#e5e5e5",
}


def draw(levels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the headline cell.

    Args:
        levels: rows of `exploration.levels`: means by corpus and vocabulary, with intervals.
        path: the SVG file.
    """
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8.2, 3.9), layout="constrained")
        corpora = sorted({row["corpus"] for row in levels})
        ticks = sorted({row["vocab_size"] for row in levels})
        for axes, name, title in (
            (panels[0], "byte_ece", "Byte ECE (0 is calibrated)"),
            (panels[1], "byte_signed_gap", "Signed gap (above 0: over-confident)"),
        ):
            for place, corpus in enumerate(corpora):
                rows = [row for row in levels if row["corpus"] == corpus and name in row]
                _line(axes, rows, name, place, len(corpora), corpus)
            axes.axhline(0, color="#666666", linewidth=0.8)
            axes.set_title(title)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value):,}"))
            axes.set_xlabel("vocabulary size V (bars: 95 % over seeds)")
            axes.grid(axis="y")
        _reference(panels[0], levels, ticks)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False
        )
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
        plt.close(figure)


def _line(
    axes: Any, rows: Sequence[Mapping[str, Any]], name: str, place: int, count: int, label: str
) -> None:
    """A corpus: means with bars of the interval over seeds, a little apart from its neighbours."""
    shift = 2 ** (0.05 * (place - (count - 1) / 2))
    axes.errorbar(
        [row["vocab_size"] * shift for row in rows],
        [row[name]["mean"] for row in rows],
        yerr=[
            [row[name]["mean"] - row[name]["lower"] for row in rows],
            [row[name]["upper"] - row[name]["mean"] for row in rows],
        ],
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=4.5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2,
        label=label,
    )


def _reference(axes: Any, levels: Sequence[Mapping[str, Any]], ticks: Sequence[int]) -> None:
    """What a perfect model with these confidences would show, least and most over the corpora."""
    name = "byte_ece_noise"
    known = [row for row in levels if name in row]
    if not known:
        return
    by_vocab = {v: [r[name]["mean"] for r in known if r["vocab_size"] == v] for v in ticks}
    axes.fill_between(
        ticks,
        [min(by_vocab[vocab]) for vocab in ticks],
        [max(by_vocab[vocab]) for vocab in ticks],
        color="#bbbbbb",
        alpha=0.5,
        linewidth=2,
        edgecolor="#bbbbbb",
        label="a perfect model (noise)",
    )
    axes.set_ylim(bottom=0)
