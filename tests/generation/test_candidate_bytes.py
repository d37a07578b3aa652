"""Candidate strings: one byte model has the same confidences under every tokenizer."""

import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig, TokenizerConfig
from calibtrain.data.corpora.documents import END
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.evaluation.candidates import candidate_log_confidence
from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.candidate_bytes import (
    candidate_byte_log_probabilities,
    score_bytes,
)
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.next_byte import NextByte
from calibtrain.models import build
from calibtrain.scoring.candidates import candidate_log_probabilities

LETTERS = (97, 98, END)
SHARE = 0.6
"""How often `ab` is written as one token, where it could be."""


class ByteModel:
    """A model of a, b and the end of text that sees one byte back, written in tokens.

    With the pieces a and b alone, it is a bigram model. With the piece ab too, the bytes ab are one
    token with probability SHARE, so that after the token a alone the next byte is less likely to be
    b: the distribution over strings stays the same.
    """

    def __init__(self, merged: bool):
        self.table = np.random.default_rng(7).dirichlet(np.ones(3), 3)  # after nothing, a, b
        self.pieces = [b"", b"a", b"b", b"", *([b"ab"] if merged else [])]
        self.trie = ByteTrie.of(self.pieces, 3)
        self.merged = merged
        self.rows: dict[int, tuple[int, bool]] = {}

    def _next(self, state: tuple[int, bool]) -> np.ndarray:
        last, alone = state
        a, b, end = self.table[last]
        if alone:  # the token a, which was not ab
            never = SHARE * self.table[1][1]
            a, b, end = (a / (1 - never), (b - never) / (1 - never), end / (1 - never))
        found = {1: a, 2: b, 3: end}
        if self.merged:
            together = SHARE * a * self.table[1][1]
            found |= {1: a - together, 4: together}
        return np.array([found[token] for token in self.trie.order])

    def _read(self, state: tuple[int, bool], token: int) -> tuple[int, bool]:
        return {1: (1, self.merged), 2: (2, False), 4: (2, False), 0: (0, False)}[token]

    def start(self, prefixes: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        for prefix, row in zip(prefixes, rows, strict=True):
            self.rows[row] = functools.reduce(self._read, map(int, prefix), (0, False))
        return np.stack([self._next(self.rows[row]) for row in rows])

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        before = [self.rows[row] for row in sources]
        for state, row, token in zip(before, targets, tokens, strict=True):
            self.rows[row] = self._read(state, int(token))
        return np.stack([self._next(self.rows[row]) for row in targets])

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        before = [self.rows[row] for row in sources]
        self.rows |= dict(zip(map(int, targets), before, strict=True))

    def keep(self, rows: np.ndarray) -> None: ...

    def scores(self, prompt: bytes, candidates: Sequence[bytes], end: bool) -> np.ndarray:
        reader = NextByte(ByteBeam(self.trie, lanes=3, width=8, ratio=0.0, smallest=0.0), self)
        count = len(candidates)
        return score_bytes(reader, [np.array([0])] * count, [prompt] * count, candidates, end=end)

    def exact(self, text: bytes, end: bool) -> float:
        """The log-probability of a text from the table alone."""
        places = [LETTERS.index(byte) for byte in text] + ([2] if end else [])
        states = [0, *(place + 1 for place in places)]
        return float(sum(np.log(self.table[s, p]) for s, p in zip(states, places, strict=False)))


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("prompt", [b"", b"a", b"ba", b"ab"])
def test_candidates_have_one_confidence_under_two_tokenizers(prompt: bytes, end: bool) -> None:
    candidates = [bytes(each) for n in (1, 2, 3) for each in itertools.product(b"ab", repeat=n)]
    plain, merged = ByteModel(merged=False), ByteModel(merged=True)
    assert len(plain.trie.order) + 1 == len(merged.trie.order)
    one, other = (each.scores(prompt, candidates, end) for each in (plain, merged))
    wanted = [plain.exact(prompt + c, end) - plain.exact(prompt, False) for c in candidates]
    np.testing.assert_allclose(one, wanted, rtol=1e-9)
    np.testing.assert_allclose(other, wanted, rtol=1e-9)
    confidence = [np.exp(candidate_log_confidence(each[None])) for each in (one, other)]
    np.testing.assert_allclose(*confidence, rtol=1e-9)
    assert confidence[0].sum() == pytest.approx(1)


def test_the_merged_model_writes_the_merged_token() -> None:
    merged = ByteModel(merged=True)
    ab = merged._next((0, False))[list(merged.trie.order).index(4)]
    assert 0 < ab < np.exp(merged.exact(b"ab", False))


@pytest.mark.long
@pytest.mark.parametrize("end", [False, True])
def test_of_a_byte_vocabulary_both_ways_are_sums_over_full_passes(end: bool) -> None:
    """By bytes, the mark of the document start is no event, and its probability is shared out."""
    tokenizer = train_tokenizer(
        TokenizerConfig(kind="byte"), ["ab"], corpus_hash="", corpus_name="texts"
    )
    network = build(ModelConfig(width=16, depth=1, heads=2), 258)
    params = jax.tree.map(lambda x: 3 * x, jax.jit(network.init)(jax.random.key(0)))
    prompts = ["In the beginning", "", "x" * 40]
    candidates = [[" God", " Word", " éa"], ["In", "And"], ["y"]]
    given = {"network": network, "params": params, "tokenizer": tokenizer, "context": 32}
    by_tokens, cut = candidate_log_probabilities(
        prompts=prompts, candidates=candidates, end=end, **given
    )
    by_bytes, cut_bytes = candidate_byte_log_probabilities(
        LanguageModel(**given), prompts, candidates, end=end
    )
    assert (cut, cut_bytes) == (1, 0)

    def exact(prompt: str, text: str, events: np.ndarray) -> float:
        ids = np.array([256, *prompt.encode(), *text.encode(), *([257] if end else [])])
        hidden, columns, _ = network.apply(params, ids[None, :-1], np.zeros((1, len(ids) - 1), int))
        logs = np.asarray(jax.nn.log_softmax(hidden[0] @ columns[:, events]))
        scored = range(len(ids) - 1 - len(text.encode()) - end, len(ids) - 1)
        return float(sum(logs[i, list(events).index(ids[i + 1])] for i in scored))

    assert (tokenizer.bos_id, tokenizer.eos_id) == (256, 257)
    for row in (0, 1):
        for place, text in enumerate(candidates[row]):
            everything, bytes_alone = np.arange(258), np.delete(np.arange(258), 256)
            wanted = exact(prompts[row], text, everything)
            assert by_tokens[row][place] == pytest.approx(wanted, abs=1e-4)
            wanted = exact(prompts[row], text, bytes_alone)
            assert by_bytes[row][place] == pytest.approx(wanted, abs=1e-4)
