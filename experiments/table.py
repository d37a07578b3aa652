"""Studies as a Markdown table: each arm beside a base arm, differences paired by seed.

python experiments/table.py runs/losses-kjv --key loss --split test

Of several folders, which must differ in their arms alone, a later one adds to an earlier one's.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path

from calibtrain.figures.display import setting_value
from calibtrain.metrics.quantities import COMPARED, QUANTITIES
from calibtrain.metrics.student import student_half_width
from calibtrain.runs.records import STUDY_FILE, StudyRecord

FIGURES = (*COMPARED, "multiclass_brier", "area_under_roc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="+")
    parser.add_argument("--key", required=True, help="the setting whose first value is the base")
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    studies = [StudyRecord.read(folder / STUDY_FILE) for folder in given.study]
    key = next(name for name in studies[0].grid if name.rpartition(".")[2] == given.key)
    by_vocabulary: dict[int | None, dict[str, dict[int, Mapping[str, float]]]] = {}
    for arm in (arm for study in studies for arm in study.arms):
        if arm.status != "done":
            print(f"not done: {arm.name}: {arm.error}")
            continue
        found = next(
            each.numbers
            for name, each in arm.evaluations.items()
            if name.endswith(f"-{given.split}")
        )
        values = by_vocabulary.setdefault(arm.vocab_size, {})
        seed = arm.settings.get("seed", 0)
        values.setdefault(setting_value(arm.settings[key]), {}).setdefault(seed, found)
    for vocab, rows in by_vocabulary.items():
        base = next(iter(rows.values()))
        print(f"\nV = {vocab:,}\n")
        print(
            f"| {given.key} | seeds | "
            + " | ".join(QUANTITIES[key].heading() for key in FIGURES)
            + " |"
        )
        print("|---" * (2 + len(FIGURES)) + "|")
        for name, seeds in rows.items():
            cells = []
            for figure in FIGURES:
                own = [each[figure] for each in seeds.values()]
                text = QUANTITIES[figure].plain(statistics.fmean(own))
                if seeds is not base:
                    gap = [each[figure] - base[seed][figure] for seed, each in seeds.items()]
                    mean, half = statistics.fmean(gap), student_half_width(gap)
                    beside = f"({mean:+.4f}" + (")" if half is None else f" ±{half:.4f})")
                    is_clear = half is not None and abs(mean) > half
                    text += f" **{beside}**" if is_clear else f" {beside}"
                cells.append(text)
            print(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
