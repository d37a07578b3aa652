"""Words: cut without remainder, scored as their bytes are, foreseen as by a direct search."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import call, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_byte_beam import DOCUMENT_START, TinyModel, beam_of

from calibtrain.config import MarkovConfig, ModelConfig, TokenizerConfig, validate
from calibtrain.data.batches.store import read_store, write_store
from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.evaluation import evaluate_run_on_text, train_run
from calibtrain.evaluation.byte_windows import ByteWindow, plan_word_windows
from calibtrain.evaluation.bytes import NEXT_BYTE, TextEvaluator
from calibtrain.evaluation.word_spelling import (
    LONGEST,
    WORD_END,
    PartialWords,
    Words,
    cut_words,
)
from calibtrain.evaluation.word_strata import kept_whole, word_counts
from calibtrain.evaluation.words import NEXT_WORD, WordReader
from calibtrain.generation.next_byte import Beam
from calibtrain.models import build
from calibtrain.runs.document_rows import BIN_COLUMNS
from calibtrain.storage.documents import unsealed

MARKOV = markov_source(MarkovConfig(words=24, successors=4, mean_document_words=30.0))
Spelled = tuple[bytes, str]
"""The bytes of a word and how it ended: "cut", "end" of text, or another word "follows"."""


def symbols_of(text: bytes) -> np.ndarray:
    return np.array([*text, END])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", [b""]),
        (b"In the  beginning", [b"In ", b"the  ", b"beginning"]),
        (b" \n a\tb\n", [b" \n ", b"a\t", b"b\n"]),
        (b"x" * 70 + b" y", [b"x" * 32, b"x" * 32, b"x" * 6 + b" ", b"y"]),
        (b"x" * 32 + b" y", [b"x" * 32, b" ", b"y"]),  # what is cut begins anew
        (b"x" * 32, [b"x" * 32, b""]),
    ],
)
def test_words_are_runs_with_the_white_space_behind_them(text: bytes, words: list[bytes]) -> None:
    found = cut_words(symbols_of(text))
    assert [text[a:b] for a, b in zip(found.start, found.stop, strict=True)] == words


@given(st.text(alphabet="ab \n\u3000é", max_size=120))
def test_every_symbol_belongs_to_one_word(text: str) -> None:
    raw = text.encode()
    start, stop, known = cut_words(symbols_of(raw))
    assert start[0] == 0
    assert stop[-1] == len(raw) + 1
    np.testing.assert_array_equal(start[1:], stop[:-1])
    assert ((stop - start >= 1) & (stop - start <= LONGEST)).all()
    assert not known[0]
    for a in start[known]:
        assert raw[a - 1 : a].isspace()
        assert not raw[a : a + 1].isspace()
    whole = [piece for piece in raw.split() if len(piece) < LONGEST]
    assert {raw[a:b].strip(b" \n") for a, b in zip(start, stop, strict=True)} >= set(whole)


class Spelling:
    """A byte-level model, and words under it by direct search."""

    def __init__(self, model: TinyModel):
        self.model = model
        self._known: dict[bytes, np.ndarray] = {}

    def next_byte(self, text: bytes) -> np.ndarray:
        if text not in self._known:
            self._known[text] = self.model.next_byte(text)
        return self._known[text]

    def options(self, before: bytes, word: bytes, known: bool) -> dict[int, float]:
        """How a word goes on, written out; the keys are symbols, or WORD_END."""
        p = dict(enumerate(self.next_byte(before + word)))
        another = {s: x for s, x in p.items() if s != END and not bytes([s]).isspace()}
        if word and word[-1:].isspace():
            white = {s: x for s, x in p.items() if s == END or s not in another}
            return {**white, WORD_END: sum(another.values())}
        if known and not word:
            return {s: x / sum(another.values()) for s, x in another.items()}
        return p

    def greedy(self, before: bytes, known: bool, reach: int = 999) -> tuple[Spelled, float] | None:
        word, probability = b"", 1.0
        while len(word) < LONGEST:
            if len(before + word) > reach:
                return None
            options = self.options(before, word, known)
            best = max(options, key=lambda s: options[s])
            probability *= options[best]
            if best == END:
                return (word, "end"), probability
            if best == WORD_END:
                return (word, "follows"), probability
            word += bytes([best])
        return (word, "cut"), probability


def read_words(
    model: TinyModel, texts: list[bytes], width: int
) -> list[tuple[bytes, Words, np.ndarray, np.ndarray]]:
    """Each text, its words, what was found of them, and the greedy ones; all side by side."""
    words = [cut_words(symbols_of(text)) for text in texts]
    windows = [
        ByteWindow(number, DOCUMENT_START, symbols_of(text), 0, 0, of_text)
        for number, (text, of_text) in enumerate(zip(texts, words, strict=True))
    ]
    next_byte = beam_of(model, 2 * len(texts), width, 0.0)
    reader = WordReader(windows, len(texts))
    next_byte.start([window.prefix for window in windows])
    while (symbols := reader.next_symbols(next_byte.predict())) is not None:
        next_byte.read(*symbols)
    assert reader.symbols_read == sum(len(text) + 1 for text in texts)
    found = [(part.values[:, [0, 2, 3]], part.word) for part in reader.events()]
    return [(text, own, *each) for text, own, each in zip(texts, words, found, strict=True)]  # type: ignore[misc]


ALPHABET = [b"a", b"b", b" "]
PIECES = st.lists(
    st.lists(st.sampled_from(ALPHABET), min_size=2, max_size=4).map(b"".join),
    max_size=6,
    unique=True,
)
TEXTS = st.lists(
    st.lists(st.sampled_from(ALPHABET), max_size=9).map(b"".join), min_size=1, max_size=3
)


@settings(max_examples=25, deadline=None)
@given(longer=PIECES, texts=TEXTS, seed=st.integers(0, 99))
def test_words_equal_brute_force_over_all_tokenisations(
    longer: list[bytes], texts: list[bytes], seed: int
) -> None:
    # to 1e-6 nats: the model's float32 probabilities sum to 1 to about 1e-7 a token, and the beam
    # makes them sum to 1, brute force does not
    model = TinyModel(ALPHABET + longer, seed)
    direct = Spelling(model)
    for text, words, found, _ in read_words(model, texts, width=400):
        for start, stop, known, (nll, confidence, correct) in zip(*words, found, strict=True):
            before, word = text[:start], text[start:stop]
            # P(text so far and the word) as prefix masses: what another word may begin with
            follows = sum(model.prefix_mass(text[:stop] + c)[0] for c in (b"a", b"b"))
            joint = model.prefix_mass(text)[1] if stop > len(text) else follows
            given_ = model.prefix_mass(before)[0]
            if known:
                given_ = sum(model.prefix_mass(before + c)[0] for c in (b"a", b"b"))
            assert nll == pytest.approx(-math.log(joint / given_), abs=1e-6)
            searched = direct.greedy(before, known, reach=9)  # what is longer takes too long
            if searched is not None:
                assert confidence == pytest.approx(searched[1], abs=1e-6)
                actual = word, "end" if stop > len(text) else "follows"
                assert bool(correct) == (searched[0] == actual)
        assert found[:, 0].sum() == pytest.approx(-math.log(model.prefix_mass(text)[1]), abs=1e-6)


class ByteModel(Spelling):
    """Where every piece is a byte there is one tokenisation."""

    def next_byte(self, text: bytes) -> np.ndarray:
        known = self.model.next_token(tuple(LETTERS.index(value) for value in text))
        mass = np.zeros(SYMBOLS)
        mass[[*LETTERS, END]] = known
        return mass / mass.sum()


LETTERS = bytes(range(48, 88)) + b" "
"""Enough that greedy words may be as long as words are."""


def test_the_greedy_word_is_that_of_a_direct_search() -> None:
    model = TinyModel([bytes([value]) for value in LETTERS], 3)
    direct = ByteModel(model)
    rng = np.random.default_rng(0)
    texts = [bytes(rng.choice([*LETTERS, *b" " * 8], size).tolist()) for size in (70, 0, 30, 50)]
    texts += [b"0" * 70, b" "]
    endings = set()
    for text, words, found, greedy in read_words(model, texts, width=1):
        for start, stop, known, (_, confidence, correct), word in zip(
            *words, found, greedy, strict=True
        ):
            searched = direct.greedy(text[:start], known)
            assert searched is not None
            before = text[:start][-1:]
            before = before if before.isspace() else b""
            assert word == before + searched[0][0].rstrip()
            assert confidence == pytest.approx(searched[1], rel=1e-6)
            ending = "end" if stop > len(text) else "cut" if stop - start == LONGEST else "follows"
            assert bool(correct) == (searched[0] == (text[start:stop], ending))
            endings.add(searched[0][1])
    assert endings == {"cut", "end", "follows"}


def test_a_text_of_greedy_words_is_foreseen() -> None:
    model = TinyModel([bytes([value]) for value in LETTERS], 4)
    direct = ByteModel(model)
    text, known, probabilities, ending = b"", False, [], "follows"
    while ending != "end" and len(text) < 400:
        searched = direct.greedy(text, known)
        assert searched is not None
        (word, ending), probability = searched
        text, known = text + word, ending == "follows"
        probabilities.append(probability)
    assert ending == "end"
    ((_, _, found, _),) = read_words(model, [text], width=2)
    np.testing.assert_allclose(found[:, 1], probabilities, rtol=1e-6)
    np.testing.assert_allclose(np.exp(-found[:, 0]), probabilities, rtol=1e-6)
    assert found[:, 2].all()


@settings(max_examples=30, deadline=None)
@given(known=st.booleans(), seed=st.integers(0, 999))
def test_words_are_events_that_exclude_each_other(known: bool, seed: int) -> None:
    """Of a memoryless model over "a", " " and the end: all words together have probability 1."""
    p = np.zeros(SYMBOLS)
    p[[ord("a"), ord(" "), END]] = np.random.default_rng(seed).dirichlet(np.ones(3))
    unfinished, ended = {(0, False): 1.0}, 0.0
    for _ in range(LONGEST):
        longer: dict[tuple[int, bool], float] = {}
        for (length, white), mass in unfinished.items():
            partial = PartialWords(np.array([length]), np.array([white]), np.array([known]))
            (options,) = partial.choices(p[None])
            assert options.sum() == pytest.approx(1)
            for choice in np.flatnonzero(options):
                if partial.is_last(np.array([choice]))[0]:
                    ended += mass * options[choice]
                else:
                    key = length + 1, choice == ord(" ")
                    longer[key] = longer.get(key, 0.0) + mass * options[choice]
        unfinished = longer
    assert not unfinished
    assert ended == pytest.approx(1)


DOCUMENTS = [" In the beginning  ", "", "was the Word, and " * 7, "日本語のテキスト。" * 6, "a"]


@given(st.text(alphabet="ab \n\u3000é", max_size=150))
def test_words_are_counted_as_they_are_cut(text: str) -> None:
    start, stop, _ = cut_words(symbols_of(text.encode()))
    words = (text.encode()[a:b].strip() for a, b in zip(start, stop, strict=True))
    assert word_counts([text.encode()]) == Counter(word for word in words if word)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte"])
def test_a_word_is_whole_where_the_tokens_of_its_text_say_so(kind: str) -> None:
    texts = [*MARKOV.sample_documents(60, 1), "In the beginning,\nthe Word. "]
    tokenizer = train_tokenizer(
        validate(TokenizerConfig, {"kind": kind, "vocab_size": 258 if kind == "byte" else 300}),
        texts,
        corpus_hash="",
        corpus_name="texts",
    )
    found = set()
    for text in texts[-20:]:
        raw, ends = text.encode(), np.cumsum(tokenizer.byte_lengths[tokenizer.encode(text)])
        spans = [match.span() for match in re.finditer(rb"\S+", raw)]
        whole = [not ((ends > a) & (ends < b)).any() for a, b in spans]
        assert kept_whole(tokenizer, [raw[max(0, a - 1) : b] for a, b in spans]).tolist() == whole
        found |= set(whole)
    assert found == ({True, False} if kind != "byte" else found)
    assert kept_whole(tokenizer, [b"", b" ", b"\xff"]).tolist() == [True, True, False]


@pytest.mark.long
def test_the_nlls_of_words_add_up_to_those_of_bytes(tmp_path: Path) -> None:
    """The chain rule, of whole documents; and the greedy word is found by asking bytes alone."""
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="byte"), DOCUMENTS, corpus_hash="", corpus_name="texts"
    )
    documents = [SimpleNamespace(id=str(i), text=text) for i, text in enumerate(DOCUMENTS)]
    write_store(tmp_path, documents, tokenizer)  # type: ignore[arg-type]
    store = read_store(tmp_path)
    network = build(ModelConfig(kind="transformer", width=16, depth=1, heads=2), 258)
    params = jax.tree.map(lambda x: 3 * x, jax.jit(network.init)(jax.random.key(0)))
    totals, found = {}, {}
    for events in (NEXT_BYTE, NEXT_WORD):
        evaluator = TextEvaluator(network, tokenizer, context=256, bins=10, lanes=4, events=events)
        _, windows = events.plan(store, tokenizer.piece_bytes, context=256)
        scores = evaluator.score(params, windows, Beam())
        name = events.space.name
        totals[name] = np.bincount(scores.document, scores.column("nll"), len(DOCUMENTS))
        found[name] = scores
    np.testing.assert_allclose(totals["word"], totals["byte"], rtol=1e-5)
    assert len(found["word"].document) == sum(
        len(cut_words(symbols_of(text.encode())).start) for text in DOCUMENTS
    )


@pytest.mark.parametrize("context", [8, 50])
def test_every_word_is_scored_once_and_read_to_its_end(context: int, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="byte"), DOCUMENTS, corpus_hash="", corpus_name="texts"
    )
    documents = [SimpleNamespace(id=str(i), text=text) for i, text in enumerate(DOCUMENTS)]
    write_store(tmp_path, documents, tokenizer)  # type: ignore[arg-type]
    _, windows = plan_word_windows(
        read_store(tmp_path), tokenizer.piece_bytes, context=context, warm_up=3
    )
    scored = set()
    for window in windows:
        assert window.words is not None
        for start, stop, _ in zip(*window.words, strict=True):
            assert window.scored_from <= start < stop <= len(window.symbols)
            word = (window.document, window.before + int(start), window.before + int(stop))
            assert word not in scored
            scored.add(word)
    for document, text in enumerate(DOCUMENTS):
        mine = sorted((a, b) for d, a, b in scored if d == document)
        assert [a for a, _ in mine] == [0, *(b for _, b in mine)][:-1]
        assert mine[-1][1] == len(text.encode()) + 1


@pytest.mark.long
def test_word_results_have_a_file_of_their_own(
    tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> None:
    run = tmp_path_factory.mktemp("words") / "run"
    short = {"words": 24, "successors": 4, "bytes": 60_000, "mean_document_words": 20.0}
    config = tiny(
        corpus={"markov": short},
        budget={"steps": 60},
        evaluation={"final_splits": [], "times": 1},
    )
    assert train_run(config, run).status == "done"
    done = call("evaluate", run, "--events", "word", "--bytes", "1500", "--beam", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["event"], found["beam"], found["longest_word"]) == ("word", 3, LONGEST)
    assert found["wider"]["beam"] == 6
    for absent in ("entropy_rate", "entropy_bits_per_byte", "multiclass_brier"):
        assert found[absent] is None
        assert absent not in found["signatures"]
    assert found["signatures"]["ece"].startswith("event:word|conf:greedy|")
    assert "entropy_bands" not in found
    for table in ("word_pieces", "word_frequency"):
        assert sum(row["tokens"] for row in found[table]) == found["tokens"]
        assert any(row["intervals"] for row in found[table])
    assert found["documents"] >= 5
    for figure in ("nll", "accuracy", "signed_gap", "ece", "brier", "bits_per_byte"):
        assert found["intervals"][figure]["lower"] <= found["intervals"][figure]["upper"]
    assert sum(row["tokens"] for row in found["positions"]) == found["tokens"]
    (written,) = (run / "evaluations").glob("*_1500bytes-word*.json")
    assert unsealed(json.loads(written.read_text())) == found
    table = pq.read_table(written.with_suffix(".parquet"))
    known = ["document", "index", "bytes", "tokens", "nll", "confidence", "correct"]
    assert table.column_names == [*known, *BIN_COLUMNS]
    assert sum(table["tokens"].to_pylist()) == found["tokens"]
    by_bytes = evaluate_run_on_text(run, events="byte", limit=1500, width=3).results
    # words that begin in the sample reach a little beyond it
    assert found["bits_per_byte"] == pytest.approx(by_bytes["bits_per_byte"], rel=0.03)
    assert call("report", run).returncode == 0
    assert math.isclose(
        found["signed_gap"], found["mean_confidence"] - found["accuracy"], abs_tol=1e-12
    )
