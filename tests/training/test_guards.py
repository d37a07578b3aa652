"""What JAX does silently and a step does not: arrays of other ranks, transfers nobody asked for."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny

import calibtrain
from calibtrain.config import Config, validate
from calibtrain.data.batches.stream import Batch
from calibtrain.errors import UserError
from calibtrain.models import build
from calibtrain.training.begin import NARROW_ON_A_CPU, Member, begun
from calibtrain.training.engine import make_engine
from calibtrain.training.optimizer import make_optimizer, optimizer_of
from calibtrain.training.plan import make_plan
from calibtrain.training.shared_gradient import make_gradient
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step
from calibtrain.training.terms import make_objective

ROOT = Path(calibtrain.__file__).parent
LOSSES: list[dict[str, Any]] = [
    {"kind": "cross_entropy"},
    {"kind": "focal"},
    {"kind": "brier"},
    {"kind": "mmce", "tokens": 64},
    {"kind": "soft_binned_ece"},
    {"kind": "dece"},
    {"kind": "dca"},
    {"kind": "mdca"},
    {"kind": "avuc"},
    {"kind": "selective_smoothing", "balanced": True},
    {"kind": "poscal"},
]
BROADCASTING = {"models", "readout", "losses"}
"""Rooms that scale, mask and compare along an axis, and mean to."""


@contextmanager
def promotions() -> Iterator[set[str]]:
    """The places of calibtrain, `room/file.py:line`, where arrays of different rank meet."""
    found: set[str] = set()

    def show(message: Any, *ignored: Any) -> None:
        if "rank promotion" in str(message):
            stack = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
            where = Path(stack[-1].filename).relative_to(ROOT) if stack else "elsewhere"
            found.add(f"{where}:{stack[-1].lineno if stack else 0}")

    with warnings.catch_warnings(), jax.numpy_rank_promotion("warn"):
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield found


def test_arrays_of_different_rank_meet_in_the_model_and_its_losses_alone() -> None:
    """In no cut of a batch, sum or update; the step is traced with every loss, and not compiled."""
    network = build(tiny().model, 40)
    objective = make_objective(validate(Config, {"loss": LOSSES}).loss, vocab_size=40)
    optimizer = make_optimizer(tiny().optimizer, 10)
    gradient = make_gradient(network, objective, accumulate=2, chunk=32)
    step = make_train_step(network, optimizer, objective=objective, gradient=gradient)
    whole = jax.ShapeDtypeStruct((8, 16), jnp.int32)
    batch = Batch(whole, whole, whole, jax.ShapeDtypeStruct((8, 16), jnp.float32))
    with promotions() as found:
        state = jax.eval_shape(lambda: initial_state(network, optimizer, 0, objective))
        jax.eval_shape(step, state, batch)
    assert "models" in {place.split("/")[0] for place in found}  # they are seen
    assert {place.split("/")[0] for place in found} <= BROADCASTING, sorted(found)


def test_a_promotion_is_seen() -> None:
    with promotions() as found:
        jax.eval_shape(lambda x: jnp.ones(3) + x, jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert found == {"elsewhere:0"}


def test_a_step_moves_nothing_between_host_and_device(cache: Path) -> None:
    """Besides its batch, which is put on the device before."""
    plan = make_plan(tiny(budget={"steps": 4}), cache)
    engine = make_engine([plan], optimizer_of(plan.config, 4))
    states, stream = engine.begin(), engine.batches(0)
    lagging = None
    for _ in range(3):
        batch = jax.device_put(next(stream))
        with jax.transfer_guard("disallow"):
            states, metrics = engine.advance(states, batch, False)
        if lagging is not None:
            assert all(map(np.isfinite, engine.figures(lagging)[0].values()))
        lagging = metrics
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="host-to-device transfer"):
        engine.advance(states, next(stream), False)


@pytest.mark.parametrize("version", [(0, 10, 2), (0, 11, 0), (0, 12, 0)])
@pytest.mark.parametrize("compute", ["auto", "float32", "bfloat16"])
def test_a_run_that_computes_in_a_type_that_gains_nothing_here_is_told(
    compute: str, version: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step in bfloat16 took 1.07 to 1.13 times as long with 0.10 and 0.11, 0.83 to 0.89 with
    0.12, on a processor with AVX512-BF16."""
    monkeypatch.setattr(jax, "__version_info__", version)
    told: list[str] = []
    model = tiny().model.model_copy(update={"compute": compute})
    config = tiny().model_copy(update={"model": model})

    def planner(*_: Any) -> Any:
        raise UserError("planned")

    member = Member(config, tmp_path / "run", lambda event: told.append(event["text"]))
    with (
        pytest.raises(UserError, match="planned"),
        begun([member], cache=tmp_path, planner=planner),
    ):
        pass
    slow = compute == "bfloat16" and version != (0, 12, 0)
    assert told == ([NARROW_ON_A_CPU] if slow else [])
