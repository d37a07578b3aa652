"""Exploratory tables: what no verdict of HYPOTHESES.md follows from, but a reader asks for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from hypotheses import (
    HEADLINE,
    LARGEST,
    common_sizes,
    ladder,
    level,
    matched,
    over_cells,
    pair_differences,
    unmatched,
)
from slopes import Effect, MixedFit, mixed, pooled, slopes

LEVELS = (
    *("byte_ece", "byte_ece_noise", "byte_ece_perfect", "byte_ece_corrected", "byte_signed_gap"),
    *("byte_debiased_calibration_error", "byte_bits_per_byte", "temperature", "byte_ece_t"),
    *("word_ece", "token_ece", "token_bits_per_byte"),
)
DECILES = tuple(f"mass_gap_{decile}" for decile in range(10))


# --- Markdown -----------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def decimal(value: float | None, digits: int = 5) -> str:
    """A number with fixed decimals; a dash for none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def bounds(effect: Any, digits: int = 5) -> str:
    """The interval of anything that has a lower and an upper end."""
    return f"[{decimal(effect.lower, digits)}, {decimal(effect.upper, digits)}]"


def said(effect: Effect | None, digits: int = 5) -> str:
    """Estimate and interval; a dash for none."""
    return "-" if effect is None else f"{effect.estimate:+.{digits}f} {bounds(effect, digits)}"


# --- tables -------------------------------------------------------------------------------------


def cells(arms: pd.DataFrame) -> str:
    """Which arms there are."""
    keys = ["match", "capacity", "passes", "kind"]
    rows = []
    for key, part in arms.groupby(keys):
        seeds = part.groupby(["corpus", "vocab_size"]).seed.nunique()
        sizes = ", ".join(f"{each:,}" for each in sorted(part.vocab_size.unique()))
        least, most = seeds.min(), seeds.max()
        count = str(least) if least == most else f"{least} to {most}"
        corpora = ", ".join(sorted(part.corpus.unique()))
        rows.append((*map(str, key), sizes, corpora, count, str(len(part))))
    return table((*keys, "vocabularies", "corpora", "seeds", "arms"), rows)


def levels(arms: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the mean over seeds of figures by corpus and vocabulary, with Student's interval."""
    rows = []
    for (corpus, vocab), part in arms.groupby(["corpus", "vocab_size"]):
        row: dict[str, Any] = {"corpus": corpus, "vocab_size": int(vocab), "seeds": len(part)}
        for name in LEVELS:
            if name in part and part[name].notna().all():
                numbers = zip(part.seed, part[name], strict=True)
                effect = Effect.of({str(seed): float(value) for seed, value in numbers})
                row[name] = {
                    "mean": effect.estimate,
                    "lower": effect.lower,
                    "upper": effect.upper,
                }
        rows.append(row)
    return rows


def levels_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The figures of the headline cell by corpus and vocabulary."""
    names = [name for name in LEVELS if any(name in row for row in found)]
    rows = []
    for row in found:
        shown = []
        for name in names:
            if name not in row:
                shown.append("-")
                continue
            half = row[name]["upper"] - row[name]["mean"]
            beside = f" ±{half:.4f}" if math.isfinite(half) else ""
            shown.append(f"{row[name]['mean']:.4f}{beside}")
        rows.append((row["corpus"], f"{row['vocab_size']:,}", str(row["seeds"]), *shown))
    return table(("corpus", "V", "seeds", *(name.replace("_", " ") for name in names)), rows)


def tables(arms: pd.DataFrame) -> list[str]:
    """The exploratory tables, as Markdown: headings and tables in turn."""
    parts = ["# Exploratory", "## Slopes in every cell", _slopes_of_cells(arms)]
    if "mass_gap_0" in arms:
        parts += ["## Mass gap by decile, per doubling, headline cell", _mass(arms)]
    bits = matched(arms)
    if len(bits):
        parts += ["## Equal bits per byte: differences between vocabularies", _pairs(bits)]
        lacking = ", ".join(unmatched(arms))
        parts.append(f"Not measured on the same bytes, and left out: {lacking}." if lacking else "")
    parts += ["## Bits per byte as a covariate", _covariate(arms)]
    if "word_split_ece" in arms:
        parts += ["## Words that are split and words that are kept whole", _words(arms)]
    parts += ["## Other ladders", _other_ladders(arms), "## Checks of the slope", _checks(arms)]
    return parts


def _slopes_of_cells(arms: pd.DataFrame) -> str:
    figures = [
        name
        for name in ("byte_ece", "byte_signed_gap", "byte_ece_t", "word_ece", "token_ece")
        if name in arms
    ]
    rows = [
        (*map(str, key), *(said(pooled(part, name)) for name in figures))
        for key, part in ladder(arms).groupby(["match", "capacity", "passes"])
    ]
    head = ("match", "capacity", "passes", *(name.replace("_", " ") for name in figures))
    return table(head, rows)


def _mass(arms: pd.DataFrame) -> str:
    chosen = ladder(arms, **HEADLINE)
    rows = [
        (
            str(place + 1),
            said(pooled(chosen, name)),
            said(pooled(chosen[chosen.vocab_size > 256], name)),
            said(level(chosen[chosen.vocab_size == LARGEST], name)),
        )
        for place, name in enumerate(DECILES)
        if name in chosen
    ]
    head = ("decile (10 rarest)", "per doubling", "without V = 256", f"gap at V = {LARGEST:,}")
    return table(head, rows)


def _pairs(bits: pd.DataFrame) -> str:
    found = {name: pair_differences(bits, name) for name in ("byte_ece", "byte_ece_t")}
    rows = [
        (pair, said(effect), said(found["byte_ece_t"].get(pair)), decimal(effect.smallest))
        for pair, effect in found["byte_ece"].items()
    ]
    head = ("pair", "byte ECE", "byte ECE after one temperature", "smallest effect")
    return table(head, rows)


def _covariate(arms: pd.DataFrame) -> str:
    """The slope of log2 V beside bits per byte, in each corpus and by the mixed model."""
    body = ladder(arms, match="body")
    found = partial_slopes(body)
    rows = [("mean of corpora", said(found))] if found else []
    fit = mixed(body, "byte_ece", "byte_bits_per_byte") if "byte_bits_per_byte" in body else None
    if fit:
        note = f" ({fit.note})" if fit.note else ""
        rows.append(("mixed model", f"{fit.estimate:+.5f} {bounds(fit)}{note}"))
    return table(("byte ECE per doubling, bits per byte held", "slope"), rows)


def partial_slopes(arms: pd.DataFrame) -> Effect | None:
    """Returns the slope on log2 V at equal bits per byte, by least squares in each corpus.

    Both are taken less their means in each cell and seed: what is compared is vocabularies. With
    one cell, V and bits per byte hardly vary apart, and the interval says so.
    """
    found = {}
    for corpus, part in arms.groupby("corpus"):
        if "byte_bits_per_byte" not in part or part.byte_bits_per_byte.isna().any():
            continue
        keys = ["capacity", "passes", "seed"]
        columns = ["byte_ece", "log2_vocab", "byte_bits_per_byte"]
        centred = part[columns] - part.groupby(keys)[columns].transform("mean")
        design = centred[columns[1:]].to_numpy()
        if np.linalg.matrix_rank(design) == 2:
            found[corpus] = float(np.linalg.lstsq(design, centred.byte_ece.to_numpy())[0][0])
    return Effect.of(found) if found else None


def _words(arms: pd.DataFrame) -> str:
    chosen = ladder(arms, **HEADLINE)
    rows = []
    for vocab, part in chosen[chosen.kind == "bpe"].groupby("vocab_size"):
        shown = [f"{vocab:,}"]
        for group in ("whole", "split"):
            events = part[f"word_{group}_events"].mean()
            shown += [f"{events:,.0f}", said(level(part, f"word_{group}_ece"), 4)]
            shown.append(said(level(part, f"word_{group}_signed_gap"), 4))
        rows.append(shown)
    each = ("words", "ECE", "signed gap")
    head = ("V", *(f"{group}: {name}" for group in ("whole", "split") for name in each))
    return table(head, rows)


def _other_ladders(arms: pd.DataFrame) -> str:
    """Total- against body-matched parameters, and unigram against BPE, at the same sizes."""
    rows = [
        (name, figure.replace("_", " "), said(first), said(second), said(difference))
        for figure in ("byte_ece", "byte_signed_gap")
        for name, first, second, difference in comparisons(arms, figure)
    ]
    head = ("comparison", "figure", "first, per doubling", "second", "difference")
    return table(head, rows) if rows else "No such arms."


def comparisons(
    arms: pd.DataFrame, figure: str
) -> list[tuple[str, Effect | None, Effect | None, Effect | None]]:
    """Returns slopes of two sets of arms in the headline cell, and their paired difference."""
    body = ladder(arms, **HEADLINE)
    total = ladder(arms, **{**HEADLINE, "match": "total"})
    other = arms[(arms.kind == "unigram") & (arms.match == "body")]
    other = other[(other.capacity == "large") & (other.passes == 4)]
    sizes = sorted(other.vocab_size.unique())
    found = []
    for name, first, second in (
        ("total- less body-matched", total, body[body.vocab_size.isin(total.vocab_size)]),
        ("unigram less BPE", other, body[body.vocab_size.isin(sizes)]),
    ):
        if len(first) and len(second):
            tables = [slopes(each, figure).mean(axis=1) for each in (first, second)]
            gap = (tables[0] - tables[1]).dropna().to_dict()
            found.append(
                (
                    name,
                    pooled(first, figure),
                    pooled(second, figure),
                    Effect.of(gap) if gap else None,
                )
            )
    return found


def _checks(arms: pd.DataFrame) -> str:
    """Without V = 256, the ends of the ladder alone, and the departure from a straight line."""
    chosen = ladder(arms, **HEADLINE)
    rows = []
    for name in ("byte_ece", "byte_signed_gap"):
        without = pooled(chosen[chosen.vocab_size > 256], name)
        ends = pair_differences(chosen, name)
        widest = list(ends)[len(chosen.vocab_size.unique()) - 2] if ends else None
        rows.append(
            (
                name.replace("_", " "),
                said(without),
                f"{said(ends[widest])} ({widest})" if widest else "-",
                said(curvature(chosen, name)),
            )
        )
    head = ("figure", "slope without V = 256", "ends of the ladder", "curvature per doubling²")
    return table(head, rows)


def curvature(arms: pd.DataFrame, figure: str) -> Effect | None:
    """Returns the mean over corpora of the coefficient of (log2 V)^2 beside a straight line."""
    found = {}
    for corpus, part in arms.groupby("corpus"):
        means = part.groupby("log2_vocab")[figure].mean().dropna()
        if len(means) > 3:
            found[corpus] = float(np.polyfit(means.index, means.to_numpy(), 2)[0])
    return Effect.of(found) if found else None


def mean_over_cells(arms: pd.DataFrame, figure: str) -> Effect | None:
    """The slope by corpus, in the mean over the cells of capacity and budget."""
    return over_cells(common_sizes(arms), figure, ["capacity", "passes"])


# --- as data ------------------------------------------------------------------------------------


def found(arms: pd.DataFrame) -> dict[str, Any]:
    """Returns the exploratory effects as plain data."""
    chosen, bits = ladder(arms, **HEADLINE), matched(arms)
    effects: dict[str, Effect | None] = {
        "byte ECE per doubling, bits per byte held": partial_slopes(ladder(arms, match="body")),
        "byte ECE per doubling, without V = 256": pooled(
            chosen[chosen.vocab_size > 256], "byte_ece"
        ),
        "byte ECE, curvature": curvature(chosen, "byte_ece"),
        **{f"matched bits: {name}": e for name, e in pair_differences(bits, "byte_ece").items()},
    }
    for name in DECILES:
        if name in chosen:
            effects[f"{name} per doubling"] = pooled(chosen, name)
    for figure in ("byte_ece", "byte_signed_gap"):
        for name, _, _, difference in comparisons(arms, figure):
            effects[f"{figure}: {name}"] = difference
    return {
        name: {**vars(e), "values": dict(e.values), "smallest": e.smallest}
        for name, e in effects.items()
        if e is not None
    }


def sentences(
    arms: pd.DataFrame, effects: Mapping[str, Effect], fits: Mapping[str, MixedFit]
) -> list[str]:
    """One sentence each on what is explored, labelled so."""
    lines = []
    for name, what in (
        ("byte_bits_per_byte", "bits per byte of byte events"),
        ("byte_smooth_calibration_error", "byte SmoothECE"),
        ("temperature", "the fitted temperature"),
        ("byte_ece_t", "the byte ECE after one temperature"),
    ):
        if name in effects:
            lines.append(
                f"Exploratory: per doubling of V {what} changes by {said(effects[name])}; "
                f"smallest effect with 80 % power {decimal(effects[name].smallest)}."
            )
    held = partial_slopes(ladder(arms, match="body"))
    if held:
        lines.append(
            f"Exploratory: with bits per byte held by regression the byte ECE changes by "
            f"{said(held)} per doubling of V."
        )
    for name, fit in fits.items():
        note = f" ({fit.note})" if fit.note else ""
        lines.append(
            f"Exploratory: the mixed model over all cells gives {name.replace('_', ' ')} "
            f"{fit.estimate:+.5f} {bounds(fit)} per doubling{note}."
        )
    return lines
