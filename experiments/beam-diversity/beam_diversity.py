"""Entropy where a beam begins against the diversity of its hypotheses, as Markdown.

python experiments/beam-diversity/beam_diversity.py runs/quickstart/*/ --out runs/beams.json

All runs get the same prompts, cut from the test split.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.analysis.diversity import distinct_ngrams, first_divergences, self_bleu
from calibtrain.analysis.prompts import cut_prompts
from calibtrain.analysis.typicality_figures import rank_correlation
from calibtrain.generation.beam import BeamSearch
from calibtrain.generation.beam_texts import BeamText, beam_texts
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.next_byte import NextByte
from calibtrain.runs.loading import opened

LANES = 16
ENTROPIES = {"next_byte_bits": "next byte", "next_token_bits": "next token"}
DIVERSITIES = {
    "divergences": "first divergences",
    "distinct_2": "distinct word pairs",
    "self_bleu": "self-BLEU",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--corpus", help="by name; the run's own by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=100, help="at most one of a document")
    parser.add_argument("--characters", type=int, default=200, help="of a prompt")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--groups", type=int, default=4, help="of the diverse beam")
    parser.add_argument("--diversity", type=float, default=1.0, help="of the diverse beam, in nats")
    parser.add_argument("--max-bytes", type=int, default=80, help="of a hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write every beam as JSON")
    given = parser.parse_args()
    searches = {
        "plain": BeamSearch(given.width),
        "diverse": BeamSearch(given.width, given.groups, given.diversity),
    }
    found = [measured(run, given, searches) for run in given.runs]
    if given.out:
        given.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")


def measured(
    run: Path, given: argparse.Namespace, searches: dict[str, BeamSearch]
) -> dict[str, Any]:
    """Searches the beams of a run, prints its table and returns a row for every beam."""
    with opened(run) as saved:
        documents = saved.corpus(given.corpus).documents(given.split)
        prompts = [
            prompt.text
            for prompt in cut_prompts(
                documents, count=given.prompts, characters=given.characters, seed=given.seed
            )
        ]
        model = LanguageModel.of(saved)
    byte_entropies = next_byte_entropies(model, prompts)
    rows = []
    for name, search_by in searches.items():
        beams = beam_texts(model, prompts, search_by, max_bytes=given.max_bytes)
        for prompt, bits, beam in zip(prompts, byte_entropies, beams, strict=True):
            rows.append({"search": name, "prompt": prompt, **row_of(beam), "next_byte_bits": bits})
    vocab = model.tokenizer.vocab_size
    print(f"\n{run}: V = {vocab:,}, {len(prompts)} prompts, {given.width} hypotheses each\n")
    show(rows, list(searches))
    settings = {name: value for name, value in vars(given).items() if name not in ("runs", "out")}
    return {"run": str(run), "vocab_size": vocab, **settings, "beams": rows}


def next_byte_entropies(model: LanguageModel, prompts: Sequence[str]) -> list[float]:
    """The entropy of the next byte after each prompt, in bits; the end of text is a byte too."""
    tokenizer, found = model.tokenizer, []
    states = NextByte.of(
        model.network,
        model.params,
        ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id),
        lanes=LANES,
        context=model.context,
    )
    ids = [model.prompt_ids(prompt)[-model.context :] for prompt in prompts]
    for first in range(0, len(ids), LANES):
        states.start(ids[first : first + LANES])
        for p in states.predict()[: len(ids[first : first + LANES])]:
            found.append(-float(np.sum(p[p > 0] * np.log2(p[p > 0]))))
    return found


def row_of(beam: Sequence[BeamText]) -> dict[str, Any]:
    """What is known of a beam: the entropy at its beginning, its texts and their diversity."""
    texts = [each.text for each in beam]
    best = beam[0]
    return {
        "next_token_bits": best.hypothesis.entropies[0] / math.log(2),
        "divergences": len(first_divergences([text.encode() for text in texts])),
        "distinct_2": distinct_ngrams([text.split() for text in texts], 2),
        "self_bleu": self_bleu(texts),
        "best_bits_per_byte": best.information_bits / max(1, best.bytes),
        "texts": texts,
        "information_bits": [each.information_bits for each in beam],
    }


def show(rows: Sequence[dict[str, Any]], searches: Sequence[str]) -> None:
    """Prints means of each search, and rank correlations with 95 % intervals over prompts."""
    heading = " | ".join(DIVERSITIES.values())
    print(f"| search | {heading} | bits/byte of the best |")
    print("|---" * (2 + len(DIVERSITIES)) + "|")
    for search in searches:
        own = [row for row in rows if row["search"] == search]
        means = [np.nanmean([row[key] for row in own]) for key in DIVERSITIES]
        best = np.mean([row["best_bits_per_byte"] for row in own])
        print(f"| {search} | " + " | ".join(f"{mean:.2f}" for mean in means) + f" | {best:.3f} |")
    print("\nSpearman's rank correlation with the entropy at the source\n")
    print(f"| search, entropy | {heading} |")
    print("|---" * (1 + len(DIVERSITIES)) + "|")
    for search in searches:
        own = [row for row in rows if row["search"] == search]
        for entropy, title in ENTROPIES.items():
            cells = [correlation(own, entropy, key) for key in DIVERSITIES]
            print(f"| {search}, {title} | " + " | ".join(cells) + " |")


def correlation(rows: Sequence[dict[str, Any]], first: str, second: str) -> str:
    """Spearman's correlation of two columns, with its interval by the bootstrap over prompts.

    A resample in which a column is constant has no correlation, and is left out.
    """
    pairs = np.array([[row[first], row[second]] for row in rows], float)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    found = rank_correlation(*pairs.T, np.arange(len(pairs)))
    if found is None:
        return "undefined"
    return f"{found['estimate']:+.2f} ({found['lower']:+.2f} to {found['upper']:+.2f})"


if __name__ == "__main__":
    main()
