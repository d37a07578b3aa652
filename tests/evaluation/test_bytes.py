"""Byte figures of models: against token figures where both are the same, and beside them."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import call

from calibtrain.config import ModelConfig, TokenizerConfig
from calibtrain.data.batches.store import TokenStore, frequency_deciles, read_store, write_store
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.evaluation import (
    TokenEvaluator,
    evaluate_run,
    evaluate_run_on_text,
)
from calibtrain.evaluation.byte_windows import plan_byte_windows
from calibtrain.evaluation.bytes import TextEvaluator
from calibtrain.models import build
from calibtrain.storage.documents import unsealed

TEXTS = ["In the beginning", "", "was the Word, " * 5, "ça", bytes(range(33, 127)).decode()]
ABOUT = {
    "corpus": "texts",
    "split": "test",
    "step": 0,
    "corpus_hash": "0" * 16,
    "tokenizer_hash": "0" * 16,
}


def byte_tokenizer() -> Tokenizer:
    config = TokenizerConfig(kind="byte")
    return train_tokenizer(config, TEXTS, corpus_hash="", corpus_name="texts")


def make_store(folder: Path, tokenizer: Any) -> TokenStore:
    folder.mkdir()
    documents = [SimpleNamespace(id=str(i), text=text) for i, text in enumerate(TEXTS)]
    write_store(folder, documents, tokenizer)  # type: ignore[arg-type]
    return read_store(folder)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_of_a_byte_vocabulary_byte_figures_are_token_figures(kind: Any, tmp_path: Path) -> None:
    """On the same windows; the document start, which is no event, masked out of the latter."""
    tokenizer = byte_tokenizer()
    network = build(
        ModelConfig(kind=kind, width=16, depth=1, heads=2, logit_soft_cap=5.0, tied=False), 258
    )
    params = jax.jit(network.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: 3 * x, params)  # far from uniform
    store = make_store(tmp_path / "bytes", tokenizer)
    found = TextEvaluator(network, tokenizer, context=24, bins=10, lanes=3)
    by_bytes = found.evaluate(params, store, ABOUT)

    # ids 256 and 257 change places: then the start is the last, and can be cut off
    swapped = np.array([*range(256), 257, 256])
    turned = SimpleNamespace(**vars(tokenizer), encode_batch=tokenizer.encode_batch)
    turned.bos_id, turned.eos_id, turned.decode = 257, 256, tokenizer.decode
    other = make_store(tmp_path / "turned", turned)
    table = {name: x[swapped] for name, x in params["vocabulary"].items() if x is not None}
    cut = dataclasses.replace(network, vocab_size=257)
    by_tokens = TokenEvaluator(
        cut, frequency_deciles(other.counts), rows=2, context=24, bins=10
    ).evaluate({**params, "vocabulary": table}, other, ABOUT)
    for name, value in by_bytes.results.items():
        if isinstance(value, float | int):
            assert value == pytest.approx(by_tokens.results[name], abs=1e-6, rel=1e-5), name
    for mine, theirs in zip(
        by_bytes.results["reliability"], by_tokens.results["reliability"], strict=True
    ):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for name, column in by_bytes.documents.items():
        if name != "document":
            np.testing.assert_allclose(column, by_tokens.documents[name], rtol=1e-5, atol=1e-5)
    # there is only one tokenisation, which both beams follow in batches of their own
    assert by_bytes.results["difference"]["nll"] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("bytes") / "run"))


@pytest.mark.long
def test_all_tokenisations_together_are_no_less_probable_than_one(run: Path) -> None:
    tokens, both = evaluate_run(run), evaluate_run_on_text(run)
    assert tokens.about["sample"] == both.about["sample"]  # the very same text: all of it
    by_tokens, by_bytes = tokens.results, both.results
    error = abs(by_bytes["difference"]["bits_per_byte"])
    assert by_bytes["bits_per_byte"] <= by_tokens["bits_per_byte"] + error + 1e-6
    assert by_bytes["wider"]["beam"] == 10


@pytest.mark.long
def test_byte_results_have_a_file_of_their_own(run: Path) -> None:
    own = run / "evaluations" / "markov-test-24.json"
    before = own.read_bytes()
    arguments = ("--events", "byte", "--bytes", "500", "--beam", "3", "--ratio", "0.1", "--json")
    done = call("evaluate", run, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["event"], found["beam"], found["ratio"]) == ("byte", 3, 0.1)
    written = run / "evaluations" / "markov-test-24_500bytes-byte_beam3_ratio0.1.json"
    assert unsealed(json.loads(written.read_text())) == found
    assert written.with_suffix(".parquet").is_file()
    assert own.read_bytes() == before
    assert call("report", run).returncode == 0


def test_the_beam_belongs_to_bytes(run: Path) -> None:
    done = call("evaluate", run, "--beam", "3")
    assert done.returncode == 2
    assert "--events byte" in done.stderr


@pytest.mark.parametrize("context", [8, 50])
def test_windows_score_every_byte_once_from_half_a_context(context: int, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    store = make_store(tmp_path / "store", tokenizer)
    stretches, windows = plan_byte_windows(store, tokenizer.piece_bytes, context=context, warm_up=3)
    sizes = [len(text.encode()) for text in TEXTS]
    assert stretches == tuple((document, 0, size) for document, size in enumerate(sizes))
    scored: dict[int, list[int]] = {document: [] for document in range(len(TEXTS))}
    for window in windows:
        scored[window.document] += window.symbols[window.scored_from :].tolist()
        if window.prefix[0] == tokenizer.bos_id:
            assert window.scored_from == 0
        else:
            assert len(window.prefix) + window.scored_from >= context // 2
            assert window.scored_from == 3
        given = [*tokenizer.decode(window.prefix), *window.symbols]
        text = [*TEXTS[window.document].encode(), 256]
        assert given in [text[i : i + len(given)] for i in range(len(text))]
    for document, symbols in scored.items():  # in the last document every symbol is another
        assert sorted(symbols) == sorted([*TEXTS[document].encode(), 256])


@pytest.mark.parametrize("limit", [40, 90])
def test_windows_of_a_sample_score_its_very_bytes(limit: int, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    store = make_store(tmp_path / "store", tokenizer)
    stretches, windows = plan_byte_windows(
        store, tokenizer.piece_bytes, context=16, limit=limit, warm_up=3
    )
    assert sum(stop - start for _, start, stop in stretches) == limit
    wanted = {
        (document, at)
        for document, start, stop in stretches
        for at in range(start, stop + (stop == store.document_bytes[document]))
    }
    found = [
        (window.document, window.before + at)
        for window in windows
        for at in range(window.scored_from, len(window.symbols))
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    for window in windows:
        text = [*TEXTS[window.document].encode(), 256]
        begin = window.before
        assert window.symbols.tolist() == text[begin : begin + len(window.symbols)]
        assert begin == 0 or len(window.prefix) + window.scored_from >= 8
