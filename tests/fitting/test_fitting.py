"""Fitting heads to frozen states, against closed forms, float64, SciPy and known factors."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import pytest
from heads import KINDS, head_config, stirred
from known_states import MODEL, VOCAB, make, nll
from scipy.optimize import minimize

from calibtrain.config import ModelConfig
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.head import Recipe, fit_head, hold_out, make_step, mean_loss
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer, mean_over
from calibtrain.losses import CrossEntropy, SelectiveSmoothing
from calibtrain.temperature import make_head

SLOW = ("adaptive", "thermometer", "low_rank_matrix")
SOME_LONG = [pytest.param(k, marks=pytest.mark.long) if k in SLOW else k for k in KINDS]


def constant(value: float) -> Any:
    return lambda hidden: np.full(hidden.shape[:2], value)


def by_previous(hidden: np.ndarray) -> np.ndarray:
    """From 0.3 to 3.3, by a feature of the token before."""
    before = np.pad(hidden[:, :-1, 0], ((0, 0), (1, 0)))
    return np.exp(1.2 * np.tanh(1.5 * before))


def head_of(kind: str, **options: Any) -> Any:
    head = make_head(head_config(kind, **options), MODEL, VOCAB)
    assert head is not None
    return head


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(factor: float) -> None:
    """Logits times c need c times the temperature, to 0.1 %; and T makes nll the entropy."""
    states, output_layer, logits = make(64, 32, constant(1.0), seed=0)
    alone = fit_global_temperature(output_layer, states)
    scaled = dataclasses.replace(states, hidden=(np.asarray(states.hidden) * np.float32(factor)))
    found = fit_global_temperature(output_layer, scaled)
    assert found.temperature == pytest.approx(factor * alone.temperature, rel=1e-3)
    assert found.nll_after == pytest.approx(alone.nll_after, abs=1e-6)
    assert found.nll_after <= found.nll_before
    assert alone.temperature == pytest.approx(1.0, abs=0.06)  # labels are the model's own
    at = logits / alone.temperature
    p = np.exp(at - at.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    entropy = float(-(p * np.log(p)).sum(-1).mean())
    # a Newton step that gains less than 1e-8 nats, about (nll - entropy)^2 / 2, is not taken
    assert nll(at, states.labels) == pytest.approx(entropy, abs=2e-4)
    assert alone.nll_after == pytest.approx(nll(at, states.labels), abs=1e-6)


def test_a_temperature_out_of_reach_is_the_nearest_one() -> None:
    states, output_layer, _ = make(16, 32, constant(30.0), seed=0)
    assert fit_global_temperature(
        output_layer, states, lowest=0.1, highest=10.0
    ).temperature == pytest.approx(10.0)


@pytest.mark.parametrize("kind", ["vector", "linear"])
def test_the_nll_of_the_text_never_rises_and_the_best_token_stays(kind: str) -> None:
    """Even with a learning rate that makes everything worse."""
    states, output_layer, _ = make(12, 16, constant(1.0), seed=1)
    head = head_of(kind)
    for rate in (None, 3.0):
        recipe = Recipe(steps=20, tokens=64, learning_rate=rate)
        fitted = fit_head(head, output_layer, states, CrossEntropy(), recipe)
        score = output_layer.scorer(head, ("nll", "correct"))
        assert mean_over(score, fitted.params, states) <= fitted.nll_before + 1e-7
        assert fitted.nll_after <= fitted.nll_before
        if kind == "vector":
            continue
        batch = states.batch(np.arange(12))
        plain = output_layer.scorer(None, ("correct",))(None, batch)
        np.testing.assert_array_equal(score(fitted.params, batch).correct, plain.correct)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_can_begin_at_any_temperature(kind: str) -> None:
    """Then it is that of a global head, of every token."""
    states, output_layer, _ = make(4, 10, by_previous, seed=2)
    head, batch = head_of(kind), states.batch(np.arange(4))
    fresh, score = head.init(jax.random.key(0)), output_layer.scorer(head, ("nll",))
    z = (np.asarray(states.hidden, np.float64) @ output_layer.unembedding).reshape(-1, VOCAB)
    for temperature in (0.13, 0.7, 1.0, 3.0, 9.9):
        params = head.at(fresh, temperature)
        assert jax.tree.structure(params) == jax.tree.structure(fresh)
        at = z / temperature
        own = np.take_along_axis(at, states.labels.reshape(-1, 1), 1)[:, 0]
        want = np.log(np.exp(at - at.max(1, keepdims=True)).sum(1)) + at.max(1) - own
        np.testing.assert_allclose(score(params, batch).nll, want, rtol=5e-5, atol=5e-5)
    for temperature in (1e-9, 1e9):  # which it cannot give
        nearest = head.at(fresh, temperature)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nearest))


@pytest.mark.parametrize(
    "kind",
    [
        "vector",
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in KINDS
            if kind not in ("global", "vector")
        ),
    ],
)
def test_no_head_ends_above_the_global_one(kind: str) -> None:
    """On the text that both are fitted on, after a few steps and one document held out."""
    seed = 1
    states, output_layer, _ = make(12, 16, constant(2.5), seed=seed)
    alone = fit_global_temperature(output_layer, states, lowest=0.1, highest=10.0)
    head = head_of(kind)
    for rate in (None, 3.0):
        recipe = Recipe(steps=18, tokens=64, learning_rate=rate, seed=seed)
        fitted = fit_head(head, output_layer, states, CrossEntropy(), recipe)
        assert fitted.held_out == 16
        assert fitted.nll_after <= alone.nll_after
        assert fitted.nll_before == alone.nll_before
        score = output_layer.scorer(head, ("nll",))
        measured = mean_over(score, fitted.params, states)
        assert measured == pytest.approx(fitted.nll_after, rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["linear", "vector"])
def test_nor_by_a_loss_that_is_not_the_nll(kind: str) -> None:
    """The global one of so many steps is where the richer one starts; what counts is the loss."""
    states, output_layer, _ = make(12, 16, constant(2.5), seed=1)
    loss = SelectiveSmoothing(0.5)
    ends = {}
    for each in ("global", kind):
        head = head_of(each)
        recipe = Recipe(steps=18, tokens=64, learning_rate=3.0 if each == kind else None)
        fitted = fit_head(head, output_layer, states, loss, recipe, proper=False)
        score = output_layer.scorer(head, tuple(dict.fromkeys(("nll", *loss.fields))))
        ends[each] = mean_over(score, fitted.params, states, loss.per_token)
        at_first = mean_over(score, head.init(jax.random.key(0)), states, loss.per_token)
        assert ends[each] <= at_first
    assert ends[kind] <= ends["global"] + 1e-6


@pytest.mark.parametrize("kind", SOME_LONG)
def test_gradients_equal_those_of_whole_logits_in_float64(kind: str) -> None:
    """Of a step of plain descent, for a text of which only some tokens count."""

    states, output_layer, _ = make(3, 10, by_previous, seed=2)
    counted = np.random.default_rng(0).random(states.counted.shape) < 0.6
    states = dataclasses.replace(states, counted=counted)
    head = head_of(kind)
    params = stirred({"temperature": head.init(jax.random.key(0))})["temperature"]
    batch = states.batch(np.arange(3))
    sgd = optax.sgd(1.0)
    step = make_step(mean_loss(head, output_layer, CrossEntropy()), sgd)
    after, _ = step((params, sgd.init(params)), output_layer.unembedding, batch)
    got = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, after)

    def mean(params: Any, hidden: Any, unembedding: Any) -> Any:
        hidden, columns, temperature = head.apply(params, hidden, unembedding, states.segments)
        logits = hidden @ columns
        if temperature is not None:
            logits = logits / temperature[..., None]
        picked = jax.numpy.take_along_axis(logits, states.labels[..., None], -1)[..., 0]
        each = jax.scipy.special.logsumexp(logits, axis=-1) - picked
        return (each * counted).sum() / counted.sum()

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jax.numpy.asarray(x, "float64"), params)
        hidden = jax.numpy.asarray(states.hidden, "float64")
        want = jax.jit(jax.grad(mean))(
            wide, hidden, jax.numpy.asarray(output_layer.unembedding, "float64")
        )
        want = jax.tree.map(np.asarray, want)
    for mine, exact in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=2e-3, atol=2e-6)


@pytest.mark.long
def test_an_adaptive_head_finds_what_the_token_before_says() -> None:
    """At least 80 % of the excess nll goes, on text that it was not fitted on; of a global one,
    less than half."""
    states, output_layer, _ = make(3000, 24, by_previous, seed=3, sharpness=1.5)
    fresh, _, logits = make(60, 24, by_previous, seed=4, sharpness=1.5)
    true = nll(logits, fresh.labels)
    removed = {}
    for kind in ("global", "adaptive"):
        head = head_of(kind)
        recipe = Recipe(steps=1000, tokens=1024, learning_rate=1e-2, evaluations=5)
        fitted = fit_head(head, output_layer, states, CrossEntropy(), recipe)
        score = output_layer.scorer(head, ("nll",))
        before = mean_over(score, head.init(jax.random.key(0)), fresh)
        removed[kind] = (before - mean_over(score, fitted.params, fresh)) / (before - true)
    assert removed["adaptive"] >= 0.8, removed
    assert removed["global"] < 0.5, removed


@pytest.mark.long
def test_vector_scaling_is_the_optimum_that_scipy_finds() -> None:
    """Of a convex problem: the model's logits diag(w) z + b, whole text, no decay."""
    states, output_layer, _ = make(16, 32, constant(1.0), seed=5)
    rng = np.random.default_rng(6)
    bent = output_layer.unembedding * rng.uniform(0.5, 2.0, VOCAB).astype(np.float32)
    output_layer = OutputLayer(bent, VOCAB)
    z = np.asarray(states.hidden, np.float64) @ np.asarray(bent, np.float64)
    z, labels = z.reshape(-1, VOCAB), states.labels.reshape(-1)
    hot = np.eye(VOCAB)[labels]

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = z * x[:VOCAB] + x[VOCAB:]
        p = np.exp(scaled - scaled.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        away = (p - hot) / len(z)
        value = float(-np.log(p[np.arange(len(z)), labels]).mean())
        return value, np.concatenate([(away * z).sum(0), away.sum(0)])

    start = np.concatenate([np.ones(VOCAB), np.zeros(VOCAB)])
    best = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B")
    recipe = Recipe(steps=3000, tokens=len(z), learning_rate=3e-2, weight_decay=0.0, held_out=0.0)
    fitted = fit_head(head_of("vector"), output_layer, states, CrossEntropy(), recipe)
    assert fitted.nll_after == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose(fitted.params["scale"], best.x[:VOCAB], atol=0.02)
    bias = fitted.params["bias"] - np.mean(fitted.params["bias"])  # all of them may be moved
    np.testing.assert_allclose(bias, best.x[VOCAB:] - best.x[VOCAB:].mean(), atol=0.02)


def test_what_is_held_out_is_whole_documents() -> None:
    states, _, _ = make(20, 8, constant(1.0), seed=7)
    documents = np.arange(20 * 8).reshape(20, 8) // 12  # that cross rows
    states = dataclasses.replace(states, documents=documents.astype(np.int32))
    rest, held = hold_out(states, Recipe(held_out=0.3))
    assert held is not None
    mine, theirs = (set(np.unique(part.documents[part.counted])) for part in (rest, held))
    assert not mine & theirs
    assert len(theirs) == round(0.3 * 14)
    assert rest.tokens + held.tokens == states.tokens


def test_batches_hold_every_token_that_counts_once() -> None:
    rng = np.random.default_rng(8)
    rows, time = 37, 600
    hidden = np.arange(rows * time, dtype=np.float32).reshape(rows, time, 1)
    counted = rng.random((rows, time)) < rng.random((rows, 1))
    counted[5] = False
    zeros = np.zeros((rows, time), np.int32)
    states = HiddenStates(hidden, zeros, zeros, counted, zeros)
    found = []
    for batch in states.batches():
        assert len(batch.hidden) == 27  # always: else each would be a program of its own
        found.append(batch.hidden.reshape(-1)[batch.index[batch.weights > 0]])
    want = hidden[..., 0][counted]
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(want))


def test_nothing_is_sent_back_through_the_logits() -> None:
    """By the compiler's count a step has the product with the unembedding once, not three times."""
    width, vocab, rows, time = 32, 512, 4, 64
    model = ModelConfig(width=width, depth=1, heads=1)
    head = make_head(head_config("linear"), model, vocab)
    assert head is not None
    zeros = np.zeros((rows, time), np.int32)
    hidden = np.zeros((rows, time, width), np.float32)
    states = HiddenStates(hidden, zeros, zeros, zeros == 0, zeros)
    output_layer = OutputLayer(np.zeros((width, vocab), np.float32), vocab)
    params = jax.eval_shape(head.init, jax.random.key(0))
    sgd = optax.sgd(1.0)
    step = make_step(mean_loss(head, output_layer, CrossEntropy()), sgd)
    carry = (params, jax.eval_shape(sgd.init, params))
    lowered = step.lower(carry, output_layer.unembedding, states.batch(np.arange(rows)))
    flops = lowered.compile().cost_analysis()["flops"]
    product = 2 * rows * time * width * vocab
    assert product < flops < 2 * product
