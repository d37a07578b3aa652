"""Entropy where a beam begins against the diversity of its hypotheses, as Markdown.

python experiments/beam-diversity/beam_diversity.py runs/vocabulary/kjv-headline \\
    --vocabularies 256 1024 8192 --seeds 0 1 2

All runs of a corpus get the same prompts, cut from the test split. What lies in beam_diversity.json
is not measured again; without runs, the tables are those of that file.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import kinds, measured_runs, over_seeds, print_table, run_parser

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
MEANS = (*DIVERSITIES, "best_bits_per_byte", "next_byte_bits")


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("beam_diversity.json"))
    parser.add_argument("--corpus", help="by name; the run's own by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=100, help="at most one of a document")
    parser.add_argument("--characters", type=int, default=200, help="of a prompt")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--groups", type=int, default=4, help="of the diverse beam")
    parser.add_argument("--diversity", type=float, default=1.0, help="of the diverse beam, in nats")
    parser.add_argument("--max-bytes", type=int, default=80, help="of a hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = ("corpus", "split", "prompts", "characters", "width", "groups", "diversity")
    settings = {name: getattr(given, name) for name in (*names, "max_bytes", "seed")}
    searches = {
        "plain": BeamSearch(given.width),
        "diverse": BeamSearch(given.width, given.groups, given.diversity),
    }
    found = measured_runs(given, settings, lambda run: measured(run, given, searches))
    show(kinds(found), list(searches))


def measured(
    run: Path, given: argparse.Namespace, searches: dict[str, BeamSearch]
) -> dict[str, Any]:
    """Searches the beams of a run, and returns the means and correlations of each search."""
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
    found = {}
    for name, search_by in searches.items():
        beams = beam_texts(model, prompts, search_by, max_bytes=given.max_bytes)
        rows = [
            {**row_of(beam), "next_byte_bits": bits}
            for bits, beam in zip(byte_entropies, beams, strict=True)
        ]
        found[name] = {
            "means": {key: mean(rows, key) for key in MEANS},
            "correlations": {
                entropy: {key: correlation(rows, entropy, key) for key in DIVERSITIES}
                for entropy in ENTROPIES
            },
        }
    return {"texts": len(prompts), "searches": found}


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
    }


def mean(rows: Sequence[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """Returns the mean over prompts; a beam whose texts are too short has no value."""
    values = np.array([row[key] for row in rows], float)
    known = values[np.isfinite(values)]
    return {"estimate": float(known.mean()), "lower": None} if len(known) else None


def correlation(rows: Sequence[dict[str, Any]], first: str, second: str) -> dict[str, Any] | None:
    """Returns Spearman's correlation of two columns, with its interval over prompts, or None.

    A resample in which a column is constant has no correlation, and is left out.
    """
    pairs = np.array([[row[first], row[second]] for row in rows], float)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return rank_correlation(*pairs.T, np.arange(len(pairs)))


def show(groups: dict[str, list[Any]], searches: Sequence[str]) -> None:
    """Prints means of each search, and rank correlations: of one run, or over seeds."""
    means, correlations = [], []
    for kind, own in groups.items():
        name = f"{kind} ({len(own)} seeds)"
        for search in searches:
            found = [getattr(each.searches, search) for each in own]
            cells = [
                over_seeds(found, lambda each, key=key: getattr(each.means, key), 2)
                for key in MEANS
            ]
            means.append([name, search, *cells])
            for entropy, title in ENTROPIES.items():
                own_rows = [getattr(each.correlations, entropy) for each in found]
                cells = [
                    over_seeds(own_rows, lambda each, key=key: getattr(each, key), 2, signed=True)
                    for key in DIVERSITIES
                ]
                correlations.append([name, f"{search}, {title}", *cells])
    what = ["corpus, V", "search", *DIVERSITIES.values()]
    print_table([*what, "bits/byte of the best", "next byte, bits"], means)
    print("Spearman's rank correlation with the entropy at the source\n")
    print_table(["corpus, V", "search, entropy", *DIVERSITIES.values()], correlations)


if __name__ == "__main__":
    main()
