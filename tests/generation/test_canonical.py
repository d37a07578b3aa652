"""Canonical tokenisations: what the tokenizer writes, and the next byte over these alone."""

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import call, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.config import ModelConfig, TokenizerConfig, validate
from calibtrain.data.batches.store import TokenStore, read_store, write_store
from calibtrain.data.corpora.documents import END
from calibtrain.data.tokenizers.canonical import CanonicalTokens, Context
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.evaluation.bytes import TextEvaluator
from calibtrain.evaluation.result import read_evaluation
from calibtrain.generation.byte_beam import STOP, ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.canonical_states import CanonicalStates
from calibtrain.generation.next_byte import Beam, NextByte
from calibtrain.generation.states import DecodingStates
from calibtrain.library.run import Run
from calibtrain.models import Network, Params, build

TEXTS = [
    "In the beginning was the Word, and the Word was with God, and the Word was God.\n" * 2,
    "the then these there them that thing think  two  spaces\n\n\tand tabs, the end",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で",
    "ニャーニャー泣いていた事だけは記憶している。吾輩はここで始めて人間というものを見た。" * 2,
    "mississippi aaaaaaa abababab ääöö ",
    "naïve café — “quoted”",
]
SIZE = 460


@functools.cache
def trained(kind: str = "bpe", size: int = SIZE, cut_from: int | None = None) -> Tokenizer:
    settings: dict[str, Any] = {"kind": kind}
    if kind != "byte":
        settings |= {"vocab_size": size, "character_coverage": 0.98}
    if cut_from:
        settings["cut_from"] = cut_from
    config = validate(TokenizerConfig, settings)
    return train_tokenizer(config, TEXTS * 4, corpus_hash="", corpus_name="texts")


KINDS = [(SIZE, None), (420, SIZE)]


@functools.cache
def canonical(size: int = SIZE, cut_from: int | None = None) -> CanonicalTokens:
    return CanonicalTokens(trained("bpe", size, cut_from))


def encoded_all(tokenizer: Tokenizer, all_data: list[bytes]) -> list[list[int]]:
    """What the encoder gives for the stretches of UTF-8, and byte pieces for bytes between them."""
    found, stretches = [], list[str]()
    for data in all_data:
        text = data.decode(errors="surrogateescape")
        found.append(re.split("([\udc80-\udcff])", text))
        stretches += found[-1][::2]
    ids = iter(tokenizer.encode_batch(stretches, threads=1))
    return [
        [
            index
            for place, part in enumerate(parts)
            for index in (
                [int(tokenizer.byte_ids[ord(part) - 0xDC00])] if place % 2 else next(ids).tolist()
            )
        ]
        for parts in found
    ]


def encoded(tokenizer: Tokenizer, data: bytes) -> list[int]:
    return encoded_all(tokenizer, [data])[0]


def follows(tokens: CanonicalTokens, ids: list[int]) -> bool:
    """Whether each token may come after those before it."""
    context = Context()
    for index in ids:
        if not tokens.allowed(context)[index]:
            return False
        context = tokens.after(context, index)
    return True


LETTERS = "the aninos\n\t吾輩は猫である ー\u2581\u3000éäA\x00😀"
WORDS = st.lists(st.sampled_from([*TEXTS, *LETTERS, "mis", "Word", "ab"]), max_size=9)


@pytest.mark.parametrize("size", KINDS)
def test_of_pairs_of_pieces_those_follow_that_the_encoder_leaves_apart(
    size: tuple[int, int | None],
) -> None:
    tokenizer, tokens = trained("bpe", *size), canonical(*size)
    spelled = set(np.flatnonzero(tokenizer.byte_lengths).tolist()) - {*tokenizer.byte_ids.tolist()}
    pieces = {index: tokenizer.piece_bytes[index].decode() for index in sorted(spelled)}
    alone = [tokenizer.encode(text).tolist() == [index] for index, text in pieces.items()]
    ids = np.array(list(pieces))
    np.testing.assert_array_equal(tokens.allowed(Context())[ids], alone)
    rng, apart = np.random.default_rng(0), 0
    for left in rng.choice(ids[alone], 60, replace=False).tolist():
        both = tokenizer.encode_batch([pieces[left] + text for text in pieces.values()], threads=1)
        want = [each.tolist() == [left, i] for each, i in zip(both, ids.tolist(), strict=True)]
        np.testing.assert_array_equal(tokens.allowed(tokens.after_all([left]))[ids], want)
        apart += len(want) - sum(want)
    assert apart > 50


@pytest.mark.parametrize("size", KINDS)
@settings(max_examples=60)
@given(parts=WORDS, cut=st.integers(0, 200), noise=st.binary(max_size=4))
def test_each_token_of_the_encoder_may_follow_those_before(
    size: tuple[int, int | None], parts: list[str], cut: int, noise: bytes
) -> None:
    """Texts, text that is cut inside a character, and bytes that are no text are tried."""
    data = "".join(parts).encode()
    data = data[:cut] + noise + data[cut:]
    assert follows(canonical(*size), encoded(trained("bpe", *size), data))


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), length=st.integers(2, 7))
def test_a_sequence_whose_tokens_may_follow_each_other_is_what_the_encoder_gives(
    seed: int, length: int
) -> None:
    """And one in which one may not is another: canonical means that each two tokens are."""
    tokenizer, tokens, rng = trained(), canonical(), np.random.default_rng(seed)
    context, ids = Context(), list[int]()
    for _ in range(length):
        allowed = tokens.allowed(context)
        allowed[tokenizer.eos_id] = False
        ids.append(int(rng.choice(np.flatnonzero(allowed))))
        context = tokens.after(context, ids[-1])
    assert encoded(tokenizer, tokenizer.decode(ids)) == ids
    at = int(rng.integers(length))
    spelled = np.flatnonzero(tokenizer.byte_lengths)
    ids[at : at + 1] = rng.choice(spelled, int(rng.integers(1, 3))).tolist()
    assert follows(tokens, ids) == (encoded(tokenizer, tokenizer.decode(ids)) == ids)


# --- probabilities -------------------------------------------------------------------------------


class DrawnStates:
    """States of a model whose distributions are drawn anew for every token sequence."""

    def __init__(self, order: np.ndarray):
        self.order, self.rows = order, dict[int, tuple[int, ...]]()
        self.passes = 0

    def probabilities(self, tokens: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([len(tokens), *tokens]).dirichlet(
            np.full(len(self.order), 0.3)
        )

    def start(self, prefixes: Any, rows: np.ndarray) -> np.ndarray:
        return self._put([tuple(prefix[1:].tolist()) for prefix in prefixes], rows)

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        self.passes += len(tokens)
        before = [self.rows[source] for source in sources.tolist()]
        after = zip(before, tokens.tolist(), strict=True)
        return self._put([(*own, token) for own, token in after], targets)

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        raise AssertionError("nothing is copied")

    def keep(self, rows: np.ndarray) -> None:
        pass

    def _put(self, sequences: list[tuple[int, ...]], rows: np.ndarray) -> np.ndarray:
        self.rows.update(zip(rows.tolist(), sequences, strict=True))
        return np.stack([self.probabilities(sequence) for sequence in sequences])


def test_next_bytes_equal_the_enumeration_of_canonical_sequences() -> None:
    """Each weighed by the product of its probabilities, renormalised over what may come next."""
    tokenizer, tokens = trained(), canonical()
    trie = ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id)
    drawn = DrawnStates(trie.order)
    spelled = [tokenizer.piece_bytes[i] if i != tokenizer.eos_id else b"" for i in trie.order]

    @functools.cache
    def local(sequence: tuple[int, ...]) -> np.ndarray:
        longer = [[*sequence, index] for index in trie.order.tolist()]
        given = encoded_all(tokenizer, [tokenizer.decode(each) for each in longer])
        p = drawn.probabilities(sequence) * [
            want == got or want[-1] == tokenizer.eos_id
            for want, got in zip(longer, given, strict=True)
        ]
        return p / p.sum()

    def mass(text: bytes) -> np.ndarray:
        """Returns the mass of each next byte and the end, over sequences that reach beyond here."""
        found, unfinished = np.zeros(257), [((), b"", 1.0)]
        while unfinished:
            sequence, said, weight = unfinished.pop()
            for index, p, piece in zip(trie.order, local(sequence), spelled, strict=True):
                longer = said + piece
                if p == 0:
                    continue
                if len(longer) > len(text) and longer.startswith(text):
                    found[longer[len(text)]] += weight * p
                elif index == tokenizer.eos_id:
                    found[END] += weight * p if said == text else 0.0
                elif text.startswith(longer):
                    unfinished.append(((*sequence, int(index)), longer, weight * p))
        return found

    order = trie.order.tolist()
    for text in (b"the t", "は猫".encode(), b"a\xe3\x81a"):
        states = CanonicalStates(drawn, tokens, trie.order)
        next_byte = NextByte(ByteBeam(trie, 1, trie.longest, 0.0, 0.0), states)
        next_byte.start([np.array([tokenizer.bos_id])])
        drawn.passes, product = 0, 1.0
        for place in range(len(text) + 1):
            found, want = next_byte.predict()[0], mass(text[:place])
            assert found.sum() == pytest.approx(1, abs=1e-12)
            np.testing.assert_allclose(found, want / want.sum(), rtol=1e-9, atol=1e-300)
            symbol = text[place] if place < len(text) else END
            product *= found[symbol]
            if place < len(text):
                (kept,) = next_byte.read(np.array([symbol]))
                assert kept == 1
        assert drawn.passes <= len(text)
        own = (*encoded(tokenizer, text), tokenizer.eos_id)
        chosen = [local(own[:place])[order.index(index)] for place, index in enumerate(own)]
        assert product == pytest.approx(np.prod(chosen), rel=1e-9)


def random_network(vocab_size: int, kind: Any = "transformer") -> tuple[Network, Params]:
    network = build(ModelConfig(kind=kind, width=16, depth=1, heads=2), vocab_size)
    params = jax.jit(network.init)(jax.random.key(0))
    return network, jax.tree.map(lambda x: 3 * x, params)  # far from uniform


@pytest.mark.parametrize("kind", ["transformer", pytest.param("lstm", marks=pytest.mark.long)])
def test_a_text_is_as_probable_byte_by_byte_as_token_by_token(kind: str) -> None:
    """A network's product over bytes is that over tokens, renormalised at each token."""
    tokenizer, tokens = trained(), canonical()
    network, params = random_network(tokenizer.vocab_size, kind)
    trie = ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id)
    data = [b"the Word, two  spaces\n\n", "吾輩は😀 \u2581a".encode(), b""]
    next_byte = NextByte.of(network, params, trie, lanes=3, context=64, follow=tokens)
    next_byte.start([np.array([tokenizer.bos_id])] * 3)
    found, longest = np.zeros(3), max(map(len, data))
    for place in range(longest + 1):
        symbols = np.array([[*text, END, *[STOP] * longest][place] for text in data])
        p = next_byte.predict()
        going = symbols != STOP
        found[going] -= np.log(p[going, symbols[going]])
        next_byte.read(symbols)

    states = DecodingStates(network, params, rows=1, context=64, events=trie.order)
    row = np.zeros(1, np.int64)
    for lane, text in enumerate(data):
        p = states.start([np.array([tokenizer.bos_id], np.int32)], row)[0]
        nll, context = 0.0, Context()
        for index in (*tokenizer.encode(text.decode()).tolist(), tokenizer.eos_id):
            p = p * tokens.allowed(context)[trie.order]
            nll -= np.log(p[trie.order == index] / p.sum()).item()
            context = tokens.after(context, index)
            p = states.extend(row, row, np.array([index]))[0]
        assert found[lane] == pytest.approx(nll, rel=1e-5)


# --- evaluations ---------------------------------------------------------------------------------


def evaluate(tokenizer: Tokenizer, store: TokenStore, **how: Any) -> Any:
    network, params = random_network(tokenizer.vocab_size)
    about = {"corpus": "texts", "split": "test", "step": 0, "corpus_hash": "0" * 16}
    about["tokenizer_hash"] = tokenizer.hash
    found = TextEvaluator(network, tokenizer, context=64, bins=10, lanes=4, **how)
    return found.evaluate(params, store, about, limit=300)


def stored(folder: Path, tokenizer: Tokenizer) -> TokenStore:
    folder.mkdir()
    documents = [SimpleNamespace(id=str(i), text=text) for i, text in enumerate(TEXTS)]
    write_store(folder, documents, tokenizer)  # type: ignore[arg-type]
    return read_store(folder)


@given(st.binary(max_size=9))
def test_of_bytes_every_sequence_is_canonical(data: bytes) -> None:
    tokenizer = trained("byte")
    tokens = CanonicalTokens(tokenizer)
    allowed = tokens.allowed(tokens.after_all(data))
    np.testing.assert_array_equal(allowed, np.arange(258) != tokenizer.bos_id)


@pytest.mark.long
def test_an_evaluation_says_that_it_is_canonical_and_what_a_beam_errs_by(tmp_path: Path) -> None:
    tokenizer = trained()
    store = stored(tmp_path / "store", tokenizer)
    exact = evaluate(tokenizer, store, canonical=True, beam=Beam(3, 0.1))
    beam = evaluate(tokenizer, store, beam=Beam(3, 0.1))
    assert (exact.about["event"], exact.about["tokenisations"]) == ("canonical-byte", "canonical")
    assert "beam" not in exact.about
    assert exact.results["signatures"]["ece"].startswith("event:canonical-byte.local|")
    assert beam.results["signatures"]["ece"].startswith("event:byte|")
    theirs = exact.results["beam_over_all"]
    assert (theirs.pop("beam"), theirs.pop("ratio")) == (3, 0.1)
    for name, value in theirs.items():
        assert value == beam.figures[name]
        if value is not None:
            assert exact.results["excess"][name] == pytest.approx(value - exact.figures[name])
    written = exact.write(tmp_path / "written", "0" * 16, 300)
    assert written.name == "texts-test-0-canonical-byte.json"
    assert read_evaluation(written).event == "canonical-byte"
    assert "excess" not in exact.figures


def test_a_unigram_tokenizer_is_refused_in_a_line(finished_run: Path) -> None:
    how = ("--events", "byte", "--tokenisations", "canonical")
    done = call("evaluate", finished_run, *how)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "canonical is for tokenizers of kind bpe and byte, not unigram" in line
    assert "use all" in line
    done = call("evaluate", finished_run, *how[2:])
    assert done.returncode == 2
    assert "--tokenisations: is for --events byte or word" in done.stderr
    with pytest.raises(UserError, match="tokenisations: 'some' is not allowed; allowed: all, cano"):
        Run(finished_run).evaluate(events="byte", tokenisations="some")


@pytest.mark.long
def test_the_command_says_how_many_bits_a_beam_is_off(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(tiny(tokenizer={"kind": "bpe"}), run, cache=cache)
    for events in ("byte", "word"):
        how = ("--events", events, "--tokenisations", "canonical", "--bytes", "500")
        exact = call("evaluate", run, *how, "--json")
        both = call("evaluate", run, *how, "--beam", "3", "--json")
        assert (exact.returncode, both.returncode) == (0, 0), exact.stderr + both.stderr
        found, beside = json.loads(exact.stdout), json.loads(both.stdout)
        assert found["event"] == f"canonical-{events}"
        assert found["bits_per_byte"] == beside["bits_per_byte"]
        assert "excess" not in found
        excess = beside["excess"]["bits_per_byte"]
        assert f"{excess:+.4f} against the canonical ones" in both.stderr
    assert call("report", run).returncode == 0
