"""States that stream: merging is addition, devices do not matter, bounds hold."""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.metrics import (
    ConfidenceHistogram,
    TokenScores,
    VocabularyTable,
    area_under_risk_coverage,
    area_under_roc,
    average_calibration_error,
    brier_parts,
    brier_score,
    classwise_calibration_error,
    debiased_calibration_error,
    entropy_calibration_error,
    expected_calibration_error,
    full_calibration_error,
    histogram_bounds,
    histogram_metrics,
    kolmogorov_smirnov_error,
    maximum_calibration_error,
    multiclass_brier_score,
    nll,
    signed_gap,
    smooth_calibration_error,
    token_scores,
    top_k_calibration_error,
    top_k_confidence,
    top_k_correct,
)
from calibtrain.readout import accumulate, readout, statistics

SIZE = 300
histogram = jax.jit(ConfidenceHistogram.of, static_argnames="cells")
EXACT: dict[str, Any] = {
    "ece": expected_calibration_error,
    "maximum_calibration_error": maximum_calibration_error,
    "average_calibration_error": average_calibration_error,
    "signed_gap": signed_gap,
    "brier": brier_score,
    "reliability": lambda c, y: brier_parts(c, y).reliability,
    "resolution": lambda c, y: brier_parts(c, y).resolution,
    "within_bin": lambda c, y: brier_parts(c, y).within_bin,
}
BOUNDED: dict[str, Any] = {
    "ece_mass": functools.partial(expected_calibration_error, scheme="mass"),
    "debiased_calibration_error": debiased_calibration_error,
    "smooth_calibration_error": smooth_calibration_error,
    "area_under_risk_coverage": area_under_risk_coverage,
    "kolmogorov_smirnov_error": kolmogorov_smirnov_error,
}


@pytest.mark.parametrize("cells", [60, pytest.param(4800, marks=pytest.mark.long)])
def test_a_histogram_gives_every_metric_exactly_or_within_its_bound(cells: int) -> None:
    """60 cells, so that the bounds are put to use; float32 sums leave 1e-7."""
    for kind, *arrays in predictions(48, SIZE):
        confidence, correct = (np.asarray(array, np.float32) for array in arrays)
        state = histogram(confidence, correct, cells=cells).exact()
        found, bounds = histogram_metrics(state), histogram_bounds(state)
        for name, metric in EXACT.items():
            want = float(metric(confidence, correct))
            assert found[name] == pytest.approx(want, abs=1e-7), (kind, name)
        for name, metric in BOUNDED.items():
            if name == "smooth_calibration_error" and cells == 60:
                continue  # its own grid is that of 4,800 cells
            slack = 1e-3 if name == "debiased_calibration_error" else 1e-6  # a root of 1e-6
            want = float(metric(confidence, correct))
            assert abs(found[name] - want) <= bounds[name] + slack, (kind, name)
        if 0 < correct.mean() < 1:
            want = float(area_under_roc(confidence, correct))
            assert abs(found["area_under_roc"] - want) <= bounds["area_under_roc"] + 1e-6, kind
        else:
            assert found["area_under_roc"] is None


def test_the_bound_of_the_kernel_holds_on_a_coarse_grid() -> None:
    """The same predictions on 60, 240 and 4,800 cells differ by no more than both bounds."""
    from calibtrain.metrics.smooth import smooth_error_at, smooth_error_bound

    for kind, confidence, correct in predictions(48, SIZE):
        fine = histogram(confidence, correct).rows()
        for cells in (60, 240):
            coarse = histogram(confidence, correct, cells=cells).rows()
            for sigma in (0.05, 0.2):
                bound = sum(smooth_error_bound(rows, sigma) for rows in (coarse, fine))
                gap = abs(smooth_error_at(coarse, sigma) - smooth_error_at(fine, sigma))
                assert gap <= bound + 1e-5, (kind, cells, sigma)


def states(seed: int, part: Any) -> list[Any]:
    """One state of each kind, of some of the same 64 tokens."""
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(64, 5)) * 2, jnp.float32)
    return list(all_states(logits, rng.integers(0, 5, 64), jnp.asarray(part, jnp.float32)))


@jax.jit
def all_states(logits: Any, labels: Any, weights: Any) -> Any:
    stats = statistics(logits, labels)
    return (
        ConfidenceHistogram.of(stats.confidence, stats.correct, weights, cells=60),
        VocabularyTable.of(logits, labels, weights, bins=15),
        TokenScores.of(stats, weights),
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_merging_is_associative_and_commutative_and_parts_make_the_whole(seed: int) -> None:
    of = np.random.default_rng(seed).integers(0, 3, 64)
    whole = states(seed, np.ones(64))
    parts = [states(seed, of == number) for number in range(3)]
    for a, b, c, all_of_it in zip(*parts, whole, strict=True):
        x, y, z = a.exact(), b.exact(), c.exact()
        for one, other in (
            (x.merge(y).merge(z), x.merge(y.merge(z))),
            (x.merge(y), y.merge(x)),
        ):
            jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-14), one, other)
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-5),
            x.merge(y).merge(z),
            all_of_it.exact(),
        )


def test_tokens_that_do_not_count_may_hold_anything() -> None:
    """The third token is NaN throughout and weighs 0: every state is that of the other two."""
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [1, 1, 1, 1]]))
    logits[2] = np.nan
    with_nan = all_states(jnp.asarray(logits), jnp.zeros(3, int), jnp.array([1.0, 1, 0]))
    alone = all_states(jnp.asarray(logits[:2]), jnp.zeros(2, int), jnp.ones(2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), with_nan, alone)
    assert token_scores(with_nan[2])["nll"] == pytest.approx(-np.log(0.7 * 0.25) / 2)


def test_an_empty_state_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        histogram_metrics(ConfidenceHistogram.zero())
    for state in states(0, np.zeros(64))[1:]:
        with pytest.raises(ValueError, match="empty"):
            state.full() if isinstance(state, VocabularyTable) else token_scores(state)
    with pytest.raises(ValueError, match="bins"):
        histogram_metrics(ConfidenceHistogram(np.ones((4800, 5))), bins=7)


def test_a_stretch_more_than_fits_at_once_is_counted_once() -> None:
    """10,000 predictions go through in three stretches, the last one padded."""
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(10_000), rng.integers(0, 2, 10_000)
    found = histogram_metrics(histogram(confidence, correct))
    assert found["weight"] == 10_000
    assert found["accuracy"] == pytest.approx(correct.mean(), abs=1e-7)


SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from calibtrain.metrics import ConfidenceHistogram, TokenScores, VocabularyTable
from calibtrain.readout import statistics
def states(logits, labels, weights):
    stats = statistics(logits, labels)
    found = (ConfidenceHistogram.of(stats.confidence, stats.correct, weights),
             VocabularyTable.of(logits, labels, weights), TokenScores.of(stats, weights))
    return jax.lax.psum(found, "rows")
mesh = Mesh(np.array(jax.devices()), ("rows",))
rng = np.random.default_rng(0)
logits, labels = rng.normal(size=(512, 6)).astype(np.float32), rng.integers(0, 6, 512)
weights = rng.integers(0, 2, 512).astype(np.float32)
shared = jax.shard_map(states, mesh=mesh, in_specs=P("rows"), out_specs=P(), check_vma=False)
leaves = jax.tree.leaves(jax.jit(shared)(logits, labels, weights))
print(json.dumps([len(jax.devices()), [np.asarray(leaf, float).tolist() for leaf in leaves]]))
"""


def on_devices(count: int) -> tuple[int, list[Any]]:
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **flags},
    )
    devices, leaves = json.loads(done.stdout)
    return devices, [np.array(leaf) for leaf in leaves]


def test_states_are_the_same_on_one_device_and_on_eight() -> None:
    """Counts to the bit, other sums within rounding of float32."""
    (one, alone), (eight, shared) = on_devices(1), on_devices(8)
    assert (one, eight) == (1, 8)
    for mine, theirs in zip(alone, shared, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    for column in (0, 2):  # weight and correctness
        np.testing.assert_array_equal(alone[0][:, column], shared[0][:, column])
        np.testing.assert_array_equal(alone[1][..., column], shared[1][..., column])


def test_vocabulary_metrics_stream_from_hidden_states() -> None:
    """One pass in chunks of 7 over padded columns equals whole distributions on the host."""
    rng = np.random.default_rng(3)
    hidden = jnp.asarray(rng.normal(size=(4, 10, 8)), jnp.float32)
    unembedding = jnp.asarray(rng.normal(size=(8, 16)), jnp.float32)
    labels, weights = rng.integers(0, 11, (4, 10)), rng.integers(0, 2, (4, 10))
    options: dict[str, Any] = {"vocab_size": 11, "temperature": 1.3, "chunk": 7}
    reduction = functools.partial(VocabularyTable.of, vocab_size=11)
    table, stats = jax.jit(
        lambda *arrays: accumulate(*arrays, reduction, fields=("nll",), **options)
    )(hidden, unembedding, labels, jnp.asarray(weights, jnp.float32))
    logits = np.asarray(hidden.reshape(40, 8) @ unembedding[:, :11], np.float64) / 1.3
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    flat, counted = labels.reshape(-1), weights.reshape(-1)
    for per in ("pair", "token"):
        want = classwise_calibration_error(probability, flat, weights=counted, per=per)
        assert table.classwise(per) == pytest.approx(want, rel=1e-4)
        want = full_calibration_error(probability, flat, weights=counted, per=per)
        assert table.full(per) == pytest.approx(want, rel=1e-4)
    of_label = probability[np.arange(40), flat]
    np.testing.assert_allclose(stats.nll.reshape(-1), -np.log(of_label), rtol=1e-4)

    functionals = {"mass": top_k_confidence(3), "among": top_k_correct(3)}
    extra = readout(
        hidden, unembedding, labels, fields=(), functionals=functionals, **options
    ).extra
    streamed = expected_calibration_error(extra["mass"].reshape(-1), extra["among"].reshape(-1))
    whole = top_k_calibration_error(probability, flat, k=3)
    assert streamed == pytest.approx(whole, abs=1e-5)


def test_inside_jit_distributions_give_the_same() -> None:
    rng = np.random.default_rng(4)
    probability, labels = rng.dirichlet(np.ones(9), 50), rng.integers(0, 9, 50)
    for metric in (
        classwise_calibration_error,
        full_calibration_error,
        functools.partial(top_k_calibration_error, k=2),
    ):
        inside = jax.jit(metric)(jnp.asarray(probability, jnp.float32), labels)
        assert float(inside) == pytest.approx(float(metric(probability, labels)), abs=1e-5)


def test_nothing_of_size_tokens_by_vocabulary_is_held() -> None:
    """Of 4,096 tokens x 512 entries (8 MiB) a program in chunks of 64 needs less than a quarter."""
    shapes = [(4096, 8), (8, 512)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    labels = jax.ShapeDtypeStruct((4096,), jnp.int32)
    weights = jax.ShapeDtypeStruct((4096,), jnp.float32)
    program = jax.jit(lambda *a: accumulate(*a, VocabularyTable.of, chunk=64)[0])
    memory = program.lower(*arrays, labels, weights).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**21


def test_token_scores_equal_the_functions() -> None:
    rng = np.random.default_rng(5)
    logits, labels = jnp.asarray(rng.normal(size=(64, 5)), jnp.float32), rng.integers(0, 5, 64)
    stats, weights = statistics(logits, labels), rng.integers(0, 2, 64)
    found = token_scores(TokenScores.of(stats, jnp.asarray(weights, jnp.float32)))
    assert found["nll"] == pytest.approx(nll(stats, weights=weights), rel=1e-5)
    for metric in (entropy_calibration_error, multiclass_brier_score):
        assert found[metric.__name__] == pytest.approx(metric(stats, weights=weights), rel=1e-4)
