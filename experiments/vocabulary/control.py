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

python experiments/vocabulary/control.py --draws 100
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from calibtrain.config import MarkovConfig, TokenizerConfig
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.metrics.calibration import bin_edges

LONG = 4
BINS = 15
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

    def planted(self, effect: float) -> float:
        """Delta: what is planted in states inside long tokens, for an effect over the ladder."""
        reach = [self.mean(inside * (1 - self.likeliest)) for inside in self.inside.values()]
        return effect / (reach[-1] - reach[0])

    def error(self, vocab: int, mean: float, delta: float) -> float:
        """The exact ECE of the arms of a vocabulary, in the mean over their own parts."""
        return self.mean((mean + delta * self.inside[vocab]) * (1 - self.likeliest))


def world(seed: int, ladder: Sequence[int], *, words: int = 800, successors: int = 4) -> World:
    """Returns the world of a seed; its tokenizers are trained on text of its own.

    Args:
        seed: of the source and of the text.
        ladder: vocabularies: 256 stands for bytes, others are BPE.
        words: distinct words of the source; a large vocabulary needs many.
        successors: how many words may follow a word.
    """
    config = MarkovConfig(
        words=words, successors=successors, letters=5, mean_document_words=24.0, seed=seed
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


def document_rows(
    world: World, texts: Sequence[str], vocab: int, own: float, delta: float
) -> dict[str, Any]:
    """Returns the rows of an arm's documents: the columns of an evaluation's Parquet file."""
    document, state, symbol = world.model.read(texts)
    moved = (own + delta * world.inside[vocab])[state]
    right = symbol == world.symbol[state]
    confidence = world.likeliest[state] + moved * (1 - world.likeliest[state])
    nll = -np.log((1 - moved) * world.model.laws[state, symbol] + moved * right)
    bins = np.searchsorted(bin_edges(BINS)[1:-1], confidence.astype(np.float32), side="left")
    columns = {"tokens": np.ones(len(state)), "nll": nll, "confidence": confidence}
    columns["correct"] = right.astype(float)
    rows: dict[str, Any] = {
        "document": [str(index) for index in range(len(texts))],
        "bytes": np.array([len(text.encode()) for text in texts]),
    }
    for name, values in columns.items():
        rows[name] = np.bincount(document, values, len(texts))
    for name, of in (("events", "tokens"), ("confidence", "confidence"), ("correct", "correct")):
        cells = np.bincount(document * BINS + bins, columns[of], len(texts) * BINS)
        rows[f"bin_{name}"] = cells.reshape(len(texts), BINS)
    return rows


def test_text(world: World, seed: int, size: int = 16_384) -> list[str]:
    """Returns documents of about a size, drawn from the source."""
    texts, total = [], 0
    for text in world.source.sample_documents(10_000, 50_000 + seed):
        texts.append(text)
        total += len(text.encode())
        if total >= size:
            break
    return texts
