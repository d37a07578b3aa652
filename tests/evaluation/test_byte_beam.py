"""The beam against brute force: every tokenisation of a text, in vocabularies of a few pieces."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.generation.byte_beam import STOP, ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.next_byte import NextByte

Tokens = tuple[int, ...]


class TinyModel:
    """A language model whose next-token distribution is drawn anew for every token sequence."""

    def __init__(self, pieces: list[bytes], seed: int):
        self.pieces = pieces
        self.trie = ByteTrie.of([*pieces, b""], len(pieces))
        self.seed = seed
        self._known: dict[Tokens, np.ndarray] = {}

    def next_token(self, tokens: Tokens) -> np.ndarray:
        """By token id; the last is the end of text. Float32, as a model's are."""
        if tokens not in self._known:
            rng = np.random.default_rng([self.seed, len(tokens), *tokens])
            drawn = rng.dirichlet(np.full(len(self.pieces) + 1, 0.5))
            self._known[tokens] = drawn.astype(np.float32)
        return self._known[tokens]

    def prefix_mass(self, text: bytes) -> tuple[float, float]:
        """P(the text begins so), P(it is exactly so): sums over all token sequences."""
        begins = ends = 0.0
        unfinished: list[tuple[Tokens, int, float]] = [((), 0, 1.0)]
        while unfinished:
            tokens, done, weight = unfinished.pop()
            p = self.next_token(tokens).astype(np.float64)
            rest = text[done:]
            if not rest:
                begins += weight
                ends += weight * p[-1]
                continue
            for token, piece in enumerate(self.pieces):
                if piece.startswith(rest) and len(piece) > len(rest):
                    begins += weight * p[token]
                elif rest.startswith(piece):
                    longer = ((*tokens, token), done + len(piece), weight * p[token])
                    unfinished.append(longer)
        return begins, ends

    def next_byte(self, text: bytes) -> np.ndarray:
        """By brute force."""
        begins, ends = self.prefix_mass(text)
        mass = np.zeros(SYMBOLS)
        mass[END] = ends
        for value in set(b"".join(self.pieces)):
            mass[value] = self.prefix_mass(text + bytes([value]))[0]
        return mass / begins


class TinyStates:
    """Decoding states of a `TinyModel`: rows hold token sequences, document start left out."""

    def __init__(self, model: TinyModel):
        self._model = model
        self._rows: dict[int, Tokens] = {}

    def start(self, prefixes: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        return self._put([tuple(prefix[1:]) for prefix in prefixes], rows)

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return self._put(
            [(*self._rows[s], t) for s, t in zip(sources, tokens, strict=True)], targets
        )

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        self._rows.update(zip(targets, [self._rows[source] for source in sources], strict=True))

    def keep(self, rows: np.ndarray) -> None:
        self._rows = {row: self._rows[row] for row in rows}

    def _put(self, sequences: list[Tokens], rows: np.ndarray) -> np.ndarray:
        self._rows.update(zip(rows, sequences, strict=True))
        return np.stack([self._model.next_token(s)[self._model.trie.order] for s in sequences])


DOCUMENT_START = np.zeros(1, np.int32)


def beam_of(model: TinyModel, lanes: int, width: int, ratio: float) -> NextByte:
    return NextByte(ByteBeam(model.trie, lanes, width, ratio), TinyStates(model))


def beam_distributions(
    model: TinyModel, texts: list[bytes], width: int, ratio: float = 0.0
) -> np.ndarray:
    """[text, place, 257]: what the beam predicts before each byte and after the last."""
    next_byte = beam_of(model, len(texts), width, ratio)
    next_byte.start([DOCUMENT_START] * len(texts))
    longest = max(map(len, texts))
    found = np.full((len(texts), longest + 1, SYMBOLS), np.nan)
    for place in range(longest + 1):
        distribution = next_byte.predict()
        for lane, text in enumerate(texts):
            if place <= len(text):
                found[lane, place] = distribution[lane]
        symbols = [text[place] if place < len(text) else END for text in texts]
        kept = next_byte.read(np.array(symbols))
        assert (kept <= 1 + 1e-12).all()
    return found


ALPHABET = b"ab\xc3"
SINGLE = [bytes([value]) for value in ALPHABET]


def texts(least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(SINGLE), min_size=least, max_size=most).map(b"".join)


PIECES = st.lists(texts(2, 4), max_size=9, unique=True)


@settings(max_examples=40, deadline=None)
@given(longer=PIECES, words=st.lists(texts(0, 8), min_size=1, max_size=2), seed=st.integers(0, 99))
@example(longer=[b"a", b"ab", b"ab", b"aba"], words=[b"ababa", b"aab"], seed=0)  # the same bytes
def test_next_byte_probabilities_equal_the_sum_over_all_tokenisations(
    longer: list[bytes], words: list[bytes], seed: int
) -> None:
    model = TinyModel(SINGLE + longer, seed)
    found = beam_distributions(model, words, width=400)
    for lane, word in enumerate(words):
        for place in range(len(word) + 1):
            want = model.next_byte(word[:place])
            np.testing.assert_allclose(found[lane, place], want, atol=1e-9)
            assert found[lane, place].sum() == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(longer=PIECES, word=texts(0, 12), width=st.integers(1, 3), ratio=st.floats(0, 0.9))
def test_a_narrow_beam_still_gives_a_distribution_that_allows_everything(
    longer: list[bytes], word: bytes, width: int, ratio: float
) -> None:
    model = TinyModel(SINGLE + longer, seed=1)
    (found,) = beam_distributions(model, [word], width, ratio)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, [*ALPHABET, END]] > 0).all()


def test_texts_side_by_side_do_not_touch_each_other() -> None:
    model = TinyModel([b"a", b"b", b"ab", b"ba", b"aab", b"a"], seed=2)
    texts = [b"abab", b"", b"aabba", b"b"]
    together = beam_distributions(model, texts, 3, 0.1)
    for lane, text in enumerate(texts):
        alone = beam_distributions(model, [text], 3, 0.1)[0]
        np.testing.assert_array_equal(together[lane, : len(text) + 1], alone)


def test_a_lane_goes_on_from_another_and_a_stopped_one_predicts_nothing() -> None:
    model = TinyModel([b"a", b"b", b"ab", b"ba"], seed=3)
    next_byte = beam_of(model, lanes=3, width=9, ratio=0.0)
    next_byte.start([DOCUMENT_START])
    for symbols in ([ord("a"), STOP, STOP], [ord("b"), STOP, ord("a")]):
        assert not next_byte.predict()[1:].any()
        next_byte.read(np.array(symbols), np.array([0, 1, 0]))
    first, stopped, branch = next_byte.predict()
    np.testing.assert_allclose(first, model.next_byte(b"ab"), atol=1e-6)
    np.testing.assert_allclose(branch, model.next_byte(b"aa"), atol=1e-6)
    assert not stopped.any()
    next_byte.read(np.full(3, STOP))
    assert not next_byte.predict().any()


def test_small_masses_keep_their_digits() -> None:
    """Below a node may lie 1e-30 of the whole: a difference of running sums would give 0."""
    trie = ByteTrie.of([b"a", b"ab", b"ac", b"b", b""], 4)
    beam = ByteBeam(trie, 1, 10, 0.0)
    p = np.array([1.0, 3e-30, 1e-30, 0.5, 0.1], np.float32)  # ids are in order already
    beam.set_probabilities(beam.start(np.array([0])), p[None])
    beam.predict()
    new = beam.read(np.array([ord("a")])).extensions
    impossible = np.array([0, 0, 0, 0, 1], np.float32)
    beam.set_probabilities(new.targets, impossible[None])
    found = beam.predict()[0]
    assert found[ord("b")] == pytest.approx(3e-30, rel=1e-6)
    assert found[ord("c")] == pytest.approx(1e-30, rel=1e-6)
    assert found[END] == pytest.approx(1)


@given(pieces=st.lists(st.binary(max_size=5), max_size=40))
def test_a_node_holds_the_tokens_that_begin_with_it(pieces: list[bytes]) -> None:
    trie = ByteTrie.of([*pieces, b""], len(pieces))
    waiting, seen = [(0, b"")], 0
    while waiting:
        node, path = waiting.pop()
        seen += 1
        ids = trie.order[trie.start[node] : trie.end[node]]
        own = trie.order[trie.start[node] : trie.own_end[node]]
        real = {i: piece for i, piece in enumerate(pieces) if piece}
        assert set(ids) - {len(pieces)} == {i for i, p in real.items() if p.startswith(path)}
        assert set(own) == {i for i, p in real.items() if p == path}
        for child in range(trie.first_child[node], trie.first_child[node] + trie.children[node]):
            if trie.symbol[child] == END:
                assert node == 0
                assert trie.order[trie.start[child] : trie.end[child]].tolist() == [len(pieces)]
                seen += 1
            else:
                waiting.append((child, path + bytes([trie.symbol[child]])))
    assert seen == len(trie.symbol)
