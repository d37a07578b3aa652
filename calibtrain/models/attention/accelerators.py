"""Causal attention on accelerators: by JAX's own call (XLA, cuDNN), by a Pallas kernel for TPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from calibtrain.models.attention.cpu import same_document

if TYPE_CHECKING:  # benchmarks run without it
    from calibtrain.models.attention.cpu import Key, Query, Segments


def library(
    query: Query, key: Key, value: Key, segments: Segments, implementation: str, mapped: bool
) -> Query:
    """JAX's `dot_product_attention`; arguments as for `attend`."""
    together = same_document(segments)[:, None]
    if implementation == "cudnn" and mapped:
        # JAX's rule for cuDNN (to 0.12) then wants a mask of each head; otherwise one serves all
        together = jnp.broadcast_to(together, (len(query), query.shape[2], *together.shape[2:]))
    name: Any = implementation
    # told that it is causal, cuDNN leaves out what lies above the diagonal
    return jax.nn.dot_product_attention(
        query, key, value, mask=together, is_causal=True, implementation=name
    )


def splash(query: Query, key: Key, value: Key, segments: Segments) -> Query:
    """Pallas's kernel for TPUs; documents are its segments."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    _, time, heads, size = query.shape
    causal = masks.MultiHeadMask([masks.CausalMask((time, time)) for _ in range(heads)])
    run = kernel.make_splash_mha_single_device(mask=causal)
    repeat = heads // key.shape[2]
    q, k, v = (x.swapaxes(1, 2) for x in (query * size**-0.5, key, value))
    k, v = (jnp.repeat(x, repeat, axis=1) for x in (k, v))
    ids = kernel.SegmentIds(q=segments, kv=segments)
    return jax.vmap(run)(q, k, v, ids).swapaxes(1, 2).astype(query.dtype)
