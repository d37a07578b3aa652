"""Do the intervals of strata and of mass calibration hold 0 for a perfect model?

python -m benchmarks.strata [--corpora 200] [--documents 60] [--seed 1] [--rare 1 0.7]

The model is the exact law of the next word of a Markov source, whose words are its tokens; or that
law with the probabilities of the rarest tokens (decile 10) multiplied by a factor. Word events are
those of the exact law of the next byte. Each corpus is drawn anew and read as an evaluation's is.
One JSON line a stratum and group: the mean gap and its standard error, and per cent of corpora
whose 95 % interval of the gap holds 0. `... by outcome` is the plain signed gap where events are
cut by what came, which is not 0 for a perfect model. Needs all of calibtrain.
"""

import argparse
import dataclasses
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.config import MarkovConfig, TokenizerConfig
from calibtrain.data.batches.token_store import frequency_deciles
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.evaluation.choices import choice_columns
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import COLUMNS, EventSums, ScoredEvents
from calibtrain.evaluation.frequency import decile_columns
from calibtrain.evaluation.strata import (
    DECILES,
    ENTROPY,
    FREQUENCY,
    POSITION,
    PREDICTION,
    Stratum,
    document_groups,
)
from calibtrain.evaluation.word_strata import word_counts, word_strata

BINS = 15
OUTCOME, ECE = "by outcome", "pooled ece"
Gap = tuple[str, str, float, dict[str, float] | None]
"""Stratum, group, gap, and its interval where it has one."""


@dataclasses.dataclass(frozen=True)
class TokenModel:
    """A model whose tokens are the words of a source; the last token ends a document.

    Attributes:
        source: of the text.
        laws: the model's distribution after each word; the last row is that of a document's start.
        deciles: frequency decile of each token.
    """

    source: MarkovSource
    laws: Float[np.ndarray, "states tokens"]
    deciles: Int[np.ndarray, " tokens"]

    @classmethod
    def of(cls, source: MarkovSource, rare: float = 1.0) -> "TokenModel":
        """The perfect model, with probabilities of the rarest tokens multiplied by a factor."""
        q, first = source.end_probability, source.stationary
        laws = np.vstack([source.transition * (1 - q), first])
        laws = np.column_stack([laws, np.append(np.full(len(first), q), 0.0)])
        deciles = frequency_deciles((1e9 * np.append(first, q)).astype(np.int64))
        laws[:, deciles == DECILES - 1] *= rare
        return cls(source, laws / laws.sum(1, keepdims=True), deciles)

    def read(self, texts: Sequence[str]) -> tuple[Any, Any, Any, Any]:
        """Returns document, state, token, and bytes before, of every event of documents."""
        index = {word: number for number, word in enumerate(self.source.words)}
        end, rows = len(index), []
        for document, text in enumerate(texts):
            state, before = end, 0
            for word in text.split(" "):
                rows.append((document, state, index[word], before))
                state, before = index[word], before + len(word.encode()) + 1
            rows.append((document, state, end, before - 1))
        return tuple(np.array(rows).T)  # type: ignore[return-value]

    def sums(self, texts: Sequence[str]) -> EventSums:
        """The sums over the events of documents; every third document is of one group."""
        document, state, token, before = self.read(texts)
        groups = document_groups([f"{number % 3}" for number in range(len(texts))])
        assert groups is not None
        sizes = np.array([len(text.encode()) for text in texts])
        strata = [FREQUENCY, PREDICTION, POSITION, ENTROPY, groups]
        sums = EventSums(sizes, np.arange(len(texts)), strata, BINS)
        values = choice_columns(self.laws[state], None, token)
        mass = self.laws @ np.eye(DECILES)[self.deciles]
        decile, predicted = self.deciles[token], self.deciles[self.laws.argmax(1)[state]]
        confidence = values[:, COLUMNS.index("confidence")]
        further = decile_columns(mass[state], confidence, decile, predicted)
        sums.add(ScoredEvents(document, values, before, decile, predicted, further=further))
        return sums


@dataclasses.dataclass(frozen=True)
class WordModel:
    """The words that a perfect model of bytes spells, after each word of a source.

    Attributes:
        source: of the text; no document ends where a word is likelier to follow.
        greedy: index of the greedy word in each state; the last state is a document's start.
        confidence: probability of that word and that another one follows it.
    """

    source: MarkovSource
    greedy: Int[np.ndarray, " states"]
    confidence: Float[np.ndarray, " states"]

    @classmethod
    def of(cls, source: MarkovSource) -> "WordModel":
        """Spells the greedy word of each state, byte by byte."""
        laws = np.vstack([source.transition, source.stationary])
        found = [_greedy(source, law) for law in laws]
        index = {word: number for number, word in enumerate(source.words)}
        words, chances = zip(*found, strict=True)
        return cls(source, np.array([index[word] for word in words]), np.array(chances))

    def events(self, texts: Sequence[str], *, came: bool = False) -> ScoredEvents:
        """The word events of documents; `came` puts the word that came in the predicted one's
        place."""
        document, state, token, before = TokenModel.of(self.source).read(texts)
        last = np.append(token[1:] == len(self.source.words), False)
        word = token < len(self.source.words)
        document, state, token, before, last = (
            column[word] for column in (document, state, token, before, last)
        )
        values = np.full((len(token), len(COLUMNS)), np.nan)
        values[:, COLUMNS.index("nll")] = 0.0
        values[:, COLUMNS.index("confidence")] = self.confidence[state]
        values[:, COLUMNS.index("correct")] = (token == self.greedy[state]) & ~last
        spelled = np.array([b" " + text.encode() for text in self.source.words], object)
        shown = spelled[token if came else self.greedy[state]]
        return ScoredEvents(document, values, before, word=shown)

    def sums(
        self, texts: Sequence[str], strata: Sequence[Stratum], *, came: bool = False
    ) -> EventSums:
        """The sums over the events of documents."""
        sizes = np.array([len(text.encode()) for text in texts])
        sums = EventSums(sizes, np.arange(len(texts)), strata, BINS)
        sums.add(self.events(texts, came=came))
        return sums


def _greedy(source: MarkovSource, law: Any) -> tuple[str, float]:
    """The word that is spelled greedily where words have these probabilities, and its own."""
    spelled, q = "", source.end_probability
    while True:
        options: dict[str, float] = defaultdict(float)
        for word, probability in zip(source.words, law, strict=True):
            if word == spelled:
                options[" "] += probability * (1 - q)
                options["end"] += probability * q
            elif word.startswith(spelled):
                options[word[len(spelled)]] += probability
        best = max(options, key=lambda choice: options[choice])
        assert best != "end"
        if best == " ":
            return spelled, options[best]
        spelled += best


def strata_of_words(source: MarkovSource, vocab_size: int = 48) -> list[Stratum]:
    """Strata of word events: of a tokenizer that splits some words, trained on the source."""
    texts = list(source.sample_documents(400, 99))
    tokenizer = train_tokenizer(
        TokenizerConfig(vocab_size=256 + vocab_size), texts, corpus_hash="", corpus_name="markov"
    )
    return word_strata(tokenizer, word_counts(text.encode() for text in texts))


def gaps(results: dict[str, Any], strata: Sequence[str]) -> Iterator[Gap]:
    """Every gap whose truth is 0 for a perfect model, and those of the outcome beside them."""
    for name in strata:
        by_outcome = name == FREQUENCY.name
        for row in results[name]:
            intervals = row["intervals"] or {}
            if by_outcome:
                gap = row["signed_gap"], intervals.get("signed_gap")
                yield f"{name} {OUTCOME}", row["label"], *gap
            key = "gap" if name == "frequency_mass" else "signed_gap"
            key = "excess_gap" if by_outcome else key
            if row[key] is not None:
                yield name, row["label"], row[key], intervals.get(key)
    ece = results["intervals"]["ece"]
    yield ECE, "", results["ece"], ece


def simulated(
    source: MarkovSource, corpora: int, documents: int, rare: float, seed: int = 1
) -> list[list[Gap]]:
    """The gaps of each of several corpora."""
    tokens, words = TokenModel.of(source, rare), WordModel.of(source)
    of_words = strata_of_words(source)
    names = [FREQUENCY.name, "frequency_mass", PREDICTION.name, POSITION.name, ENTROPY.name]
    drawn = source.sample_documents(corpora * documents, seed)
    found = []
    for _ in range(corpora):
        texts = list(itertools.islice(drawn, documents))
        mine = list(gaps(compute_results(tokens.sums(texts)), [*names, "groups"]))
        if rare == 1:
            for came in (False, True):
                results = compute_results(words.sums(texts, of_words, came=came))
                for name, *rest in gaps(results, [stratum.name for stratum in of_words]):
                    if came and name == ECE:
                        continue
                    mine.append((f"{name} {OUTCOME}" if came else f"words: {name}", *rest))
        found.append(mine)
    return found


def lines(found: Sequence[Sequence[Gap]]) -> Iterator[dict[str, Any]]:
    """One line a stratum and group, over corpora."""
    rows: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for name, label, gap, interval in itertools.chain.from_iterable(found):
        rows[name, label].append((gap, interval))
    for (name, label), each in rows.items():
        values = np.array([gap for gap, _ in each if gap is not None])
        known = [interval for _, interval in each if interval is not None]
        if len(values) < 2 or not known:
            continue
        held = [each["lower"] <= 1e-9 and each["upper"] >= -1e-9 for each in known]
        yield {
            "stratum": name,
            "group": label,
            "corpora": len(known),
            "gap": round(float(values.mean()), 5),
            "error": round(float(values.std(ddof=1) / math.sqrt(len(values))), 5),
            "holds_0": round(100 * float(np.mean(held)), 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strata", description=__doc__)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rare", type=float, nargs="+", default=[1.0, 0.7])
    given = parser.parse_args()
    source = markov_source(SOURCE)
    for rare in given.rare:
        for line in lines(simulated(source, given.corpora, given.documents, rare, given.seed)):
            print(json.dumps({"rare": rare, "documents": given.documents, **line}), flush=True)


SOURCE = MarkovConfig(words=60, successors=8, mean_document_words=60.0)
"""Words that are predicted in most deciles, in documents of which few are short."""


if __name__ == "__main__":
    main()
