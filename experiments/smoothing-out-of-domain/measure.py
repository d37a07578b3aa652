"""Label smoothing in and out of domain, with and without one temperature fitted in domain.

python experiments/smoothing-out-of-domain/measure.py runs/along-training --out runs/smoothing \
    [--data FOLDER]

FOLDER may hold pepys.jsonl.gz and esperanto.jsonl.gz; without it kjv and stdlib alone are measured.
Writes OUT/LOSS-SEED.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from calibtrain.posthoc.compare import compare_heads
from calibtrain.runs.records import STUDY_FILE, StudyRecord
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import cache_directory

BYTES = 40_000
FILES = ("pepys", "esperanto")
"""Corpora that a reader may not have."""
FIGURES = ("nll", "bits_per_byte", "ece", "signed_gap", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    use_compiled_programs(cache_directory())
    texts = corpora(given.data)
    for arm in StudyRecord.read(given.study / STUDY_FILE).arms:
        loss = arm.settings["loss"][0]["kind"]
        file = given.out / f"{loss}-{arm.settings['seed']}.json"
        if not file.exists():
            found = compare_heads(
                given.study / arm.name,
                heads=["global"],
                corpora=list(texts.values()),
                fields=["text"] if len(texts) > 2 else [],
                limit=BYTES,
            )
            tables = dict(zip(texts, found["corpora"], strict=True))
            rows = {name: summary(table["rows"]) for name, table in tables.items()}
            about = {"loss": loss, "seed": arm.settings["seed"], "corpora": rows}
            file.write_text(json.dumps(about, indent=1) + "\n")
        print(file.name, flush=True)


def corpora(data: Path | None) -> dict[str, str]:
    """Returns what is measured: names, and what the commands call them."""
    found = {"kjv": "kjv", "stdlib": "stdlib"}
    for name in FILES:
        file = None if data is None else data / f"{name}.jsonl.gz"
        if file is None or not file.exists():
            print(f"absent, not measured: {name} (--data names the folder of {name}.jsonl.gz)")
        else:
            found[name] = f"files:{file}"
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns the figures without a head, and with one temperature."""
    return {row["head"]: {figure: row[figure] for figure in FIGURES} for row in rows}


if __name__ == "__main__":
    main()
