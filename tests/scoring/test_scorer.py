"""Text scored under a model: against whole logits in NumPy, and one batch behind the device."""

from typing import Any

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig
from calibtrain.config.temperature import GlobalTemperature
from calibtrain.data.batches.examples import Answer, lay_out
from calibtrain.models import TEMPERATURE, build
from calibtrain.models.pieces import apply_in_pieces, pieces_of
from calibtrain.scoring.answers import AnswerScorer
from calibtrain.scoring.scorer import Scorer, network_output, one_behind
from calibtrain.temperature import tempered

VOCAB, CONTEXT = 11, 12
NETWORK = build(ModelConfig(width=8, depth=1, heads=2), VOCAB)
HEADED = tempered(NETWORK, GlobalTemperature())
ANSWERS = [
    Answer(np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.int32), prompt, 0)
    for seed, (length, prompt) in enumerate([(5, 1), (13, 8), (9, 0), (6, 4), (4, 2)])
]


def params_of(network: Any) -> Any:
    """Parameters that are not those of a fresh head."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(leaf + 0.3 * rng.normal(size=leaf.shape)),
        jax.jit(network.init)(jax.random.key(0)),
    )


def log_p(network: Any, params: Any, batch: Any, temperature: float = 1.0) -> np.ndarray:
    """log p of each label in float64, from whole logits."""
    hidden, unembedding, own = jax.jit(network.apply)(params, batch.tokens, batch.segments)
    logits = np.asarray(hidden, np.float64) @ np.asarray(unembedding, np.float64)
    logits = logits[..., :VOCAB] / temperature
    if own is not None:
        logits = logits / np.asarray(own)[..., None]
    top = logits.max(-1, keepdims=True)
    picked = np.take_along_axis(logits, batch.labels[..., None], -1)[..., 0]
    return picked - top[..., 0] - np.log(np.exp(logits - top).sum(-1))


def test_a_batch_is_read_once_the_device_has_the_next_one() -> None:
    said: list[str] = []

    def score(number: int) -> Any:
        said.append(f"score {number}")
        return {"twice": jax.numpy.asarray(2 * number)}

    for number, scores in one_behind(score, [1, 2, 3]):
        said.append(f"read {number}")
        assert isinstance(scores["twice"], np.ndarray)
        assert scores["twice"] == 2 * number
    assert said == ["score 1", "score 2", "read 1", "score 3", "read 2", "read 3"]
    assert list(one_behind(score, [])) == []


@pytest.mark.parametrize("network", [NETWORK, HEADED], ids=["plain", "head"])
def test_a_temperature_divides_what_the_head_of_a_network_leaves(network: Any) -> None:
    params = params_of(network)
    assert (TEMPERATURE in params) == (network is HEADED)
    batch = lay_out(ANSWERS, CONTEXT)
    scorer = Scorer(network_output(network), **network.reading, fields=("nll",))
    for temperature in (None, np.float32(1.7)):
        found = scorer(params, batch, temperature)
        want = log_p(network, params, batch, 1.0 if temperature is None else 1.7)
        np.testing.assert_allclose(found.nll, -want, rtol=1e-4, atol=1e-5)
        assert found.entropy is None


@pytest.mark.parametrize("network", [NETWORK, HEADED], ids=["plain", "head"])
def test_rows_that_are_read_a_few_at_a_time_have_the_same_states(network: Any) -> None:
    rng, params = np.random.default_rng(1), params_of(network)
    tokens = rng.integers(0, VOCAB, (6, 320)).astype(np.int32)
    segments = np.sort(rng.integers(0, 3, tokens.shape), axis=1).astype(np.int32)
    assert pieces_of(*tokens.shape, "cpu") == 3
    assert pieces_of(*tokens.shape, "tpu") == 1

    def states(platform: str) -> Any:
        return jax.jit(lambda p, t, s: apply_in_pieces(network, p, t, s, platform))(
            params, tokens, segments
        )

    for cut, whole in zip(states("cpu"), states("tpu"), strict=True):
        if whole is None:
            assert cut is None
        else:
            np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)


def test_an_answer_has_the_product_of_the_probabilities_of_its_tokens() -> None:
    params, batch = params_of(NETWORK), lay_out(ANSWERS, CONTEXT)
    found = AnswerScorer(NETWORK, rows=2, context=CONTEXT).log_probabilities(params, ANSWERS)
    assert found.shape == (len(ANSWERS),)  # rows that pad the last batch are left out
    want = (log_p(NETWORK, params, batch) * batch.weights).sum(-1)
    np.testing.assert_allclose(found, want, rtol=1e-4)
