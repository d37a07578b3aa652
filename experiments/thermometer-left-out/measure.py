"""A Thermometer on each group of documents, whose labels it has not seen; on several corpora.

python experiments/thermometer-left-out/measure.py RUN [RUN ...] --out runs/thermometer \
    [--data FOLDER]

FOLDER may hold esperanto.jsonl.gz (groups: `book`) and soseki.jsonl.gz (groups: `work`); without it
kjv and stdlib alone are measured. Writes OUT/CORPUS-SEED.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from calibtrain.data.corpora.named import Columns
from calibtrain.fitting.thermometer import ThermometerRecipe
from calibtrain.posthoc.leave_one_out import leave_one_group_out
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import cache_directory

BYTES = 100_000
RECIPE = ThermometerRecipe(steps=300, tokens=256)
FILES = {"esperanto": "book", "soseki": "work"}
"""Corpora that a reader may not have, and the field of a document's group."""
FIGURES = ("tokens", "nll", "ece", "signed_gap", "temperature")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    use_compiled_programs(cache_directory())  # each group's fit is the same program
    for path in given.run:
        seed = RunFolder(path).read_config().seed
        for name, (corpus, columns) in corpora(given.data).items():
            file = given.out / f"{name}-{seed}.json"
            if not file.exists():
                found = leave_one_group_out(
                    path, corpus=corpus, columns=columns, limit=BYTES, recipe=RECIPE
                )
                file.write_text(json.dumps(summary(name, seed, found), indent=1) + "\n")
            print(file.name, flush=True)


def corpora(data: Path | None) -> dict[str, tuple[str | None, Columns]]:
    """Returns what is measured, by name."""
    found: dict[str, tuple[str | None, Columns]] = {
        "kjv": (None, Columns()),
        "stdlib": ("stdlib", Columns()),
    }
    for name, group in FILES.items():
        file = None if data is None else data / f"{name}.jsonl.gz"
        if file is None or not file.exists():
            print(f"absent, not measured: {name} (--data names the folder of {name}.jsonl.gz)")
            continue
        found[name] = (f"files:{file}", Columns("text", group))
    return found


def summary(name: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """Returns what the tables need."""
    groups = {
        each["group"]: {
            row["head"]: {figure: row[figure] for figure in FIGURES} for row in each["rows"]
        }
        for each in found["groups"]
    }
    return {"corpus": name, "seed": seed, "steps": found["steps"], "groups": groups}


if __name__ == "__main__":
    main()
