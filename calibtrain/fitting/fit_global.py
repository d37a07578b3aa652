"""One temperature for a long text, exactly, in about two passes over its states.

With u = -log T, d nll / d u = nll - H, and d (nll - H) / d u = (nll - H) + v, where H is the mean
entropy and v the mean variance of the logits under the model, both at u. A sample gives u to within
its noise (`scalar`); a Newton step over the whole text squares what is left; and what is returned
was evaluated over the whole text, never worse than no temperature.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from calibtrain.errors import NonFiniteError
from calibtrain.fitting.frozen import Frozen
from calibtrain.fitting.states import States
from calibtrain.readout import readout
from calibtrain.temperature.scalar import (
    HIGHEST,
    LOWEST,
    FittedTemperature,
    fit_temperature,
)

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

AT_ONCE = 2**14
"""Tokens read at once; as many give the first temperature."""
CHUNK_ELEMENTS = {"cpu": 2**20}
"""Logits held at once, by platform; elsewhere as many as `readout` does."""
SAMPLES = (2**17,)
"""Tokens of the samples on which a first temperature is made better before all are read."""
MOST_PASSES = 6
CLOSE = 1e-8
"""Nats a token that another Newton step would still gain, at which none is made."""


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Means over the text, in nats, at one temperature."""

    nll: float
    entropy: float
    variance: float
    plain: float
    """nll at T = 1; 0 where it was not asked for."""


def fit_global(
    frozen: Frozen, states: States, *, lowest: float = LOWEST, highest: float = HIGHEST
) -> FittedTemperature:
    """The temperature of the lowest nll between two, over all tokens that count.

    Args:
        frozen: the model's end.
        states: of the text.
        lowest: of the temperatures.
        highest: likewise.

    Raises:
        NonFiniteError: where the nll is not finite.
    """
    score = _compiled(frozen)
    low, high = -math.log(highest), -math.log(lowest)
    first = list(states.tokens_by_themselves(AT_ONCE, _spread(states, AT_ONCE)))[:1]

    def of_sample(temperature: float) -> tuple[float, float]:
        found = _means(score, first, -math.log(temperature))
        return found.nll, found.entropy

    u = _within(-math.log(fit_temperature(of_sample).temperature), low, high)
    for size in SAMPLES:
        if size < states.tokens / 2:
            some = states.tokens_by_themselves(AT_ONCE, _spread(states, size))
            u = _within(u + _newton(_means(score, some, u)), low, high)
    tried: dict[float, _Sums] = {}
    while len(tried) < MOST_PASSES:
        found = _means(score, states.tokens_by_themselves(AT_ONCE), u, plain=not tried)
        if not all(map(math.isfinite, (found.nll, found.entropy))):
            raise NonFiniteError(f"the nll is {found.nll}, the entropy {found.entropy}")
        tried[u] = found
        after = _within(u + _newton(found), low, high)
        if after in tried or _gain(found) < CLOSE:
            break
        u = after
    before = next(iter(tried.values())).plain
    best = min(tried, key=lambda each: tried[each].nll)
    if tried[best].nll >= before:  # to rounding, there is nothing to gain
        return FittedTemperature(1.0, before, before, len(tried))
    return FittedTemperature(math.exp(-best), before, tried[best].nll, len(tried))


def _within(u: float, low: float, high: float) -> float:
    return min(high, max(low, u))


def _curvature(found: _Sums) -> float:
    """Of the nll in u; where it is not convex, that of its convex part."""
    whole = found.nll - found.entropy + found.variance
    return max(whole, 0.1 * found.variance, 1e-12)


def _newton(found: _Sums) -> float:
    """A step of u, of at most 1."""
    return _within((found.entropy - found.nll) / _curvature(found), -1.0, 1.0)


def _gain(found: _Sums) -> float:
    """What such a step gains, about, in nats a token."""
    return (found.entropy - found.nll) ** 2 / (2 * _curvature(found))


def _compiled(frozen: Frozen) -> Any:
    """(hidden, labels, u, plain) -> nll, entropy, variance, and if `plain` nll at T = 1, a token.

    One exponential of each logit, and another one for what is at T = 1: that is the time it takes.
    """
    columns = frozen.unembedding[:, : frozen.vocab_size]
    elements = CHUNK_ELEMENTS.get(jax.default_backend())

    def score(
        columns: Array,
        hidden: Float[Array, "tokens width"],
        labels: Int[Array, " tokens"],
        u: Float[Array, ""],
        plain: bool,
    ) -> Float[Array, "tokens parts"]:
        inverse = jnp.exp(u)

        def parts(logits: Array, labels: Array) -> Float[Array, "tokens parts"]:
            z = logits - jnp.max(logits, axis=-1, keepdims=True)
            label = jnp.sum(jnp.where(jnp.arange(z.shape[-1]) == labels[:, None], z, 0.0), axis=-1)
            weight = jnp.exp(inverse * z)
            total = jnp.sum(weight, axis=-1)
            mean = jnp.sum(weight * z, axis=-1) / total
            square = jnp.sum(weight * z * z, axis=-1) / total
            nll = jnp.log(total) - inverse * label
            entropy = jnp.log(total) - inverse * mean
            found = [nll, entropy, inverse**2 * (square - mean**2)]
            if plain:
                found.append(jnp.log(jnp.sum(jnp.exp(z), axis=-1)) - label)
            return jnp.stack(found, axis=-1)

        stats = readout(
            hidden,
            columns,
            labels,
            soft_cap=frozen.soft_cap,
            chunk=None if elements is None else max(128, elements // columns.shape[1]),
            fields=(),
            functionals={"parts": parts},
        )
        return stats.extra["parts"]

    compiled = jax.jit(score, static_argnums=4)
    return lambda *inputs: compiled(columns, *inputs)


def _means(score: Any, parts: Any, u: float, plain: bool = False) -> _Sums:
    """Means over tokens, summed in float64, each block read one behind the device."""
    sums, count = np.zeros(4), 0.0
    pending: tuple[Any, Any] | None = None
    for part in itertools.chain(parts, [None]):
        found = None
        if part is not None:
            hidden, labels, weights = part
            found = score(hidden, labels, np.float32(u), plain), weights
        if pending is not None:
            values = pending[1].astype(np.float64) @ np.asarray(pending[0], np.float64)
            sums[: len(values)] += values
            count += float(pending[1].sum())
        pending = found
    return _Sums(*(float(value) for value in sums / count))


def _spread(states: States, tokens: int) -> Int[np.ndarray, " rows"]:
    """Rows of about so many tokens, spread evenly over the text."""
    rows = np.flatnonzero(states.counted.any(axis=1))
    some = min(len(rows), max(1, int(tokens * len(rows) / states.tokens)))
    return rows[np.linspace(0, len(rows) - 1, some).astype(int)]
