"""One temperature for a long text, fitted exactly in about two passes over its hidden states.

With u = -log T, d nll / d u = nll - H and d (nll - H) / d u = (nll - H) + v, where H is the mean
entropy and v the mean variance of the logits under the model, both at u. A sample of the text gives
u to within its noise (`root_finding`), and a Newton step over the whole text squares the error that
is left. The nll that is returned was computed over the whole text; it never exceeds that at T = 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from calibtrain.errors import NonFiniteError
from calibtrain.fitting.hidden_states import HiddenStates, TokenBatch
from calibtrain.fitting.output_layer import OutputLayer
from calibtrain.fitting.root_finding import (
    HIGHEST,
    LOWEST,
    FittedTemperature,
    fit_temperature,
)
from calibtrain.readout import readout
from calibtrain.scoring.scorer import one_behind

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

AT_ONCE = 2**14
"""Number of tokens in a batch; the first temperature is fitted to as many."""
CHUNK_ELEMENTS = {"cpu": 2**20}
"""Number of logits held at once, by platform; on others `readout` decides."""
SAMPLES = (2**17,)
"""Sizes in tokens of the samples on which the temperature is refined before the text is read."""
MOST_PASSES = 6
CLOSE = 1e-8
"""No further Newton step is made if it would gain less than this, in nats per token."""

Means = Callable[[Iterable[TokenBatch], float, bool], "_Means"]
"""(batches, u, whether the nll at T = 1 is wanted) -> means over the tokens of the batches."""


@dataclasses.dataclass(frozen=True)
class _Means:
    """Means over tokens at one temperature, in nats.

    Attributes:
        nll: the mean nll.
        entropy: the mean entropy of the predictive distribution.
        variance: the mean variance of the logits, divided by the temperature, under the model.
        plain: the mean nll at T = 1; 0 if it was not wanted.
    """

    nll: float
    entropy: float
    variance: float
    plain: float


def fit_global_temperature(
    output_layer: OutputLayer,
    states: HiddenStates,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
) -> FittedTemperature:
    """Returns the temperature of the lowest nll over all tokens that count.

    Args:
        output_layer: the frozen model's.
        states: hidden states of the text.
        lowest: the lowest temperature that is allowed.
        highest: the highest.

    Raises:
        NonFiniteError: if the nll or the entropy is not finite.
    """
    means = _compiled_means(output_layer)
    low, high = -math.log(highest), -math.log(lowest)
    first = list(states.token_batches(AT_ONCE, _rows_of_about(AT_ONCE, states)))[:1]

    def of_sample(temperature: float) -> tuple[float, float]:
        found = means(first, -math.log(temperature), False)
        return found.nll, found.entropy

    u = _within(-math.log(fit_temperature(of_sample).temperature), low, high)
    for size in SAMPLES:
        if size < states.tokens / 2:
            sample = states.token_batches(AT_ONCE, _rows_of_about(size, states))
            u = _within(u + _newton_step(means(sample, u, False)), low, high)
    tried: dict[float, _Means] = {}
    while len(tried) < MOST_PASSES:
        found = means(states.token_batches(AT_ONCE), u, not tried)
        if not all(map(math.isfinite, (found.nll, found.entropy))):
            raise NonFiniteError(f"the nll is {found.nll}, the entropy {found.entropy}")
        tried[u] = found
        after = _within(u + _newton_step(found), low, high)
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


def _curvature(found: _Means) -> float:
    """The second derivative of the nll by u; of its convex part, where the nll is not convex."""
    whole = found.nll - found.entropy + found.variance
    return max(whole, 0.1 * found.variance, 1e-12)


def _newton_step(found: _Means) -> float:
    """The step in u, of at most 1."""
    return _within((found.entropy - found.nll) / _curvature(found), -1.0, 1.0)


def _gain(found: _Means) -> float:
    """About what such a step gains, in nats per token."""
    return (found.entropy - found.nll) ** 2 / (2 * _curvature(found))


def _compiled_means(output_layer: OutputLayer) -> Means:
    """Returns a function that reads batches, and gives means at a temperature.

    Its program is not that of `scoring`, which divides the logits first: here one exponential of
    each logit gives nll, entropy and variance, and one more the nll at T = 1 from the same product
    with the unembedding. The time of a pass is that of these exponentials.
    """
    columns = output_layer.unembedding[:, : output_layer.vocab_size]
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
            soft_cap=output_layer.soft_cap,
            chunk=None if elements is None else max(128, elements // columns.shape[1]),
            fields=(),
            functionals={"parts": parts},
        )
        return stats.extra["parts"]

    compiled = jax.jit(score, static_argnums=4)

    def means(batches: Iterable[TokenBatch], u: float, plain: bool) -> _Means:
        def parts(batch: TokenBatch) -> Array:
            return compiled(columns, batch.hidden, batch.labels, np.float32(u), plain)

        sums, count = np.zeros(4), 0.0
        for batch, values in one_behind(parts, batches):
            found = batch.weights.astype(np.float64) @ np.asarray(values, np.float64)
            sums[: len(found)] += found
            count += float(batch.weights.sum())
        return _Means(*(float(value) for value in sums / count))

    return means


def _rows_of_about(tokens: int, states: HiddenStates) -> Int[np.ndarray, " rows"]:
    """Rows that hold about so many tokens, spread evenly over the text."""
    rows = states.rows_that_count()
    some = min(len(rows), max(1, int(tokens * len(rows) / states.tokens)))
    return rows[np.linspace(0, len(rows) - 1, some).astype(int)]
