"""Layers written out or scanned, kept or recomputed: the same function, at another price."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calibtrain.config import ModelConfig
from calibtrain.models import build
from calibtrain.models.stack import choose_layers

WAYS = [(layers, remat) for layers in ("unrolled", "scanned") for remat in ("none", "dots", "full")]
KINDS = ["transformer", "lstm"]


def loss_of(config: ModelConfig, time: int = 12) -> tuple[Any, Any]:
    """A function of the parameters, and parameters."""
    network = build(config, 50)
    tokens = jnp.asarray(np.random.default_rng(5).integers(0, 50, (2, time)))
    segments = jnp.broadcast_to(jnp.arange(time) // 4, (2, time))

    def loss(params: Any) -> Any:
        hidden = network.apply(params, tokens, segments)[0]
        return jnp.mean(hidden**3), hidden

    return loss, network.init(jax.random.key(0))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_states_and_gradients_are_the_same_in_every_way(kind: Any) -> None:
    config = ModelConfig(kind=kind, width=16, depth=2, heads=2, kv_heads=1)
    wanted: Any = None
    for layers, remat in WAYS:
        loss, params = loss_of(config.model_copy(update={"layers": layers, "remat": remat}))
        gradients, hidden = jax.jit(jax.grad(loss, has_aux=True))(params)
        if wanted is None:
            wanted = params, hidden, gradients
        assert jax.tree.structure(params) == jax.tree.structure(wanted[0])
        jax.tree.map(np.testing.assert_array_equal, params, wanted[0])
        np.testing.assert_allclose(hidden, wanted[1], atol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4),
            gradients,
            wanted[2],
        )


@pytest.mark.long
def test_a_scan_in_bfloat16_reads_what_the_layers_would() -> None:
    """Matrices are cast before they are stacked instead of by the layer that reads them."""
    config = ModelConfig(width=32, depth=3, heads=2, compute="bfloat16")
    states = []
    for layers in ("unrolled", "scanned"):
        loss, params = loss_of(config.model_copy(update={"layers": layers}))
        states.append(np.asarray(loss(params)[1], np.float32))
    # 8 bits of mantissa, and values of at most about 4
    np.testing.assert_allclose(states[0], states[1], atol=4 * 2**-7)


def program(depth: int, time: int = 12, **ways: Any) -> Any:
    """The gradient of a model, lowered."""
    loss, params = loss_of(ModelConfig(width=32, depth=depth, heads=2, **ways), time)
    return jax.jit(jax.grad(loss, has_aux=True)).lower(params)


@pytest.mark.parametrize("remat", ["none", pytest.param("full", marks=pytest.mark.long)])
def test_a_scan_multiplies_as_often_in_its_program_whatever_the_depth(remat: str) -> None:
    def products(depth: int, layers: str) -> int:
        return program(depth, layers=layers, remat=remat).as_text().count("stablehlo.dot_general")

    assert products(2, "scanned") == products(8, "scanned")
    assert products(8, "unrolled") > 3 * products(2, "unrolled")


@pytest.mark.long
def test_what_is_recomputed_is_not_kept() -> None:
    """Of 8 layers, `full` keeps the inputs and `dots` the inputs and the linear maps' products."""
    sizes = {
        remat: program(8, time=80, layers="scanned", remat=remat)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for remat in ("none", "dots", "full")
    }
    assert sizes["full"] < sizes["dots"] < sizes["none"]
    assert sizes["full"] < sizes["none"] / 2


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_shallow_models_are_written_out_on_every_device(platform: str) -> None:
    assert choose_layers(platform, 1, "none") == "unrolled"
