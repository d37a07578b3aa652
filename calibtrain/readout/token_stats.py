"""`TokenStats`, the few numbers per token that losses and metrics read, and their formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

MASKED = (
    -1e30
)  # finite, so that 0 * log 0 and its gradient stay 0 where a vocabulary row is padding

_ABSENT: Any = None

Functional = Callable[[Array, Array], Array]
"""A per-token functional: (logits [tokens, vocab], labels [tokens]) -> [tokens], or [tokens, some]:
a few numbers per token."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenStats:
    """What losses and metrics read, one number per token. A field not asked for is None.

    Attributes:
        nll: -log p of the target, in nats.
        log_confidence: log of the largest probability.
        correct: 1 where the (first) most probable token is the target, else 0. No gradient.
        entropy: entropy of the predictive distribution, in nats.
        sum_squares: sum over the vocabulary of p^2.
        mean_log_prob: mean over the vocabulary of log p.
        rank: how many tokens are strictly more probable than the target. No gradient.
        runner_up: largest probability strictly below the target's; 0 if there is none.
        predicted: the (first) most probable token. No gradient.
        extra: values of the functionals that were passed in, by name.
        sums: sums over tokens, such as those by vocabulary entry (`accumulate`), by name.
    """

    nll: Float[Array, "*tokens"] = _ABSENT
    log_confidence: Float[Array, "*tokens"] = _ABSENT
    correct: Float[Array, "*tokens"] = _ABSENT
    entropy: Float[Array, "*tokens"] = _ABSENT
    sum_squares: Float[Array, "*tokens"] = _ABSENT
    mean_log_prob: Float[Array, "*tokens"] = _ABSENT
    rank: Int[Array, "*tokens"] = _ABSENT
    runner_up: Float[Array, "*tokens"] = _ABSENT
    predicted: Int[Array, "*tokens"] = _ABSENT
    extra: dict[str, Float[Array, "*tokens ..."]] = dataclasses.field(default_factory=dict)
    sums: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def confidence(self) -> Float[Array, "*tokens"]:
        """The largest probability."""
        assert self.log_confidence is not None, "log_confidence was not asked for"
        return jnp.exp(self.log_confidence)


FIELDS = tuple(
    field.name for field in dataclasses.fields(TokenStats) if field.name not in ("extra", "sums")
)
"""Every field that `readout` can compute."""


def statistics(
    logits: Float[Array, "tokens vocab"],
    labels: Int[Array, " tokens"],
    vocab_size: int | None = None,
    fields: Sequence[str] = FIELDS,
    functionals: Mapping[str, Functional] | None = None,
) -> TokenStats:
    """Returns `TokenStats` of a chunk's logits: the formulas behind `readout`."""
    vocab_size = logits.shape[-1] if vocab_size is None else vocab_size
    column = jnp.arange(logits.shape[-1])
    is_real: Bool[Array, " vocab"] = column < vocab_size
    if vocab_size != logits.shape[-1]:
        logits = jnp.where(is_real, logits, MASKED)
    top, leader = first_largest(logits)
    shift = jax.lax.stop_gradient(top)
    shifted = logits - shift[:, None]
    exponential = jnp.exp(shifted)
    if "entropy" in fields or "sum_squares" in fields:
        exponential = kept_on_cpus(exponential)
    normalizer = jnp.sum(exponential, axis=-1)
    log_normalizer = jnp.log(normalizer)
    label_logit = _at_label(shifted, labels)
    found: dict[str, Any] = {}
    if "nll" in fields:
        found["nll"] = log_normalizer - label_logit
    if "log_confidence" in fields:
        # never above 0, even where rounding makes the logits of two passes differ
        found["log_confidence"] = jnp.minimum((top - shift) - log_normalizer, 0.0)
    if "correct" in fields:
        found["correct"] = (leader == labels).astype(jnp.float32)
    if "entropy" in fields:
        found["entropy"] = log_normalizer - jnp.sum(exponential * shifted, axis=-1) / normalizer
    if "sum_squares" in fields:
        found["sum_squares"] = jnp.sum(jnp.square(exponential), -1) / jnp.square(normalizer)
    if "mean_log_prob" in fields:
        total = jnp.sum(jnp.where(is_real, shifted, 0.0), axis=-1)
        found["mean_log_prob"] = total / vocab_size - log_normalizer
    # the label itself is left out by its column: two passes may round its logit differently
    is_other: Bool[Array, "tokens vocab"] = column != labels[:, None]
    if "rank" in fields:
        above = (shifted > label_logit[:, None]) & is_other
        found["rank"] = jnp.sum(above, axis=-1, dtype=jnp.int32)
    if "runner_up" in fields:
        below = jnp.where((shifted < label_logit[:, None]) & is_other & is_real, shifted, MASKED)
        found["runner_up"] = jnp.exp(jnp.max(below, axis=-1) - log_normalizer)
    if "predicted" in fields:
        found["predicted"] = leader.astype(jnp.int32)
    extra = {name: function(logits, labels) for name, function in (functionals or {}).items()}
    return TokenStats(**found, extra=extra)


def first_largest(
    logits: Float[Array, "tokens vocab"],
) -> tuple[Float[Array, " tokens"], Int[Array, " tokens"]]:
    """Returns the largest logit of each token and the first column that holds it.

    The column is looked for among the maxima of blocks and then in one block, because an argmax
    takes a CPU ten times as long as a maximum.
    """
    vocab = logits.shape[-1]
    size = max(n for n in range(1, BLOCK + 1) if vocab % n == 0)
    blocks = logits.reshape(-1, vocab // size, size)
    maxima = jnp.max(blocks, axis=-1)
    # else the compiler takes the largest of all of them in another pass over the logits
    maxima = jax.lax.optimization_barrier(maxima)
    top = jnp.max(maxima, axis=-1)
    block = first_place(maxima, top)
    own = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return top, block * size + first_place(own, top)


def first_place(rows: Float[Array, "tokens some"], value: Float[Array, " tokens"]) -> Array:
    """Returns the first place of each row that holds a value; past the end if none does."""
    places = jnp.arange(rows.shape[-1])
    return jnp.min(jnp.where(rows == value[:, None], places, rows.shape[-1]), axis=-1)


BLOCK = 64
"""Most logits of a block; the largest number that divides the vocabulary is taken."""


def kept_on_cpus(x: Array) -> Array:
    """Returns x; a CPU keeps it, where XLA would compute it again for each of its readers."""
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


@jax.custom_jvp
def _at_label(
    logits: Float[Array, "tokens vocab"], labels: Int[Array, " tokens"]
) -> Float[Array, " tokens"]:
    """Returns the target's logit of each token."""
    return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


@_at_label.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    # as a sum over a comparison, so that the gradient is a select and not a scatter
    logits, labels = primals
    is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
    return _at_label(logits, labels), jnp.sum(jnp.where(is_label, tangents[0], 0.0), axis=-1)


def is_entry(logits: Float[Array, "tokens vocab"]) -> Bool[Array, "tokens vocab"]:
    """Whether each logit that a functional sees belongs to an entry, not to padding."""
    return logits > MASKED / 2
