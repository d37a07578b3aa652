"""A Thermometer on each group of documents, whose labels it has not seen.

python experiments/thermometer-left-out/measure.py RUN [RUN ...] --out runs/thermometer \\
    [--data FOLDER]

Groups are the sections of the run's own King James text ("sections"), and texts of different
sources ("sources"): unread King James chapters, Python's documentation and Python's library; and of
FOLDER, which a reader may not have, pepys.jsonl.gz, esperanto.jsonl.gz and soseki.jsonl.gz. Writes
OUT/WHAT-SEED.json, and leaves files that are there as they are.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibtrain.config import CorpusConfig, validate
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.corpora.documents import Document
from calibtrain.data.corpora.named import Columns
from calibtrain.fitting.thermometer import ThermometerRecipe
from calibtrain.posthoc.leave_one_out import leave_one_group_out
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.loading import opened
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import cache_directory

RECIPE = ThermometerRecipe(steps=1000, tokens=256)
EMBEDDED = ("pydoc", "stdlib")
FILES = ("pepys", "esperanto", "soseki")
DOCUMENTS, BYTES = 50, 2000
"""Documents of a source, and how much of the beginning of each is read."""
BY_SOURCE = Columns("text", "source")
FIGURES = ("tokens", "nll", "ece", "signed_gap", "temperature")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    use_compiled_programs(cache_directory())  # each group's fit is the same program
    others = sources(given.data)
    with tempfile.TemporaryDirectory() as folder:
        for path in given.run:
            with opened(path, columns={None: Columns()}) as saved:
                seed, own = saved.config.seed, saved.corpus(None)
            unread = [*own.documents("validation"), *own.documents("test")]
            file = Path(folder) / f"sources-{seed}.jsonl"
            write_sources(file, {"kjv": unread} | others)
            measure(path, given.out / f"sources-{seed}.json", f"files:{file}", BY_SOURCE)
    for path in given.run:
        seed = RunFolder(path).read_config().seed
        measure(path, given.out / f"sections-{seed}.json", None, Columns())


def measure(path: Path, out: Path, corpus: str | None, columns: Columns) -> None:
    """Writes what is found on the groups of a corpus, unless that is there."""
    if not out.exists():
        found = leave_one_group_out(path, corpus=corpus, columns=columns, recipe=RECIPE)
        what, _, seed = out.stem.partition("-")
        out.write_text(json.dumps(summary(what, int(seed), found), indent=1) + "\n")
    print(out.name, flush=True)


def sources(data: Path | None) -> dict[str, Sequence[Document]]:
    """Returns documents of every other source that is there, by its name."""
    found: dict[str, Sequence[Document]] = {}
    for name in EMBEDDED:
        found[name] = _train_documents({"name": name})
    for name in FILES:
        file = None if data is None else data / f"{name}.jsonl.gz"
        if file is None or not file.exists():
            print(f"absent, not measured: {name} (--data names the folder of {name}.jsonl.gz)")
        else:
            found[name] = _train_documents({"name": "files", "paths": [str(file)]})
    return found


def _train_documents(corpus: dict[str, Any]) -> Sequence[Document]:
    settings = validate(CorpusConfig, corpus, "corpus")
    return open_corpus(settings, cache_directory()).documents("train")


def write_sources(file: Path, sources: dict[str, Sequence[Document]]) -> None:
    """Writes the beginnings of documents of each source, evenly spaced, a line per document."""
    with file.open("w", encoding="utf-8") as lines:
        for name, documents in sources.items():
            step = max(1, len(documents) // DOCUMENTS)
            for document in itertools.islice(documents, 0, step * DOCUMENTS, step):
                text = document.text.encode()[:BYTES].decode(errors="ignore")
                lines.write(json.dumps({"text": text, "source": name}) + "\n")


def summary(what: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """Returns what the tables need."""
    groups = {
        each["group"]: {
            row["head"]: {figure: row[figure] for figure in FIGURES} for row in each["rows"]
        }
        for each in found["groups"]
    }
    return {"corpus": what, "seed": seed, "steps": found["steps"], "groups": groups}


if __name__ == "__main__":
    main()
