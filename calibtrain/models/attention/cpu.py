"""Causal attention written for the CPU, where XLA's own call is about half as fast.

Its gradient is written out: the scores are computed again instead of kept (as flash attention
does), transposed, so that all but one of its products read their operands as they lie in memory;
and keys that no query of a block can see are skipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

    Query = Float[Array, "batch time heads size"]
    Key = Float[Array, "batch time kv_heads size"]
    Segments = Int[Array, "batch time"]

HIDDEN = -1e30
"""Score of a key that a query does not see."""
_CACHED = 2**17
"""Scores made at once on a CPU, in all heads: half a MiB, so that a few of them fit in a cache."""


def causal_mask(segments: Segments) -> Bool[Array, "batch time time"]:
    """Whether each token sees each other: those of its document (segment) that are not later."""
    place = jnp.arange(segments.shape[-1])
    return same_document(segments) & (place[:, None] >= place)


def same_document(segments: Segments) -> Bool[Array, "batch time time"]:
    """Whether two tokens are of the same document."""
    return segments[:, :, None] == segments[:, None, :]


def _blocks(time: int) -> list[slice]:
    """At most 8 blocks of tokens, of 64 or more."""
    blocks = max(1, min(8, time // 64))
    edges = [round(i * time / blocks) for i in range(blocks + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _apart(segments: Segments, rows: slice, columns: slice) -> Array:
    """Whether tokens are of two documents: [batch, 1, rows, columns], the same for all heads.

    A block's scores are compared anew in the pass that reads them. One mask of all blocks would be
    made in each layer, and read again from memory.
    """
    return segments[:, None, rows, None] != segments[:, None, None, columns]


def _for_group(hidden: Array, group: int, axis: int) -> Array:
    return hidden if group == 1 else jnp.concatenate([hidden] * group, axis=axis)


def _over_rows(
    body: Callable[..., tuple[Array, ...]], replaced: Sequence[Array], *read: Array
) -> tuple[Array, ...]:
    """body(*replaced, *read), a few rows of the batch at a time: their scores stay in the caches.

    Results have the shapes of `replaced`, and take their places in memory as rows are done. A
    `lax.map` would fill new memory with zeros for them first, for all layers at once.
    """
    rows, time, heads = replaced[0].shape[:3]
    most = max(1, _CACHED // (heads * time * -(-time // len(_blocks(time)))))
    some = max(n for n in range(1, min(most, rows) + 1) if rows % n == 0)
    if some == rows:
        return body(*replaced, *read)

    def split(x: Array) -> Array:
        return x.reshape(rows // some, some, *x.shape[1:])

    def turn(index: Array, held: tuple[Array, ...]) -> tuple[Array, ...]:
        done = body(*(x[index] for x in (*held, *others)))
        return tuple(x.at[index].set(new) for x, new in zip(held, done, strict=True))

    others = [split(x) for x in read]
    done = jax.lax.fori_loop(0, rows // some, turn, tuple(split(x) for x in replaced))
    return tuple(x.reshape(rows, *x.shape[2:]) for x in done)


def _split_heads(x: Query, kv_heads: int) -> Array:
    """[batch, kv heads, group, time, size]."""
    batch, time, heads, size = x.shape
    return jnp.moveaxis(x.reshape(batch, time, kv_heads, heads // kv_heads, size), 1, 3)


def _join_heads(x: Array) -> Query:
    batch, kv_heads, group, time, size = x.shape
    return jnp.moveaxis(x, 3, 1).reshape(batch, time, kv_heads * group, size)


def _queries(x: Array, queries: slice) -> Array:
    """Those tokens of all heads that share a key: [batch, kv heads, group * tokens, size]."""
    x = x[..., queries, :]
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _product(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """[batch, kv heads, rows, columns], summed over an axis of each in float32.

    Rows are of `left`, columns of `right`, so that nothing has to be turned in memory afterwards.
    """
    numbers = (((left_axis,), (right_axis,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(left, right, numbers, preferred_element_type=jnp.float32)


@jax.custom_vjp
def plain(query: Query, key: Key, value: Key, segments: Segments) -> Query:
    """Attention as `attend` defines it."""
    return _forward(query, key, value, segments)[0]


def _forward(query: Query, key: Key, value: Key, segments: Segments) -> tuple[Query, tuple]:
    batch, time, heads, _ = query.shape
    place = jnp.arange(time)

    def rows(
        query: Query, _: Array, key: Key, value: Key, segments: Segments
    ) -> tuple[Query, Array]:
        q = _split_heads(query * query.shape[-1] ** -0.5, key.shape[2])
        k, v = key.swapaxes(1, 2), value.swapaxes(1, 2)
        outputs, normalizers = [], []
        for block in _blocks(query.shape[1]):
            seen = slice(0, block.stop)
            scores = _product(_queries(q, block), k[:, :, seen], 3, 3)
            hidden = _apart(segments, block, seen) | (place[block, None] < place[seen])
            scores = jnp.where(_for_group(hidden, q.shape[2], 2), HIDDEN, scores)
            top = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            output = _product(weights.astype(v.dtype), v[:, :, seen], 3, 2) / total
            shape = (*q.shape[:3], block.stop - block.start, q.shape[4])
            outputs.append(output.astype(query.dtype).reshape(shape))
            normalizers.append((top + jnp.log(total)).reshape(shape[:4]))
        return _join_heads(jnp.concatenate(outputs, axis=3)), jnp.concatenate(normalizers, axis=3)

    normalizer = jnp.zeros((batch, key.shape[2], heads // key.shape[2], time), jnp.float32)
    output, normalizer = _over_rows(rows, (query, normalizer), key, value, segments)
    return output, (query, key, value, segments, output, normalizer)


def _backward(residuals: tuple, gradient: Query) -> tuple[Query, Key, Key, None]:
    time, _, size = gradient.shape[1:]
    place = jnp.arange(time)

    def rows(
        query: Query,
        key: Key,
        value: Key,
        segments: Segments,
        output: Query,
        normalizer: Array,
        gradient: Query,
    ) -> tuple[Query, Key, Key]:
        q = _split_heads(query * size**-0.5, key.shape[2])
        k, v = key.swapaxes(1, 2), value.swapaxes(1, 2)
        g, o = (_split_heads(x, key.shape[2]) for x in (gradient, output))
        drift = jnp.sum(g.astype(jnp.float32) * o.astype(jnp.float32), axis=-1)
        to_q = jnp.zeros((*q.shape[:2], size, *q.shape[2:4]), jnp.float32)
        to_k, to_v = [], []
        for block in _blocks(time):  # of keys; only queries from its first on can see them
            seeing = slice(block.start, time)
            q_seeing, g_seeing = _queries(q, seeing), _queries(g, seeing)
            a_query = (*q.shape[:2], 1, -1)
            scores = _product(k[:, :, block], q_seeing, 3, 3)  # keys x queries
            hidden = _apart(segments, block, seeing) | (place[block, None] > place[seeing])
            scores = jnp.where(_for_group(hidden, q.shape[2], 3), HIDDEN, scores)
            weights = jnp.exp(scores - normalizer[..., seeing].reshape(a_query))
            to_weights = _product(v[:, :, block], g_seeing, 3, 3)
            to_scores = weights * (to_weights - drift[..., seeing].reshape(a_query))
            weights, to_scores = weights.astype(q.dtype), to_scores.astype(q.dtype)
            to_v.append(_product(weights, g_seeing, 3, 2))
            to_k.append(_product(to_scores, q_seeing, 3, 2))
            part = _product(k[:, :, block], to_scores, 2, 2)  # size x queries
            part = part.reshape(*to_q.shape[:4], -1)
            to_q = part if block.start == 0 else to_q.at[..., seeing].add(part)
        to_query = _join_heads(jnp.moveaxis(to_q * size**-0.5, 2, 4).astype(q.dtype))
        back = [jnp.concatenate(x, axis=2).astype(q.dtype).swapaxes(1, 2) for x in (to_k, to_v)]
        return to_query, back[0], back[1]

    query, key, value, segments, output, normalizer = residuals
    read = (segments, output, normalizer, gradient)
    to_query, to_key, to_value = _over_rows(rows, (query, key, value), *read)
    return to_query, to_key, to_value, None


plain.defvjp(_forward, _backward)
