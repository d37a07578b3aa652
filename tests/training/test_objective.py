"""What is minimised: however a batch is cut, whatever is in the sum, killed or not."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same, call, tiny
from jax.sharding import AbstractMesh, AxisType

from calibtrain import losses
from calibtrain.config import Config, to_yaml, validate
from calibtrain.data.batches.stream import Batch
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.models import build
from calibtrain.parallel.mesh import AXES, Layout
from calibtrain.readout import TokenStats, statistics
from calibtrain.training.coupled import LEAST_ROWS, coupled_terms
from calibtrain.training.objective import Objective, Term
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.plan import make_plan
from calibtrain.training.program import for_replicas
from calibtrain.training.shared_gradient import make_gradient
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step
from calibtrain.training.terms import make_objective

DRIVER = Path(__file__).parent / "interrupted.py"

EVERY_BATCH_LOSS = [
    {"kind": "cross_entropy"},
    {"kind": "mmce", "tokens": 64},
    {"kind": "soft_binned_ece", "weight": 0.5},
    {"kind": "dece", "weight": 0.3},
    {"kind": "dca", "tokens": 16},
    {"kind": "mdca", "weight": 0.2, "tokens": 64},
    {"kind": "avuc", "weight": 0.1},
    {"kind": "selective_smoothing", "weight": 0.1, "balanced": True},
    {"kind": "poscal", "weight": 0.5},
]
"""Those that couple tokens, over all of them and over some; and one that remembers."""

OVER_FEW = [
    {"kind": "cross_entropy"},
    {"kind": "mmce", "tokens": 40},
    {"kind": "soft_binned_ece", "tokens": 24},
    {"kind": "mdca", "weight": 0.2, "tokens": 64},
    {"kind": "selective_smoothing", "weight": 0.1},
]
"""Those that look at four rows of eight."""


def terms(*loss: Any) -> Any:
    return validate(Config, {"loss": list(loss)}).loss


def random_batch(rng: np.random.Generator, vocab: int = 40) -> Batch:
    """Eight rows of 16 tokens, of which some have no weight."""
    tokens, labels = rng.integers(0, vocab, (2, 8, 16))
    weights = (rng.random((8, 16)) < 0.9).astype(np.float32)
    return Batch(*map(jnp.asarray, (tokens, labels, np.zeros((8, 16), int), weights)))


def whole_step(network: Any, optimizer: Any, objective: Objective, **options: Any) -> Any:
    """The step of an objective whose terms may couple tokens."""
    gradient = make_gradient(network, objective, **options)
    return make_train_step(network, optimizer, objective=objective, gradient=gradient)


def one_step(loss: Any, accumulate: int, vocab: int = 40) -> tuple[Any, Any, Batch]:
    config = tiny()
    network = build(config.model, vocab)
    objective = make_objective(terms(*loss), vocab_size=vocab)
    optimizer = optax.sgd(1.0)
    state = initial_state(network, optimizer, 0, objective)
    batch = random_batch(np.random.default_rng(0), vocab)
    step = jax.jit(whole_step(network, optimizer, objective, accumulate=accumulate, chunk=32))
    return (state, *step(state, batch)), network, batch


@pytest.mark.long
@pytest.mark.parametrize(
    ("loss", "accumulate"),
    [
        pytest.param(EVERY_BATCH_LOSS, 4, id="all rows", marks=pytest.mark.long),
        pytest.param(OVER_FEW, 2, id="some, in the first part", marks=pytest.mark.long),
        pytest.param(OVER_FEW, 4, id="some, in two parts"),
    ],
)
def test_gradient_accumulation_changes_no_loss(loss: Any, accumulate: int) -> None:
    (_, one, metrics), _, _ = one_step(loss, 1)
    (_, four, others), _, _ = one_step(loss, accumulate)
    np.testing.assert_allclose(metrics["loss"], others["loss"], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.long), 2])
def test_the_gradient_is_that_of_the_whole_sum_on_whole_logits(accumulate: int) -> None:
    """An SGD step of rate 1 moves the parameters by the gradient, computed without chunks here."""
    loss = [
        {"kind": "focal", "weight": 0.7},
        {"kind": "mmce", "weight": 3.0, "tokens": None},
        {"kind": "mdca", "weight": 0.5, "tokens": None},
    ]
    (state, after, metrics), network, batch = one_step(loss, accumulate)

    def whole(params: Any) -> Any:
        hidden, unembedding = network.apply(params, batch.tokens, batch.segments)[:2]
        logits = (hidden @ unembedding).reshape(-1, 40)
        labels, weights = batch.labels.reshape(-1), batch.weights.reshape(-1)
        p = jax.nn.softmax(logits)
        own = p[jnp.arange(len(labels)), labels]
        focal = jnp.sum(-((1 - own) ** 3) * jnp.log(own) * weights) / weights.sum()
        r, c = p.max(-1), p.argmax(-1) == labels
        pairs = jnp.outer((c - r) * weights, (c - r) * weights)
        kernel = jnp.exp(-jnp.abs(r[:, None] - r) / 0.4)
        mmce = jnp.sqrt(jnp.sum(pairs * kernel)) / weights.sum()
        gap = weights @ (p - jax.nn.one_hot(labels, 40)) / weights.sum()
        return 0.7 * focal + 3 * mmce + 0.5 * jnp.abs(gap).sum()

    value, gradient = jax.jit(jax.value_and_grad(whole))(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    "accumulate",
    [1, 2, 4],
)
def test_a_batch_loss_is_that_of_the_rows_that_have_their_turn(accumulate: int) -> None:
    """Every other row of eight, those of an even number first."""
    vocab, network = 40, build(tiny().model, 40)
    objective = make_objective(
        terms({"kind": "cross_entropy"}, {"kind": "dca", "tokens": 64}), vocab_size=vocab
    )
    standstill = optax.sgd(0.0)
    state = initial_state(network, standstill, 0, objective)
    batch = random_batch(np.random.default_rng(0), vocab)
    labels, weights = np.asarray(batch.labels), np.asarray(batch.weights)
    step = jax.jit(whole_step(network, standstill, objective, accumulate=accumulate))
    hidden, unembedding = network.apply(state.params, batch.tokens, batch.segments)[:2]
    p = np.asarray(jax.nn.softmax(hidden @ unembedding))
    lead = (p.argmax(-1) == labels) - p.max(-1)
    nll = -np.log(np.take_along_axis(p, labels[..., None], -1)[..., 0])
    for number in range(3):
        state, metrics = step(state, batch)
        rows = slice(number % 2, None, 2)
        gap = abs(np.sum(lead[rows] * weights[rows]) / weights[rows].sum())
        whole = np.sum(nll * weights) / weights.sum() + gap
        assert float(metrics["loss"]) == pytest.approx(whole, rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("loss", "devices", "more"),
    [
        (EVERY_BATCH_LOSS, 4, ("mesh.fsdp=2", "batch.accumulate=2")),
        (OVER_FEW, 8, ("mesh.fsdp=2", "batch.accumulate=1")),
    ],
    ids=["rows in two parts", "devices with nothing to look at"],
)
def test_devices_and_micro_batches_change_no_loss(
    tmp_path: Path, loss: Any, devices: int, more: tuple[str, ...]
) -> None:
    """Several devices against one."""
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(tiny(loss=loss, batch={"rows": 8}, budget={"steps": 6}, log_every=1)))
    lines = []
    for count, shared_out in ((1, ()), (devices, more)):
        run = tmp_path / str(count)
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        done = call("train", config, *shared_out, "--run", run, environment=flags)
        assert done.returncode == 0, done.stderr
        text = (run / "metrics.jsonl").read_text().splitlines()
        lines.append([json.loads(line) for line in text])
    for mine, theirs in zip(*lines, strict=True):
        for name in mine:
            if name.startswith("train/loss"):
                assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_a_term_that_never_counts_is_noted(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    loss = [{"kind": "cross_entropy"}, {"kind": "brier", "from_step": 100}]
    make_plan(tiny(loss=loss, tokenizer={"kind": "byte", "vocab_size": 258}), cache)
    assert "loss.1.from_step: 100 is past the end of a run of 24 steps: brier never" in caplog.text


@pytest.mark.long
def test_terms_are_logged_by_name_and_add_up(tmp_path: Path, cache: Path) -> None:
    loss = [
        {"kind": "cross_entropy"},
        {"kind": "brier", "weight": 0.5},
        {"kind": "mmce", "from_step": 10, "ramp_steps": 4},
        {"kind": "mmce", "weighted": True, "weight": 0.25},
    ]
    run = tmp_path / "run"
    train_run(tiny(loss=loss, log_every=1), run, cache=cache)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "train/loss" in line]
    for line in lines:
        step = line["step"] - 1
        weight = 2.0 * float(np.clip((step - 9) / 4, 0, 1))
        named = [
            line["train/loss/cross_entropy"],
            0.5 * line["train/loss/brier"],
            weight * line["train/loss/mmce_1"],
            0.25 * line["train/loss/mmce_2"],
        ]
        assert line["train/loss"] == pytest.approx(sum(named), rel=1e-5)
        assert line["train/nll"] == pytest.approx(line["train/loss/cross_entropy"], rel=1e-6)
    assert len(lines) == 24
    assert evaluate_run(run, limit=2_000, cache=cache).results["nll"] > 0


@pytest.mark.long
def test_cross_entropy_is_what_runs_without_a_loss_are_trained_on(
    tmp_path: Path, cache: Path
) -> None:
    paths = [tmp_path / name for name in ("default", "named", "twice half")]
    half = {"kind": "focal", "gamma": 0.0, "weight": 0.5}
    for path, changes in zip(
        paths,
        ({}, {"loss": [{"kind": "cross_entropy"}]}, {"loss": [half, half]}),
        strict=True,
    ):
        train_run(tiny(**changes), path, cache=cache)
    assert (paths[0] / "metrics.jsonl").read_bytes() == (paths[1] / "metrics.jsonl").read_bytes()
    for one, other in zip(*(_losses(path) for path in (paths[0], paths[2])), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def _losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.long
def test_killed_it_ends_the_same_with_a_loss_that_remembers(tmp_path: Path, cache: Path) -> None:
    loss = [{"kind": "poscal", "refreshes_per_epoch": 40.0}, {"kind": "mmce", "from_step": 9}]
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(tiny(loss=loss)))
    train_run(tiny(loss=loss), tmp_path / "whole", cache=cache)
    run = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, DRIVER, config, run, "batch:11"], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert call("train", config, "--run", run).returncode == 0
    assert_same(run, tmp_path / "whole")


@pytest.mark.long
def test_a_posterior_is_followed_once_it_is_known() -> None:
    """A step after the refresh, the penalty is that of the formula with the counted accuracies."""
    network = build(tiny().model, 40)
    objective = make_objective(
        terms({"kind": "poscal", "refreshes_per_epoch": 1.0}), vocab_size=40, steps_per_epoch=1.0
    )
    optimizer = make_optimizer(tiny().optimizer, 10)
    state = initial_state(network, optimizer, 0, objective)
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 40, (2, 8, 16))
    batch = Batch(
        *map(jnp.asarray, (tokens, labels, np.zeros((8, 16), int), np.ones((8, 16), np.float32)))
    )
    step = jax.jit(make_train_step(network, optimizer, objective=objective))
    state, first = step(state, batch)
    hidden, unembedding = network.apply(state.params, batch.tokens, batch.segments)[:2]
    stats: TokenStats = statistics(
        (hidden @ unembedding).reshape(-1, 40), batch.labels.reshape(-1), fields=("nll",)
    )
    _, second = step(state, batch)
    assert float(first["loss"]) > 0
    assert float(second["loss"]) > float(stats.nll.mean()) + 1e-4
    assert (np.asarray(state.loss_state["poscal"]["posterior"]) >= -1).all()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ([{"kind": "fokal"}], "loss"),
        ([{"kind": "focal", "gama": 2.0}], "did you mean"),
        ([{"kind": "mmce"}], "a term a token"),
        ([{"kind": "cross_entropy", "from_step": 3}], "a term a token"),
        ([], "loss"),
        ([{"kind": "label_smoothing", "smoothing": 1.5}], "smoothing"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_one_line(loss: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        validate(Config, {"loss": loss})
    assert "\n" not in str(refusal.value)
    print(refusal.value)


@pytest.mark.parametrize(
    ("tokens", "rows", "context"), [(64, 4, 23), (2048, 16, 179), (8, 16, 7), (64, 16, 64)]
)
def test_every_token_of_a_batch_has_its_turn(tokens: int, rows: int, context: int) -> None:
    objective = make_objective(
        terms({"kind": "cross_entropy"}, {"kind": "dca", "tokens": tokens}), vocab_size=40
    )
    (some,) = coupled_terms(objective)
    seen = np.zeros((rows, context), bool)
    for step in range(rows * context):
        own = np.flatnonzero(some.selected_rows(step, rows, context))
        places = some.positions(step, rows, context)
        places = np.arange(context) if places is None else np.asarray(places)
        assert len(own) == some.rows(rows, context) >= LEAST_ROWS
        assert len(set(places.tolist())) == len(places)
        assert len(places) == min(context, max(1, tokens // len(own)))
        seen[np.ix_(own, places)] = True
    assert seen.all()


@pytest.mark.long
def test_what_a_term_looks_at_depends_on_no_other_term() -> None:
    """MMCE over few tokens, beside a loss over all of them and alone."""
    loss = [{"kind": "cross_entropy"}, {"kind": "mmce", "tokens": 40}]
    others = [{"kind": "dca", "tokens": None}, {"kind": "mdca", "tokens": 64}]
    (_, alone, _), _, _ = one_step(loss, 1)
    for accumulate in (1, 4):
        (_, beside, _), _, _ = one_step([*loss, *others], accumulate)
        one, other = (float(state.running["loss/mmce"]) for state in (alone, beside))
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("devices", [1, 4, 16])
@pytest.mark.parametrize("tokens", [64, None])
def test_devices_add_nothing_to_what_a_term_is_computed_over(
    devices: int, tokens: int | None
) -> None:
    """Of 16 rows of 16 tokens: 4 rows, however many devices have none; traced for them alone."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Watched(losses.DCA):
        def __call__(self, stats: TokenStats, weights: jax.Array) -> jax.Array:
            seen.append(weights.shape)
            return super().__call__(stats, weights)

    objective = Objective(batch_terms=(Term("watched", Watched(tokens=tokens)),))
    network, optimizer = build(tiny().model, 40), optax.sgd(1.0)
    kinds = (AxisType.Auto,) * len(AXES)
    layout = Layout(AbstractMesh((1, devices, 1), AXES, axis_types=kinds))
    step = whole_step(network, optimizer, objective, layout=layout)
    state = jax.eval_shape(lambda: initial_state(network, optimizer, 0, objective))
    whole = jax.ShapeDtypeStruct((16, 16), jnp.int32)
    weights = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    jax.eval_shape(step, state, Batch(whole, whole, whole, weights))
    assert set(seen) == {(4 if tokens else 16, 16)}


@pytest.mark.long
def test_replicas_are_as_if_alone() -> None:
    """With losses that couple tokens, mapped over seeds."""
    network = build(tiny().model, 40)
    objective = make_objective(terms(*OVER_FEW), vocab_size=40)
    optimizer = optax.sgd(1.0)
    states = [initial_state(network, optimizer, seed, objective) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    batches = [random_batch(rng) for _ in states]
    step = whole_step(network, optimizer, objective, accumulate=2)
    stacked = jax.tree.map(
        lambda *x: jnp.stack(x), (states[0], batches[0]), (states[1], batches[1])
    )
    together, metrics = jax.jit(for_replicas(step))(*stacked)
    for number, (state, batch) in enumerate(zip(states, batches, strict=True)):
        alone, own = jax.jit(step)(state, batch)
        assert float(metrics["loss"][number]) == pytest.approx(float(own["loss"]), rel=1e-5)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=2e-5, atol=1e-6)


@pytest.mark.long
def test_tokens_without_weight_are_no_loss_and_no_accident() -> None:
    """A batch loss of nothing is 0, with finite gradients: fine-tunings have such rows."""
    vocab, config = 40, tiny()
    network = build(config.model, vocab)
    loss = [{**term, "from_step": 0} for term in EVERY_BATCH_LOSS]
    objective = make_objective(terms(*loss), vocab_size=vocab)
    state = initial_state(network, optax.sgd(1.0), 0, objective)
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, vocab, (2, 8, 16))
    weights = np.zeros((8, 16), np.float32)
    weights[:, -1] = 1.0  # seldom among those that are looked at
    batch = Batch(*map(jnp.asarray, (tokens, labels, np.zeros((8, 16), int), weights)))
    step = jax.jit(whole_step(network, optax.sgd(1.0), objective))
    for _ in range(3):
        state, metrics = step(state, batch)
        assert np.isfinite(float(metrics["loss"]))
        assert np.isfinite(float(metrics["gradient_norm"]))


def test_a_short_run_has_posteriors_too() -> None:
    (term,) = make_objective(
        terms({"kind": "poscal"}), vocab_size=40, steps_per_epoch=600, steps=100
    ).token_terms
    assert term.loss.refresh_every == 20
