"""Full-ECE and classwise ECE of a model on a text: against probabilities that are all stored."""

from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny

from calibtrain.cli.evaluating import Events, evaluate
from calibtrain.config import MeshConfig
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.errors import UserError
from calibtrain.evaluation.vocabulary import vocabulary_table
from calibtrain.metrics import classwise_calibration_error, full_calibration_error
from calibtrain.parallel.mesh import make_layout
from calibtrain.temperature import network_of

VOCAB, CONTEXT, ROWS = 60, 16, 2


def random_store(seed: int = 0) -> TokenStore:
    """Seven documents of up to 50 random tokens."""
    rng = np.random.default_rng(seed)
    documents = [rng.integers(0, VOCAB, rng.integers(3, 50)) for _ in range(7)]
    lengths = [len(ids) for ids in documents]
    return TokenStore(
        ids=np.concatenate(documents).astype(np.uint16),
        offsets=np.cumsum([0, *lengths]),
        document_bytes=np.array(lengths),
        byte_lengths=np.ones(VOCAB, int),
        counts=np.ones(VOCAB, int),
        document_ids=tuple("abcdefg"),
    )


def stored(network: Any, params: Any, windows: Any, temperature: float) -> tuple[Any, Any]:
    """The distribution and the target of every scored token, in float64."""
    apply = jax.jit(network.apply)
    probabilities, labels = [], []
    for batch in (windows[index] for index in range(len(windows))):
        hidden, unembedding, _ = apply(params, batch.tokens, batch.segments)
        scored = batch.weights > 0
        columns = np.asarray(unembedding, np.float64)[:, :VOCAB]
        logits = np.asarray(hidden, np.float64)[scored] @ columns / temperature
        weight = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities.append(weight / weight.sum(-1, keepdims=True))
        labels.append(batch.labels[scored])
    return np.concatenate(probabilities), np.concatenate(labels)


@pytest.mark.parametrize("temperature", [1.0, 0.02])
def test_the_errors_are_those_of_stored_probabilities(temperature: float) -> None:
    """At 0.02 a fresh model is sure of itself, so that all bins hold something."""
    network = network_of(tiny(), VOCAB)
    params = network.init(jax.random.key(0))
    store = random_store()
    windows = EvaluationWindows(store, rows=ROWS, context=CONTEXT)
    table = vocabulary_table(network, params, windows, bins=15, temperature=temperature, chunk=7)
    probabilities, labels = stored(network, params, windows, temperature)
    assert len(labels) == store.slots.sum()
    for per in ("token", "pair"):
        want = full_calibration_error(probabilities, labels, per=per)
        assert table.full(per) == pytest.approx(want, rel=1e-3)
        want = classwise_calibration_error(probabilities, labels, per=per)
        assert table.classwise(per) == pytest.approx(want, rel=1e-3)
    layout = make_layout(MeshConfig(), ROWS)  # all devices that are here
    shared = vocabulary_table(
        network, params, windows, bins=15, temperature=temperature, layout=layout
    )
    np.testing.assert_allclose(shared.table, table.table, atol=1e-4)


@pytest.mark.parametrize(
    "asked", [{"events": Events.byte}, {"events": Events.word}, {"corpus": ["kjv", "pydoc"]}]
)
def test_they_are_for_tokens_of_one_corpus(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^--full: "):
        evaluate("runs/none", full=True, **asked)
