"""Causal attention within documents, by the fastest implementation that a device has.

Each implementation computes the same: `cpu` holds ours, `accelerators` those of libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.errors import UserError
from calibtrain.models.attention.accelerators import library, splash
from calibtrain.models.attention.cpu import HIDDEN, causal_mask, plain

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

    from calibtrain.config import ModelConfig
    from calibtrain.models.attention.cpu import Key, Query, Segments

__all__ = [
    "IMPLEMENTATIONS",
    "attend",
    "attend_to_cache",
    "causal_mask",
    "choose",
    "require_available",
]

IMPLEMENTATIONS = ("plain", "xla", "cudnn", "splash")
_ONLY_ON = {"cudnn": ("gpu", "an NVIDIA GPU"), "splash": ("tpu", "a TPU")}


def attend(
    query: Query,
    key: Key,
    value: Key,
    segments: Segments,
    implementation: str = "plain",
    *,
    mapped: bool = False,
) -> Query:
    """Scaled dot-product attention of each token to itself and those before it in its document.

    softmax(query . key / sqrt(size)) over the keys of `causal_mask`, times the values. Query heads
    share key and value heads in groups (Ainslie et al. 2023).

    Args:
        query: one vector per token and head.
        key: one vector per token and group of heads; their number divides that of the queries.
        value: likewise.
        segments: number of the document, within its row, that each token belongs to.
        implementation: one of `IMPLEMENTATIONS`; they agree up to rounding.
        mapped: whether the call is traced under `jax.vmap`.
    """
    if implementation == "plain":
        return plain(query, key, value, segments)
    if implementation == "splash":
        return splash(query, key, value, segments)
    return library(query, key, value, segments, implementation, mapped)


def attend_to_cache(
    query: Float[Array, "rows heads size"],
    keys: Float[Array, "rows kv_heads size length"],
    values: Float[Array, "rows kv_heads length size"],
    position: Int[Array, " rows"],
) -> Float[Array, "rows heads size"]:
    """Attention of the token at `position` of each row to the row's cached tokens and itself.

    Token number t is cached at t modulo `length`, so the last `length` tokens are seen.
    """
    rows, heads, size = query.shape
    q = (query * size**-0.5).reshape(rows, keys.shape[1], heads // keys.shape[1], size)
    exact: Any = jnp.float32
    scores = jnp.einsum("rkgd,rkdl->rkgl", q, keys, preferred_element_type=exact)
    filled = jnp.arange(keys.shape[3]) <= position[:, None]  # all places, once they are reused
    scores = jnp.where(filled[:, None, None], scores, HIDDEN)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(values.dtype)
    output = jnp.einsum("rkgl,rkld->rkgd", weights, values, preferred_element_type=exact) / total
    return output.reshape(rows, heads, size).astype(query.dtype)


def choose(
    platform: str, dtype: jnp.dtype, size: int, time: int, capability: float | None = None
) -> str:
    """Returns the implementation for a platform ("cpu", "gpu", "tpu"), type, head size and context.

    `capability` is the CUDA compute capability, 0 for a GPU that is not NVIDIA's; None means that
    of the GPU here.
    """
    if platform == "cpu":
        return "plain"
    fits = dtype == jnp.bfloat16 and size % 8 == 0 and size <= 128 and time % 2 == 0
    if platform == "gpu" and fits:  # flash attention needs the Ampere generation or a newer one
        capability = _capability_here() if capability is None else capability
        if capability >= 8.0:
            return "cudnn"
    if platform == "tpu" and time % 128 == 0:
        return "splash"
    return "xla"


def require_available(config: ModelConfig) -> None:
    """Raises a UserError where the implementation that is named needs another device than is here.

    Args:
        config: of the model.
    """
    needed, device = _ONLY_ON.get(config.attention, (None, ""))
    here = jax.default_backend()
    if config.kind == "transformer" and needed not in (None, here):
        raise UserError(
            f"model.attention: {config.attention} needs {device}, and JAX has a {here.upper()} "
            "here; allowed everywhere: auto, plain, xla"
        )


def _capability_here() -> float:
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return 0.0
    return float(getattr(device, "compute_capability", 0))
