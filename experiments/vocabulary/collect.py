"""Study folders -> results/arms.parquet (a row per arm) and results/documents.parquet.

Reads records only: run.json, config.yaml, the files in evaluations/ and the fitted temperature.
Arms that did not finish are left out, and named.

A study whose folder is called CORPUS-bits... is one of arms matched in bits per byte.

python experiments/vocabulary/collect.py runs/vocabulary/*
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypotheses import KEYS
from slopes import corrected_error, noisy_gaps

from calibtrain.config.yaml_text import read_tree
from calibtrain.errors import UserError
from calibtrain.library.result import EvaluationResult
from calibtrain.metrics.debiased import debiased_square
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import STUDY_FILE, ArmRecord, RunRecord, StudyRecord
from calibtrain.storage.json_text import read_json

BIN_COLUMNS = ("bin_events", "bin_confidence", "bin_correct")
RESULTS = Path(__file__).parent / "results"
EVENTS = ("token", "byte", "word")
FIGURES = (
    *("ece", "smooth_calibration_error", "debiased_calibration_error", "signed_gap", "nll"),
    *("bits_per_byte", "entropy_bits_per_byte", "accuracy", "mean_confidence", "tokens", "bytes"),
    *("brier", "brier_reliability", "brier_resolution", "brier_uncertainty"),
)
LANGUAGES = {"kjv": "English", "pepys": "English", "soseki": "Japanese", "esperanto": "Esperanto"}
LANGUAGES |= {"stdlib": "Python", "pydoc": "English", "markov": "none"}
CAPACITIES = {(48, 2): "small", (96, 3): "large"}
"""Width and depth of the base configuration."""
PASSES = (1, 4)
ONE_PASS = 480_000
"""Budget in bytes that is called one pass over the training text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+", help="folders with ablation.json")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    arms: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    try:
        for folder in given.studies:
            for arm, rows in read_study(folder):
                arms.append(arm)
                documents += rows
        require_distinct(arms)
    except UserError as error:
        sys.exit(f"error: {error}")
    write(given.out, arms, documents)
    print(f"{given.out}: {len(arms)} arms, {len(documents):,} rows of documents")


def write(out: Path, arms: Sequence[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> None:
    """Writes both tables, in an order that does not depend on the folders'."""
    out.mkdir(parents=True, exist_ok=True)

    def place(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{row[key]:>12}" for key in KEYS)

    ordered = sorted(arms, key=place)
    names = dict.fromkeys(name for row in ordered for name in row if row[name] is not None)
    table = pa.table({name: [row.get(name) for row in ordered] for name in names})
    pq.write_table(table, out / "arms.parquet", compression="zstd")
    rows = sorted(documents, key=lambda row: (*place(row), row["event"], row["index"]))
    columns: dict[str, Any] = (
        {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    )
    for name in BIN_COLUMNS:
        if name in columns:
            cells = np.array(columns[name], np.float32)  # sums of a document: a part in 10^7
            columns[name] = pa.FixedSizeListArray.from_arrays(
                pa.array(cells.ravel()), cells.shape[1]
            )
    pq.write_table(pa.table(columns), out / "documents.parquet", compression="zstd")


def require_distinct(arms: Iterable[Mapping[str, Any]]) -> None:
    """Raises a UserError where two arms have the same keys, so that one would count twice."""
    seen: dict[tuple[Any, ...], str] = {}
    for arm in arms:
        key = tuple(arm[name] for name in KEYS)
        if key in seen:
            raise UserError(
                f"{arm['folder']}: is the same arm as {seen[key]} ({key}); leave one out"
            )
        seen[key] = arm["folder"]


def read_study(folder: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yields the row of each arm of a study that is done, with the rows of its documents."""
    study = StudyRecord.read(folder / STUDY_FILE)
    base = read_tree(folder / "study.yaml")["base"]
    is_of_bits = "-bits" in folder.resolve().name
    match = "bits" if is_of_bits else str(study.controls.get("parameters"))
    for arm in study.arms:
        if arm.status != "done":
            print(f"not done: {folder / arm.folder}: {arm.error or arm.status}", file=sys.stderr)
            continue
        yield read_arm(folder, arm, base, match)


def read_arm(
    study: Path, arm: ArmRecord, base: Mapping[str, Any], match: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the row of an arm, and the rows of its documents (byte events, no temperature).

    Args:
        study: the study's folder.
        arm: what ablation.json says of it.
        base: the study's base configuration: the capacity before widths are solved for.
        match: body, total or bits.
    """
    folder = study / arm.folder
    run, config = RunRecord.read(folder / "run.json"), read_tree(folder / "config.yaml")
    asked = {
        key: arm.settings.get(f"model.{key}", base["model"][key]) for key in ("width", "depth")
    }
    size = (int(asked["width"]), int(asked["depth"]))
    trained = run.budget.bytes or 0.0
    passes = trained / ONE_PASS
    near = min(PASSES, key=lambda each: abs(passes - each))
    passes = near if abs(passes / near - 1) < 0.05 else round(passes, 3)
    corpus = corpus_name(config["corpus"])
    kind = run.tokenizer.kind
    vocab = 256 if kind == "byte" else run.tokenizer.vocab_size
    row: dict[str, Any] = {
        "corpus": corpus,
        "language": LANGUAGES.get(corpus, "unknown"),
        "kind": kind,
        "vocab_size": vocab,
        "log2_vocab": float(np.log2(vocab)),
        "capacity": CAPACITIES.get(size, f"{size[0]}x{size[1]}"),
        "passes": 0.0
        if match == "bits"
        else near
        if abs(passes / near - 1) < 0.05
        else round(passes, 3),
        "match": match,
        "seed": int(config["seed"]),
        "budget_bytes": float(trained),
        "body_parameters": run.parameters.body,
        "embedding_parameters": run.parameters.embedding + run.parameters.unembedding,
        "bytes_per_token": run.tokenizer.bytes_per_token,
        "temperature": fitted_temperature(folder),
        "folder": arm.folder,
        "corpus_hash": run.corpus.content_hash,
        "config_hash": run.config_hash,
        "version": run.version,
        "device": run.device,
    }
    keys = {name: row[name] for name in KEYS}
    documents: list[dict[str, Any]] = []
    for path in sorted((folder / "evaluations").glob("*.json")):
        found = EvaluationRecord.read(path)
        if found.split != "test" or found.step != run.step:
            continue
        if found.corpus_hash != run.corpus.content_hash:
            continue
        plain = found.temperature in (1.0, None)
        if not plain and not str(found.temperature).startswith("global"):
            continue
        prefix, suffix = found.event, "" if plain else "_t"
        if f"{prefix}_ece{suffix}" in row and row[f"{prefix}_bytes{suffix}"] >= found.bytes:
            continue
        row |= figures(found, prefix, suffix)
        if found.event in ("byte", "word") and path.with_suffix(".parquet").is_file():
            rows, more = of_documents(path)
            row |= {f"{prefix}_{name}{suffix}": value for name, value in more.items()}
            if found.event == "byte" and plain and has_rows(row):
                documents = [{**keys, "event": "byte", **each} for each in rows]
    return row, documents


def has_rows(arm: Mapping[str, Any]) -> bool:
    """Whether the rows of an arm's documents are kept: of the headline cell and the bits set."""
    is_matched = arm["match"] == "bits" or (arm["match"] == "body" and arm["passes"] == 4)
    return is_matched and arm["capacity"] == "large" and arm["kind"] != "unigram"


def corpus_name(corpus: Mapping[str, Any]) -> str:
    """The name of a corpus in a configuration; of files, that of the first without its endings."""
    name = str(corpus["name"])
    if not name.startswith("files"):
        return name
    file = corpus["paths"][0] if corpus["paths"] else name.removeprefix("files:")
    return Path(file).name.partition(".")[0]


def fitted_temperature(folder: Path) -> float | None:
    """The temperature of the run's global head; None where none is fitted."""
    for path in sorted((folder / "temperature").glob("*/head.json")):
        about = read_json(path)
        if about["temperature"]["kind"] == "global":
            return float(about["value"])
    return None


def figures(found: EvaluationRecord, prefix: str, suffix: str) -> dict[str, Any]:
    """Returns the figures of an evaluation as columns PREFIX_FIGURE_SUFFIX, and its groups'."""
    row = {f"{prefix}_{name}{suffix}": found.get(name) for name in FIGURES if name in found}
    if found.event == "token":
        for each in found.frequency_mass or ():
            row[f"mass_gap_{each.decile - 1}{suffix}"] = each.gap
            row[f"mass_observed_{each.decile - 1}{suffix}"] = each.observed_share
    for each in found.word_pieces or ():
        for name, column in (("ece", "ece"), ("signed_gap", "signed_gap"), ("tokens", "events")):
            row[f"word_{each.name}_{column}{suffix}"] = each.get(name)
        row[f"word_{each.name}_confidence{suffix}"] = each.get("mean_confidence")
    if found.event != "token":
        row[f"{prefix}_bins{suffix}"] = found.bins
        row[f"{prefix}_text{suffix}"] = found.sample.text_hash if found.sample else None
    return row


def of_documents(path: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns the rows of an evaluation's documents, and what they say of the noise of the ECE.

    `ece_noise` is what a calibrated model would show with noise like this, `ece_corrected` the ECE
    of which the estimate is the median.
    """
    table = EvaluationResult.read(path).documents
    if "bin_events" not in table:
        return [], {}
    names = ("index", "document", "bytes", "tokens", "nll", "entropy", "confidence", "correct")
    columns = {name: table[name] for name in (*names, *BIN_COLUMNS) if name in table}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, noise_figures(np.stack([columns[name] for name in BIN_COLUMNS], -1))


def noise_figures(tables: Any) -> dict[str, float]:
    """Returns figures of an arm's tables of documents [documents, bins, 3] that say its noise."""
    gaps, whole = noisy_gaps(tables), tables.sum(0)
    count = np.maximum(whole[:, 0], 1)
    mean = whole[:, 1] / count
    perfect = np.sqrt(2 / np.pi * count * mean * (1 - mean)).sum() / whole[:, 0].sum()
    return {
        "ece_noise": float(gaps.errors(0.0).mean()),
        "ece_corrected": corrected_error(gaps),
        "ece_perfect": float(perfect),
        "ece_squared": float(debiased_square(whole)),
    }


if __name__ == "__main__":
    main()
