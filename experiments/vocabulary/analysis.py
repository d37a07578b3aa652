"""results/*.parquet -> results/tables.md, results/findings.json and results/vocabulary.svg.

Every verdict of HYPOTHESES.md is printed, one sentence each. Nothing is trained and nothing is
random: draws of noise have fixed seeds.

python experiments/vocabulary/analysis.py [--results FOLDER]
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import exploration as explore
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from figure import draw
from hypotheses import HEADLINE, KEYS, Verdict, judged, ladder, matched
from slopes import (
    Effect,
    Interval,
    mean_interval,
    mixed,
    noisy_gaps,
    pooled,
    slope_intervals,
    slopes,
)

RESULTS = Path(__file__).parent / "results"
BINS = ("bin_events", "bin_confidence", "bin_correct")
FIGURES = {
    "byte_ece": "byte ECE",
    "byte_ece_corrected": "byte ECE, corrected for noise",
    "byte_debiased_calibration_error": "byte debiased error",
    "byte_smooth_calibration_error": "byte SmoothECE",
    "byte_signed_gap": "byte signed gap",
    "byte_ece_noise": "byte ECE of a perfect model, by the documents' noise",
    "byte_ece_perfect": "byte ECE of a perfect model, of independent events",
    "byte_bits_per_byte": "bits per byte, of byte events",
    "byte_accuracy": "byte accuracy",
    "byte_brier_reliability": "byte Brier reliability",
    "byte_brier_resolution": "byte Brier resolution",
    "byte_entropy_bits_per_byte": "byte entropy, bits per byte",
    "temperature": "fitted temperature",
    "byte_ece_t": "byte ECE after one temperature",
    "byte_ece_corrected_t": "the same, corrected for noise",
    "byte_smooth_calibration_error_t": "byte SmoothECE after one temperature",
    "byte_signed_gap_t": "byte signed gap after one temperature",
    "word_ece": "word ECE",
    "word_signed_gap": "word signed gap",
    "token_ece": "token ECE",
    "token_signed_gap": "token signed gap",
    "token_bits_per_byte": "bits per byte, of tokens",
}
"""Figures whose change per doubling of V is given, with their names."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    tables, findings = analysed(given.results)
    (given.results / "tables.md").write_text(tables, encoding="utf-8")
    text = json.dumps(rounded(findings), indent=1, ensure_ascii=False)
    (given.results / "findings.json").write_text(text + "\n", encoding="utf-8")
    draw(findings["levels"], given.results / "vocabulary.svg")
    for sentence in findings["sentences"]:
        print(sentence)


def analysed(results: Path) -> tuple[str, dict[str, Any]]:
    """Returns the tables as Markdown, and everything found as plain data."""
    path = results / "arms.parquet"
    if not path.is_file():
        sys.exit(f"error: {path} is missing; collect.py makes it from the studies")
    arms = pq.read_table(path).to_pandas()
    chosen = ladder(arms, **HEADLINE)
    verdicts = judged(arms)
    effects = {
        name: effect
        for name in FIGURES
        if name in chosen and (effect := pooled(chosen, name)) is not None
    }
    documents = results / "documents.parquet"
    these = {
        f"{name}: {key}": interval
        for name, part in (("headline", chosen), ("equal bits per byte", matched(arms)))
        for key, interval in of_these_texts(documents, part).items()
    }
    fits = {
        name: found
        for name in ("byte_ece", "byte_signed_gap", "token_ece")
        if name in arms and (found := mixed(ladder(arms, match="body"), name)) is not None
    }
    levels = explore.levels(chosen)
    findings: dict[str, Any] = {
        "arms": len(arms),
        "corpora": sorted(arms.corpus.unique()),
        "sentences": [*sentences(verdicts), *explore.sentences(arms, effects, fits)],
        "verdicts": [verdict_data(each) for each in verdicts],
        "effects": {name: effect_data(effect) for name, effect in effects.items()},
        "these_texts": {name: interval_data(each) for name, each in these.items()},
        "mixed": {name: vars(fit) for name, fit in fits.items()},
        "levels": levels,
        "explored": explore.found(arms),
    }
    parts = [
        "# Tables of the vocabulary study",
        "Written by `analysis.py` from the Parquet files beside it. Brackets hold 95 % intervals. "
        "A slope is the change per doubling of V.",
        "## Arms",
        explore.cells(arms),
        "## Verdicts",
        "\n".join(f"- {sentence}" for sentence in sentences(verdicts)),
        "## Effect of a doubling of V, headline cell",
        effects_table(effects),
        "Per corpus, with Student's interval over seeds:",
        corpora_table(chosen, effects),
        "## Byte ECE per doubling: these very texts",
        these_table(these),
        "## Hierarchical regression, all cells with matched body parameters",
        fits_table(fits, arms),
        "## By vocabulary, headline cell",
        explore.levels_table(levels),
        *explore.tables(arms),
    ]
    return "\n\n".join(filter(None, parts)) + "\n", findings


def sentences(verdicts: Sequence[Verdict]) -> list[str]:
    """One sentence per verdict."""
    elsewhere = "H6: decided by generations of these arms, in experiments/entropy-rate."
    return [*(each.sentence() for each in verdicts), elsewhere]


# --- the noise of test documents ----------------------------------------------------------------


def of_these_texts(path: Path, arms: pd.DataFrame) -> dict[str, Interval]:
    """Returns the slope of the byte ECE by corpus and interval, and its mean over these corpora.

    Keys are CORPUS (documents | seeds | both), and "mean of these corpora (both)".

    Args:
        path: the table of documents.
        arms: those of a cell; seeds that lack a vocabulary are left out.

    Raises:
        SystemExit: rows are missing, or arms of a corpus were measured on different documents.
    """
    if not path.is_file() or not len(arms):
        return {}
    table = pq.read_table(path).to_pandas()
    whole = arms.groupby("corpus").vocab_size.transform("nunique")
    arms = arms[arms.groupby(["corpus", "seed"]).vocab_size.transform("nunique") == whole]
    rows = table.merge(arms[list(KEYS)], on=list(KEYS)) if len(table) else table
    found: dict[str, Interval] = {}
    of_documents, of_seeds, counts, noises = [], [], [], []
    for corpus, part in rows.groupby("corpus"):
        models: dict[int, list[Any]] = {}
        measured = {}
        for (vocab, seed), each in part.groupby(["vocab_size", "seed"]):
            each = each.sort_values("index")
            measured[vocab, seed] = tuple(zip(each["index"], each["bytes"], strict=True))
            cells = np.stack([np.stack(each[name].to_list()) for name in BINS], -1)
            models.setdefault(vocab, []).append(noisy_gaps(cells.astype(float)))
        if len(set(measured.values())) > 1:
            sys.exit(f"error: {path}: arms of {corpus} were measured on different documents")
        if len(measured) != (arms.corpus == corpus).sum():
            sys.exit(f"error: {path}: lacks documents of some arms of {corpus}; collect again")
        if len(models) < 2:
            continue
        *intervals, noise = slope_intervals(models)
        for name, each in zip(("documents", "seeds", "both"), intervals, strict=True):
            found[f"{corpus} ({name})"] = each
        of_documents.append(intervals[0])
        of_seeds.append(intervals[1])
        counts.append(min(len(each) for each in models.values()))
        noises.append(noise)
    if noises:
        mean = mean_interval(of_documents, of_seeds, counts, noises)
        found["mean of these corpora (both)"] = mean
    return found


# --- as data and as Markdown --------------------------------------------------------------------


def effect_data(effect: Effect) -> dict[str, Any]:
    """An effect as plain data."""
    return {**vars(effect), "values": dict(effect.values), "smallest": effect.smallest}


def interval_data(interval: Interval) -> dict[str, Any]:
    """An interval as plain data."""
    return dict(vars(interval))


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data."""
    test = verdict.test
    return {
        "name": test.name,
        "claim": test.claim,
        "verdict": verdict.verdict,
        "figure": test.figure,
        "adjusted_p": verdict.adjusted,
        "effect": effect_data(test.effect) if test.effect else None,
        "more": {name: effect_data(each) for name, each in test.more.items()},
    }


def rounded(value: Any) -> Any:
    """Plain data with 6 significant digits, the same on every machine; NaN is null."""
    if isinstance(value, Mapping):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def effects_table(effects: Mapping[str, Effect]) -> str:
    """The mean over corpora for every figure."""
    rows = [
        (
            FIGURES[name],
            f"{e.estimate:+.5f}",
            explore.bounds(e),
            explore.decimal(e.p, 4),
            explore.decimal(e.smallest),
            str(len(e.values)),
        )
        for name, e in effects.items()
    ]
    head = ("figure", "per doubling", "interval over corpora", "p", "smallest effect", "corpora")
    return explore.table(head, rows)


def corpora_table(arms: pd.DataFrame, effects: Mapping[str, Effect]) -> str:
    """The slope in every corpus, with the interval over seeds."""
    corpora = sorted(arms.corpus.unique())
    rows = []
    for name in effects:
        found = slopes(arms, name)
        cells = []
        for corpus in corpora:
            if corpus not in found.index:
                cells.append("-")
                continue
            effect = Effect.of({str(k): v for k, v in found.loc[corpus].dropna().items()})
            cells.append(f"{effect.estimate:+.5f} {explore.bounds(effect)}")
        rows.append((FIGURES[name], *cells))
    return explore.table(("figure", *corpora), rows)


def these_table(these: Mapping[str, Interval]) -> str:
    """The noise of documents and of seeds, by corpus."""
    if not these:
        return "There are no rows of documents."
    rows = [
        (name, f"{e.estimate:+.5f}", explore.bounds(e), explore.decimal(e.standard_error))
        for name, e in these.items()
    ]
    return explore.table(("corpus (noise of)", "per doubling", "interval", "standard error"), rows)


def fits_table(fits: Mapping[str, Any], arms: pd.DataFrame) -> str:
    """The mixed model beside the mean of the corpora's slopes in the same arms."""
    body = ladder(arms, match="body")
    rows = []
    for name, fit in fits.items():
        means = explore.mean_over_cells(body, name)
        beside = f"{means.estimate:+.5f} {explore.bounds(means)}" if means else "-"
        note = fit.note or "-"
        rows.append((FIGURES[name], f"{fit.estimate:+.5f}", explore.bounds(fit), beside, note))
    head = ("figure", "mixed model", "interval", "mean of corpora's slopes", "note")
    return explore.table(head, rows) if rows else "Too few corpora."


if __name__ == "__main__":
    main()
