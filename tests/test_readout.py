"""`readout` against logits computed directly in float64, values and gradients; and its memory."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.config import ModelConfig, OptimizerConfig
from calibtrain.data.batches.stream import Batch
from calibtrain.metrics.mass import group_mass
from calibtrain.models import build
from calibtrain.readout import FIELDS, TokenStats, additive_loss, largest, readout
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step

SMOOTH = ("nll", "log_confidence", "entropy", "sum_squares", "mean_log_prob", "runner_up")


def reference(
    hidden: Any, unembedding: Any, labels: Any, temperature: Any, vocab_size: int, soft_cap: Any
) -> dict[str, Any]:
    """Every statistic from the whole matrix of probabilities, in the precision of the inputs."""
    logits = hidden @ unembedding[:, :vocab_size]
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    logits = logits / temperature[:, None]
    log_p = logits - jax.scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    p = jnp.exp(log_p)
    target = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    below = jnp.where(log_p < target[:, None], p, 0.0)
    return {
        "nll": -target,
        "log_confidence": log_p.max(-1),
        "correct": (jnp.argmax(log_p, -1) == labels).astype(float),
        "entropy": -(p * log_p).sum(-1),
        "sum_squares": (p**2).sum(-1),
        "mean_log_prob": log_p.mean(-1),
        "rank": (log_p > target[:, None]).sum(-1),
        "runner_up": below.max(-1),
        "predicted": jnp.argmax(log_p, -1),
    }


def problem(seed: int, scale: float, tokens: int = 13, width: int = 8, vocab: int = 11) -> Any:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(tokens, width)) * scale
    unembedding = rng.normal(size=(width, vocab))
    labels = rng.integers(0, vocab - 2, size=tokens)
    temperature = np.exp(rng.normal(size=tokens) * 0.3)
    return hidden, unembedding, labels, temperature


JITTED = jax.jit(readout, static_argnames=("vocab_size", "soft_cap", "chunk"))
REFERENCE = jax.jit(reference, static_argnames=("vocab_size", "soft_cap"))


@pytest.mark.parametrize(
    "scale", [0.0, 0.3, 3.0, 30.0], ids=["uniform", "soft", "sharp", "one-hot"]
)
@pytest.mark.parametrize("soft_cap", [None, 60.0])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_values_equal_a_direct_float64_computation(
    scale: float, soft_cap: float | None, chunk: int
) -> None:
    hidden, unembedding, labels, temperature = problem(0, scale)
    got = JITTED(
        jnp.asarray(hidden, jnp.float32),
        jnp.asarray(unembedding, jnp.float32),
        jnp.asarray(labels),
        temperature=jnp.asarray(temperature, jnp.float32),
        vocab_size=9,
        soft_cap=soft_cap,
        chunk=chunk,
    )
    with jax.enable_x64(True):
        exactly = map(jnp.asarray, (hidden, unembedding, labels, temperature))
        want = REFERENCE(*exactly, vocab_size=9, soft_cap=soft_cap)
        want = {name: np.asarray(value) for name, value in want.items()}
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(got, name), want[name], rtol=2e-5, atol=2e-5, err_msg=name
        )


@functools.cache
def gradients(field: str) -> tuple[Any, Any]:
    """The gradient of a weighted sum of a field: that of `readout`, and that of the reference."""

    def ours(h: Any, w: Any, t: Any, labels: Any, weights: Any) -> Any:
        stats = readout(h, w, labels, temperature=t, vocab_size=9, soft_cap=20.0, chunk=4)
        return jnp.sum(getattr(stats, field) * weights)

    def theirs(h: Any, w: Any, t: Any, labels: Any, weights: Any) -> Any:
        return jnp.sum(reference(h, w, labels, t, 9, 20.0)[field] * weights)

    # A compiled program computes the largest entry twice, and not always to the same float64.
    return jax.jit(jax.grad(ours, argnums=(0, 1, 2))), jax.grad(theirs, argnums=(0, 1, 2))


@pytest.mark.parametrize("field", SMOOTH)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_gradients_equal_a_direct_float64_computation(field: str, scale: float) -> None:
    hidden, unembedding, labels, temperature = problem(1, scale)
    weights = np.random.default_rng(2).normal(size=len(labels))
    ours, theirs = gradients(field)
    arguments = (hidden, unembedding, temperature)
    single = (jnp.asarray(a, jnp.float32) for a in arguments)
    got = ours(*single, jnp.asarray(labels), jnp.asarray(weights, jnp.float32))
    with jax.enable_x64(True):
        want = theirs(*map(jnp.asarray, (*arguments, labels, weights)))
        want = [np.asarray(part) for part in want]
    for mine, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


def test_gradients_are_finite_at_certainty_and_at_impossibility() -> None:
    unembedding = jnp.eye(5, dtype=jnp.float32)
    hidden = jnp.asarray([[400.0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], jnp.float32)
    labels = jnp.asarray([[0, 3], [1, 3]])

    @jax.jit
    @jax.value_and_grad
    def total(h: Any, row: Any) -> Any:
        stats = readout(h, unembedding, row, vocab_size=4)
        return sum(jnp.sum(getattr(stats, name)) for name in SMOOTH)

    for row in labels:
        value, gradient = total(hidden, row)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def focal(stats: TokenStats) -> Any:
    """A loss that reads more than the nll."""
    return (1 - jnp.exp(-stats.nll)) ** 2 * stats.nll - 0.1 * stats.entropy


@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_an_additive_loss_equals_a_direct_float64_computation(chunk: int) -> None:
    """The value, and its gradients with respect to hidden states, unembedding and temperature."""
    hidden, unembedding, labels, temperature = problem(1, 1.0)
    weights = np.random.default_rng(2).uniform(size=len(labels))

    def ours(h: Any, w: Any, t: Any) -> Any:
        loss, stats = additive_loss(
            h,
            w,
            jnp.asarray(labels),
            jnp.asarray(weights, jnp.float32),
            focal,
            temperature=t,
            vocab_size=9,
            soft_cap=20.0,
            chunk=chunk,
            fields=FIELDS,
        )
        return 3.0 * loss, stats

    def theirs(h: Any, w: Any, t: Any) -> Any:
        stats = reference(h, w, jnp.asarray(labels), t, 9, 20.0)
        return 3.0 * jnp.sum(focal(TokenStats(**stats)) * weights), stats

    arguments = (hidden, unembedding, temperature)
    gradient = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))
    (loss, stats), got = gradient(*(jnp.asarray(a, jnp.float32) for a in arguments))
    alone, _ = jax.jit(ours)(*(jnp.asarray(a, jnp.float32) for a in arguments))
    with jax.enable_x64(True):
        exact = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2), has_aux=True))
        (true_loss, true_stats), want = exact(*map(jnp.asarray, arguments))
        want = [np.asarray(part) for part in want]
        true_stats = {name: np.asarray(value) for name, value in true_stats.items()}
    np.testing.assert_allclose([loss, alone], float(true_loss), rtol=1e-5)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(stats, name), true_stats[name], rtol=2e-5, atol=2e-5)
    for mine, true in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-4, atol=1e-4 * np.abs(true).max())


@pytest.mark.long  # the long tier compiles as a user does, and so rounds as a user does
@pytest.mark.parametrize("chunk", [13, 100])
def test_it_does_as_compiled_for_use_too(chunk: int) -> None:
    test_an_additive_loss_equals_a_direct_float64_computation(chunk)


def test_an_additive_loss_multiplies_nothing_twice() -> None:
    """Three products a chunk: logits, gradient of the hidden states, gradient of the columns."""
    tokens, width, vocab = 512, 64, 2048
    hidden, columns = jnp.ones((tokens, width)), jnp.ones((width, vocab))
    labels, weights = jnp.zeros(tokens, jnp.int32), jnp.ones(tokens)

    def products(jaxpr: Any) -> float:
        """FLOPs of the matrix products of a program."""
        total = 0.0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                inner = np.prod([equation.invars[0].aval.shape[axis] for axis in contracted])
                total += 2.0 * inner * np.prod(equation.outvars[0].aval.shape)
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            for value in equation.params.values():
                if hasattr(getattr(value, "jaxpr", value), "eqns"):
                    total += times * products(getattr(value, "jaxpr", value))
        return total

    def fused(h: Any, w: Any) -> Any:
        return additive_loss(h, w, labels, weights, lambda stats: stats.nll, chunk=128)[0]

    def unfused(h: Any, w: Any) -> Any:
        return jnp.sum(readout(h, w, labels, chunk=128, fields=("nll",)).nll)

    one = 2.0 * tokens * width * vocab
    gradient = jax.make_jaxpr(jax.grad(fused, argnums=(0, 1)))(hidden, columns)
    assert products(gradient.jaxpr) == 3 * one
    gradient = jax.make_jaxpr(jax.grad(unfused, argnums=(0, 1)))(hidden, columns)
    assert products(gradient.jaxpr) == 4 * one


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0, 10), temperature=st.floats(0.5, 10))
def test_laws(seed: int, scale: float, temperature: float) -> None:
    """Bounds that hold for every distribution, and scaling the hidden state scales the logits."""
    hidden, unembedding, labels, _ = problem(seed, scale)
    arrays = [jnp.asarray(a, jnp.float32) for a in (hidden, unembedding)]
    stats = JITTED(*arrays, jnp.asarray(labels), temperature=temperature)
    vocab = unembedding.shape[1]
    assert (stats.nll >= -stats.log_confidence - 1e-5).all()
    assert (stats.entropy >= -1e-5).all()
    assert (stats.entropy <= np.log(vocab) + 1e-5).all()
    assert (stats.confidence >= 1 / vocab - 1e-5).all()
    assert (stats.confidence <= 1).all()
    assert (stats.sum_squares <= stats.confidence + 1e-5).all()
    assert (stats.rank[stats.correct == 1] == 0).all()
    scaled = JITTED(arrays[0] / temperature, arrays[1], jnp.asarray(labels))
    np.testing.assert_allclose(stats.nll, scaled.nll, rtol=1e-3, atol=1e-3)


def test_among_equals_only_the_first_is_the_prediction() -> None:
    """An untrained model with equal logits must not count as always right."""
    stats = readout(jnp.zeros((4, 3)), jnp.zeros((3, 4)), jnp.arange(4))
    assert stats.correct.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(stats.entropy, np.log(4), rtol=1e-6)


def test_fields_that_are_not_asked_for_are_none_and_shapes_follow_the_tokens() -> None:
    hidden, unembedding = jnp.ones((2, 3, 8)), jnp.ones((8, 5))
    stats = readout(hidden, unembedding, jnp.zeros((2, 3), int), fields=("nll",))
    assert isinstance(stats, TokenStats)
    assert stats.nll.shape == (2, 3)
    assert stats.entropy is None
    with pytest.raises(ValueError, match="fields"):
        readout(hidden, unembedding, jnp.zeros((2, 3), int), fields=("nl",))
    with pytest.raises(ValueError, match="do not fit"):
        readout(hidden, unembedding, jnp.zeros((2, 4), int))


def test_a_functional_of_the_logits_runs_in_the_same_pass() -> None:
    hidden, unembedding, labels, _ = problem(3, 1.0)
    stats = readout(
        jnp.asarray(hidden, jnp.float32),
        jnp.asarray(unembedding, jnp.float32),
        jnp.asarray(labels),
        chunk=4,
        functionals={"log_z": lambda logits, _: jax.scipy.special.logsumexp(logits, axis=-1)},
    )
    logits = hidden @ unembedding
    np.testing.assert_allclose(
        stats.extra["log_z"], np.log(np.exp(logits).sum(-1)), rtol=1e-5, atol=1e-5
    )


def abstract_step(
    tokens: tuple[int, int], vocab: int, *, remat: bool = False
) -> tuple[Any, Any, Any]:
    """A training step of a small transformer, and the shapes that it takes."""
    config = ModelConfig(width=64, depth=2, heads=2, remat=remat)
    network = build(config, vocab)
    optimizer = make_optimizer(OptimizerConfig(), 10)
    state = jax.eval_shape(lambda: initial_state(network, optimizer, 0))
    integers = jax.ShapeDtypeStruct(tokens, jnp.int32)
    batch = Batch(integers, integers, integers, jax.ShapeDtypeStruct(tokens, jnp.float32))
    return make_train_step(network, optimizer), state, batch


def test_a_training_step_needs_less_than_a_quarter_of_the_logits() -> None:
    """16,384 tokens at V = 65,536: the compiled temporaries, forward and backward together."""
    step, state, batch = abstract_step((64, 256), 65_536)
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 16_384 * 65_536 * 4 / 4


def sizes(jaxpr: Any) -> Iterator[int]:
    """Sizes of all arrays of a program."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield int(np.prod(variable.aval.shape))
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)


def test_no_array_of_tokens_by_vocabulary_appears_where_masses_are_measured() -> None:
    tokens, vocab = 4096, 8_192
    groups = np.arange(vocab) % 10

    def masses(hidden: Any, columns: Any, labels: Any) -> Any:
        asked = {"mass": group_mass(groups)}
        return readout(hidden, columns, labels, fields=("predicted",), functionals=asked)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((tokens, 64), (64, vocab))]
    program = jax.make_jaxpr(masses)(*shapes, jax.ShapeDtypeStruct((tokens,), jnp.int32))
    assert max(sizes(program.jaxpr)) < tokens * vocab / 4


def test_no_array_of_tokens_by_vocabulary_appears_in_a_training_step() -> None:
    """In the program itself, before any compiler can help."""
    tokens, vocab = 16 * 256, 8_192
    step, state, batch = abstract_step((16, 256), vocab)
    assert max(sizes(jax.make_jaxpr(step)(state, batch).jaxpr)) < tokens * vocab / 4


@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_the_most_probable_entry_is_correct_at_any_temperature(
    soft_cap: float | None, temperature: float
) -> None:
    """Labels are what an argmax of the logits says; dividing or capping them changes none."""
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(3000, 16)), jnp.float32)
    unembedding = jnp.asarray(rng.normal(size=(16, 512)), jnp.float32)
    labels = jnp.argmax(hidden @ unembedding, axis=-1)

    @jax.jit
    def correct(labels: Any) -> Any:
        stats = readout(
            hidden,
            unembedding,
            labels,
            temperature=jnp.full(labels.shape, temperature),
            soft_cap=soft_cap,
            fields=("nll", "log_confidence", "correct", "entropy"),
        )
        return stats.correct

    assert float(correct(labels).mean()) == 1.0
    assert float(correct((labels + 1) % 512).mean()) == 0.0
    assert float(correct(jnp.zeros_like(labels)).mean()) == float((labels == 0).mean())


@pytest.mark.parametrize("vocab", [7, 513, 1024])
def test_the_largest_are_those_of_top_k_ties_and_impossible_entries_included(vocab: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, vocab)).astype(np.float32)
    logits[1] = np.round(logits[1])
    logits[2] = 0.0
    logits[3, rng.random(vocab) < 0.99] = -np.inf
    logits[4] = -np.inf
    logits[5, 3:5] = -np.inf
    for found, expected in zip(largest(logits, 5), jax.lax.top_k(logits, 5), strict=True):
        np.testing.assert_array_equal(found, expected)
