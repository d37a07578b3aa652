"""A control with known truth: the study's pipeline on text whose next byte is known exactly.

Every "corpus" is a Markov source (`calibtrain.data.corpora.markov_bytes`): its perfect model gives
the exact distribution of the next byte. An arm is that model with m of its probability moved to the
likeliest byte, which makes it over-confident by m (1 - p) where the likeliest byte has probability
p. In bins of confidence all gaps are then >= 0, so that the ECE of the arm over endless text is

    ECE = sum_s visits_s m_s (1 - p_s) / sum_s visits_s,            exactly.

m has two parts. Every arm has its own, drawn uniformly from [0, 2 mean], so that seeds differ. The
planted part, delta, is added in the states in which the byte that is predicted lies inside a long
token: in the likeliest word with the letters so far, spelled by the tokenizer of that vocabulary,
the byte belongs to a token of at least 4 bytes that began before it. That is known before the byte
comes, and happens more often in larger vocabularies. Delta is set so that the ECE of the largest
vocabulary exceeds that of the smallest by exactly what is asked for.

Seeds of a corpus share the test text, as those of the study do; every draw has texts of its own.

python experiments/vocabulary/control.py --draws 100          # how often effects are found
python experiments/vocabulary/control.py --write results/control --effect 0.01
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from collect import BIN_COLUMNS, noise_figures, write
from jaxtyping import Bool, Float, Int
from slopes import contrast, noisy_gaps, pooled, slope_intervals

from calibtrain.config import MarkovConfig, TokenizerConfig
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.metrics.calibration import bin_edges

LONG = 4
BINS = 15
TEXT = 16_384
"""Bytes that every arm is measured on, about."""
LADDER = (256, 512, 1024, 2048, 4096)
CORPORA = 5
SEEDS = 3
BASE = 0.006
"""Mean ECE of an arm in which nothing is planted."""


@dataclass(frozen=True)
class World:
    """A source, its perfect model, and where each vocabulary has long tokens.

    Attributes:
        likeliest: probability of the likeliest symbol in each state.
        symbol: that symbol.
        inside: by vocabulary, whether that symbol is predicted to lie inside a long token.
    """

    name: str
    source: MarkovSource
    model: MarkovBytes
    likeliest: Float[np.ndarray, " states"]
    symbol: Int[np.ndarray, " states"]
    inside: Mapping[int, Bool[np.ndarray, " states"]]

    def mean(self, values: Float[np.ndarray, " states"]) -> float:
        """The mean over endless text of a number that each state has."""
        return float(self.model.visits @ values / self.model.visits.sum())

    @property
    def own_mean(self) -> float:
        """The mean of m of arms in which nothing is planted: their ECE is `BASE`."""
        return BASE / self.mean(1 - self.likeliest)

    def planted(self, effect: float) -> float:
        """Delta: what is planted in states inside long tokens, for an effect over the ladder."""
        reach = [self.mean(inside * (1 - self.likeliest)) for inside in self.inside.values()]
        return effect / (reach[-1] - reach[0])

    def error(self, vocab: int, mean: float, delta: float) -> float:
        """The exact ECE of the arms of a vocabulary, in the mean over their own parts."""
        return self.mean((mean + delta * self.inside[vocab]) * (1 - self.likeliest))


def world(seed: int, ladder: Sequence[int], *, words: int = 2500, successors: int = 3) -> World:
    """Returns the world of a seed; its tokenizers are trained on text of its own.

    Args:
        seed: of the source and of the text.
        ladder: vocabularies: 256 stands for bytes, others are BPE.
        words: distinct words of the source; a large vocabulary needs many.
        successors: how many words may follow a word.
    """
    config = MarkovConfig(
        words=words, successors=successors, letters=12, mean_document_words=24.0, seed=seed
    )
    source = markov_source(config)
    model = MarkovBytes.of(source)
    symbol = model.laws.argmax(1)
    guesses = _guesses(source, model)
    text = list(source.sample_documents(4000, seed + 10_000))
    inside = {}
    for vocab in ladder:
        kind = "byte" if vocab == 256 else "bpe"
        size = 258 if vocab == 256 else vocab
        given = TokenizerConfig(kind=kind, vocab_size=size)
        tokenizer = train_tokenizer(given, text, corpus_hash=str(seed), corpus_name="markov")
        tokens = tokenizer.encode_batch([f" {word}" for word in source.words])
        spelled = [_inside(tokenizer.byte_lengths[ids]) for ids in tokens]
        inside[vocab] = np.array(
            [word >= 0 and spelled[word][letters + 1] for word, letters in guesses]
        )
    return World(
        name=f"markov-{seed}",
        source=source,
        model=model,
        likeliest=model.laws[np.arange(len(symbol)), symbol],
        symbol=symbol,
        inside=inside,
    )


def _inside(lengths: Int[np.ndarray, " tokens"]) -> Bool[np.ndarray, " bytes"]:
    """Whether each byte of a text lies inside a long token, and does not begin it."""
    return np.concatenate([(np.arange(n) > 0) & (n >= LONG) for n in lengths.tolist()])


def _guesses(source: MarkovSource, model: MarkovBytes) -> list[tuple[int, int]]:
    """The likeliest word in each state and how many of its letters are there.

    The word is -1 where all letters of the likeliest one are there, so that a space or the end of
    the text is predicted, or a longer word.
    """
    best = np.zeros(len(model.laws))
    found: list[tuple[int, int]] = [(-1, 0)] * len(model.laws)

    def see(texts: Sequence[str], words: Sequence[int], chances: Sequence[float]) -> None:
        document, state, _ = model.read(texts)
        begin = np.searchsorted(document, np.arange(len(texts) + 1))
        for index, (word, chance) in enumerate(zip(words, chances, strict=True)):
            length = len(source.words[word])
            # the states of the last word: before each letter, and before what follows it
            of_word = state[begin[index + 1] - length - 1 : begin[index + 1]].tolist()
            for letters, at in enumerate(of_word):
                if chance > best[at]:
                    best[at] = chance
                    found[at] = (word, letters) if letters < length else (-1, letters)

    see(list(source.words), range(len(source.words)), source.stationary.tolist())
    pairs = [
        (first, second, chance)
        for first, row in enumerate(source.successors.tolist())
        for second, chance in zip(row, source.slot_probabilities.tolist(), strict=True)
    ]
    texts = [f"{source.words[first]} {source.words[second]}" for first, second, _ in pairs]
    see(texts, [second for _, second, _ in pairs], [chance for *_, chance in pairs])
    return found


def document_columns(
    world: World, texts: Sequence[str], vocab: int, own: float, delta: float
) -> dict[str, Any]:
    """Returns the columns of an arm's table of documents, as beside an evaluation of a run."""
    document, state, symbol = world.model.read(texts)
    moved = (own + delta * world.inside[vocab])[state]
    right = symbol == world.symbol[state]
    confidence = world.likeliest[state] + moved * (1 - world.likeliest[state])
    nll = -np.log((1 - moved) * world.model.laws[state, symbol] + moved * right)
    bins = np.searchsorted(bin_edges(BINS)[1:-1], confidence.astype(np.float32), side="left")
    columns = {"tokens": np.ones(len(state)), "nll": nll, "confidence": confidence}
    columns["correct"] = right.astype(float)
    rows: dict[str, Any] = {
        "index": np.arange(len(texts)),
        "document": [str(index) for index in range(len(texts))],
        "bytes": np.array([len(text.encode()) for text in texts]),
    }
    for name, values in columns.items():
        rows[name] = np.bincount(document, values, len(texts))
    for name, of in (("events", "tokens"), ("confidence", "confidence"), ("correct", "correct")):
        cells = np.bincount(document * BINS + bins, columns[of], len(texts) * BINS)
        rows[f"bin_{name}"] = cells.reshape(len(texts), BINS)
    return rows


def drawn_text(world: World, seed: int) -> list[str]:
    """Returns documents of about `TEXT` bytes, drawn from the source."""
    texts, total = [], 0
    for text in world.source.sample_documents(10_000, 50_000 + seed):
        texts.append(text)
        total += len(text.encode())
        if total >= TEXT:
            break
    return texts


def study(
    worlds: Sequence[World], effect: float, draw: int, seeds: int = SEEDS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of arms and of documents of a study, as `collect.py` makes them of runs.

    Args:
        worlds: the corpora.
        effect: planted difference of the ECE between the ends of the ladder; 0 plants nothing.
        draw: which texts, and which arms, are drawn.
        seeds: arms per vocabulary.
    """
    rng = np.random.default_rng(draw)
    arms, documents = [], []
    for each in worlds:
        texts = drawn_text(each, draw)
        mean, delta = each.own_mean, each.planted(effect) if effect else 0.0
        for vocab in each.inside:
            for seed in range(seeds):
                columns = document_columns(each, texts, vocab, rng.uniform(0, 2 * mean), delta)
                keys = {
                    "corpus": each.name,
                    "kind": "byte" if vocab == 256 else "bpe",
                    "vocab_size": vocab,
                    "capacity": "large",
                    "passes": 4,
                    "match": "body",
                    "seed": seed,
                }
                arms.append({**keys, "log2_vocab": math.log2(vocab), **figures(columns)})
                for row in zip(*columns.values(), strict=True):
                    documents.append(
                        {**keys, "event": "byte", **dict(zip(columns, row, strict=True))}
                    )
    return arms, documents


def tables(columns: Mapping[str, Any]) -> Float[np.ndarray, "documents bins 3"]:
    """The reliability tables of an arm's documents."""
    return np.stack([columns[f"bin_{name}"] for name in ("events", "confidence", "correct")], -1)


def figures(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of the byte events of an arm, as columns of the table of arms."""
    sums = tables(columns)
    whole, events = sums.sum(0), sums[..., 0].sum()
    return {
        "byte_ece": float(np.abs(whole[:, 1] - whole[:, 2]).sum() / events),
        "byte_signed_gap": float((whole[:, 1] - whole[:, 2]).sum() / events),
        "byte_bits_per_byte": float(columns["nll"].sum() / math.log(2) / columns["bytes"].sum()),
        "byte_accuracy": float(whole[:, 2].sum() / events),
        "byte_tokens": float(events),
        **{f"byte_{name}": value for name, value in noise_figures(sums).items()},
    }


def truth(worlds: Sequence[World], effect: float) -> float:
    """Returns the exact slope of the ECE on log2 V, in the mean over the corpora."""
    found = []
    for each in worlds:
        delta = each.planted(effect) if effect else 0.0
        errors = [each.error(vocab, each.own_mean, delta) for vocab in each.inside]
        found.append(float(contrast([*each.inside]) @ errors))
    return float(np.mean(found))


def check(worlds: Sequence[World], effect: float, draws: Sequence[int]) -> dict[str, float]:
    """Returns how often the study's intervals cover the exact slope, and find that it is not 0.

    Returns:
        `truth`; of the interval over corpora: mean estimate, share of draws that cover, and share
        that find an effect, for the plain ECE and for that corrected for noise (`corrected_...`);
        and `cover_these_texts`, the share of corpora and draws in which the interval of one
        corpus, of documents and seeds, covers.
    """
    exact = truth(worlds, effect)
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for draw in draws:
        arms, documents = study(worlds, effect, draw)
        for prefix, column in (("", "byte_ece"), ("corrected_", "byte_ece_corrected")):
            over = pooled(pd.DataFrame(arms), column)
            assert over is not None
            note(f"{prefix}mean_estimate", over.estimate)
            note(f"{prefix}cover", over.lower <= exact <= over.upper)
            note(f"{prefix}found", over.lower * over.upper > 0)
        frame = pd.DataFrame(documents)
        for each in worlds:
            part = frame[frame.corpus == each.name]
            models: dict[int, list[Any]] = {vocab: [] for vocab in each.inside}
            for (vocab, _), rows in part.groupby(["vocab_size", "seed"]):
                cells = tables({name: np.stack(rows[name]) for name in BIN_COLUMNS})
                models[vocab].append(noisy_gaps(cells))
            both = slope_intervals(models)[2]
            note("cover_these_texts", both.lower <= truth([each], effect) <= both.upper)
    rates = {name: float(np.mean(values)) for name, values in found.items()}
    return {"effect": effect, "draws": len(draws), "truth": exact, **rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--effect", type=float, nargs="*", default=[0.0, 0.01])
    parser.add_argument("--write", type=Path, help="write one study as Parquet files here")
    given = parser.parse_args()
    if given.write:
        small = [world(seed, LADDER[:4]) for seed in range(3)]
        write(given.write, *study(small, given.effect[-1], 0))
    if given.draws:
        worlds = [world(seed, LADDER) for seed in range(CORPORA)]
        for effect in given.effect:
            print(json.dumps(check(worlds, effect, range(given.draws))))


if __name__ == "__main__":
    main()
