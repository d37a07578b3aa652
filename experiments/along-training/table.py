"""Figures along training, as Markdown, from runs or from the small file that is made of them.

python experiments/along-training/table.py runs/along-training --save results.json
python experiments/along-training/table.py experiments/along-training/results.json --figure a.svg
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from calibtrain.metrics.student import student_half_width
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import STUDY_FILE, StudyRecord
from calibtrain.storage.metrics import read_metrics

FIGURES = {
    "bits_per_byte": "bits/byte",
    "ece": "ECE",
    "signed_gap": "signed gap",
    "mean_confidence": "confidence",
    "accuracy": "accuracy",
}
EVERY = 3
"""The table shows each third evaluation, and the last."""

Curves = dict[str, list[list[dict[str, float]]]]
"""By loss: for each seed its evaluations in the order of steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a study's folder, or a file that --save wrote")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--figure", type=Path, help="an SVG file (matplotlib)")
    given = parser.parse_args()
    read = read_study if given.source.is_dir() else lambda path: json.loads(path.read_text())
    curves: Curves = read(given.source)
    if given.save:
        given.save.write_text(json.dumps(curves, indent=0) + "\n")
    for loss, seeds in curves.items():
        print_table(loss, seeds)
    if given.figure:
        draw(curves, given.figure)


def read_study(folder: Path) -> Curves:
    """Returns the evaluations of every arm."""
    found: Curves = {}
    for arm in StudyRecord.read(folder / STUDY_FILE).arms:
        lines = read_metrics(RunFolder(folder / arm.name).metrics)
        by_step = {line["step"]: _point(line) for line in lines if "eval/ece" in line}
        curve = [by_step[step] for step in sorted(by_step)]
        found.setdefault(arm.settings["loss"][0]["kind"], []).append(curve)
    return found


def _point(line: dict[str, Any]) -> dict[str, float]:
    own = {figure: round(line[f"eval/{figure}"], 6) for figure in FIGURES}
    return {"step": line["step"], "bytes": line["train/bytes"], **own}


def print_table(loss: str, seeds: list[list[dict[str, float]]]) -> None:
    """Prints means over seeds with Student's 95 % interval, and what decides the claim."""
    print(f"\n**{loss}**, {len(seeds)} seeds\n")
    print("| bytes read | " + " | ".join(FIGURES.values()) + " |")
    print("|---" * (1 + len(FIGURES)) + "|")
    last = min(map(len, seeds)) - 1
    for place in sorted({*range(0, last + 1, EVERY), last}):
        cells = [f"{statistics.fmean(each[place]['bytes'] for each in seeds):,.0f}"]
        for figure in FIGURES:
            sign = "+" if figure == "signed_gap" else ""
            cells.append(interval([each[place][figure] for each in seeds], sign))
        print("| " + " | ".join(cells) + " |")
    print(f"\nECE, last less first: {interval([e[-1]['ece'] - e[0]['ece'] for e in seeds], '+')}")
    low = [min(each, key=lambda point: point["ece"]) for each in seeds]
    rise = [each[-1]["ece"] - lowest["ece"] for each, lowest in zip(seeds, low, strict=True)]
    places = ", ".join(f"{lowest['bytes']:,.0f}" for lowest in low)
    print(f"ECE, last less its lowest: {interval(rise, '+')}; lowest after {places} bytes")
    later = [[point["ece"] for point in each[len(each) // 5 :]] for each in seeds]
    ranks = [_rank_correlation(each) for each in later]
    print(f"rank correlation of ECE and step after the first fifth: {interval(ranks, '+')}")
    ranks = [_rank_correlation([point["ece"] for point in each]) for each in seeds]
    print(f"rank correlation of ECE and step: {interval(ranks, '+')}")


def _rank_correlation(values: list[float]) -> float:
    return float(spearmanr(range(len(values)), values).statistic)


def interval(values: list[float], sign: str = "") -> str:
    """Returns a mean with half of its interval."""
    half = student_half_width(values)
    return f"{statistics.fmean(values):{sign}.4f}" + ("" if half is None else f" ±{half:.4f}")


def draw(curves: Curves, path: Path) -> None:
    """Draws ECE and signed gap against bytes read, a line per seed."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "along"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8.2, 3.4), layout="constrained")
    titles = (("ece", "Token ECE"), ("signed_gap", "Signed gap (above 0: over-confident)"))
    for axes, (key, title) in zip(panels, titles, strict=True):
        for colour, (loss, seeds) in zip(("#0072b2", "#d55e00"), curves.items(), strict=True):
            for number, each in enumerate(seeds):
                x = [point["bytes"] for point in each]
                label = loss.replace("_", " ") if number == 0 else None
                axes.plot(x, [point[key] for point in each], color=colour, label=label)
        axes.axhline(0, color="#666666", linewidth=0.8)
        axes.set_title(title, loc="left")
        axes.set_xlabel("bytes read")
    panels[0].legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
