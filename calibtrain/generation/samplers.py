"""Samplers: a model's next-token distribution, changed before a token is drawn from it.

All of them are pure functions of log-probabilities; none sorts the vocabulary: a set such as that
of the nucleus is all entries above a threshold, and the threshold is found by bisection.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from calibtrain.generation.statistics import entropy_of

NEVER = float("-inf")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. The default draws from the model's own distribution.

    The parts compose in this order, and each sees what the one before left, normalised anew:

    1. entries that stand for no bytes are cut, except the end of text;
    2. `repetition_penalty`: log p of tokens that the text holds so far is multiplied by it
       (Keskar et al. 2019 divide logits; of log-probabilities, which are never positive, that is
       what lowers them);
    3. `lookahead`: p(w) becomes proportional to p(w) exp(-a H(next | w)), among the `lookahead_top`
       most probable tokens (Algorithm 2 of Braverman et al., ICML 2020), with
       `lookahead_head` as a fitted head predicts H;
    4. `temperature`: log p is divided by it;
    5. `top_k`: the k most probable entries are kept (Fan et al. 2018);
    6. `top_p`: the fewest most probable entries with this mass are kept (Holtzman et al. 2020);
    7. `min_p`: entries with at least this share of the largest probability are kept (Nguyen et al.
       2024);
    8. `typical`: the entries with this mass whose -log p is nearest to the entropy are kept
       (Meister et al. 2023).

    Entries that tie with the last one kept are kept too. `greedy` takes the most probable entry
    that is left, the first of several.

    Attributes:
        temperature: above 0.
        top_k: at least 1; None means all.
        top_p: above 0, at most 1; None means all.
        min_p: from 0 to 1; None means all.
        typical: above 0, at most 1; None means all.
        repetition_penalty: above 0; 1 changes nothing, more makes repetition rarer.
        lookahead: the coefficient a; 0 changes nothing and costs nothing, otherwise a step reads
            each candidate, unless a head predicts what follows it.
        lookahead_top: how many candidates are looked at; all others are cut.
        lookahead_head: the name of a head of the run (`calibtrain lookahead`).
        greedy: whether the most probable token is taken and none is drawn.

    Raises:
        ValueError: for a value that is not allowed; it names the field.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical: float | None = None
    repetition_penalty: float = 1.0
    lookahead: float = 0.0
    lookahead_top: int = 128
    lookahead_head: str | None = None
    greedy: bool = False

    def __post_init__(self) -> None:
        def require(name: str, allowed: str, holds: Any) -> None:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and holds(value)):
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: {allowed}")

        require("temperature", "a number above 0 (greedy takes the most probable)", lambda x: x > 0)
        require("repetition_penalty", "a number above 0", lambda x: x > 0)
        require("lookahead", "a number", lambda x: True)
        require("lookahead_top", "a whole number from 1", lambda x: x == int(x) and x >= 1)
        if self.lookahead_head is not None and self.lookahead == 0.0:
            raise ValueError(
                f"lookahead_head: {self.lookahead_head!r} is not used without lookahead; give its "
                "coefficient, or leave the head out"
            )
        if self.top_k is not None:
            require("top_k", "a whole number from 1", lambda x: x == int(x) and x >= 1)
        if self.top_p is not None:
            require("top_p", "above 0, at most 1", lambda x: 0 < x <= 1)
        if self.min_p is not None:
            require("min_p", "from 0 to 1", lambda x: 0 <= x <= 1)
        if self.typical is not None:
            require("typical", "above 0, at most 1", lambda x: 0 < x <= 1)

    @property
    def described(self) -> dict[str, Any]:
        """The settings that differ from the default, by name."""
        fields = dataclasses.fields(self)
        given = {field.name: getattr(self, field.name) for field in fields}
        return {
            field.name: given[field.name] for field in fields if given[field.name] != field.default
        }


ANCESTRAL = Sampling()
"""Draws from the model's own distribution."""


def adjusted(
    log_probabilities: Float[Array, "rows vocab"],
    sampling: Sampling,
    *,
    seen: Bool[Array, "rows vocab"] | None = None,
    drawable: Bool[Array, " vocab"] | None = None,
    next_entropy: Float[Array, "rows vocab"] | None = None,
) -> Float[Array, "rows vocab"]:
    """Returns normalised log-probabilities to draw from; -inf where an entry is cut.

    Args:
        log_probabilities: of the model, in nats.
        sampling: what is done to them, in the order that `Sampling` states.
        seen: the tokens that each text holds so far; needed for a repetition penalty.
        drawable: entries that can be drawn at all; default: every one.
        next_entropy: the entropy of the step after each entry, in nats; infinite for entries that
            were not looked at. Needed for a look-ahead.
    """
    x = log_probabilities
    if drawable is not None:
        x = normalised(jnp.where(drawable, x, NEVER))
    if sampling.repetition_penalty != 1.0:
        assert seen is not None, "a repetition penalty needs the tokens seen"
        x = normalised(jnp.where(seen, x * sampling.repetition_penalty, x))
    if sampling.lookahead != 0.0:
        assert next_entropy is not None, "a look-ahead needs the entropies of the next step"
        looked = jnp.isfinite(next_entropy)
        bent = x - sampling.lookahead * jnp.where(looked, next_entropy, 0.0)
        x = normalised(jnp.where(looked, bent, NEVER))
    if sampling.temperature != 1.0:
        x = normalised(x / sampling.temperature)
    if sampling.top_k is not None and sampling.top_k < x.shape[-1]:
        ones = jnp.isfinite(x).astype(jnp.float32)
        x = _cut(x, x, ones, jnp.minimum(float(sampling.top_k), jnp.sum(ones, axis=-1)))
    if sampling.top_p is not None and sampling.top_p < 1.0:
        x = _cut(x, x, jnp.exp(x), sampling.top_p)
    if sampling.min_p is not None:
        least = jnp.max(x, axis=-1, keepdims=True) + jnp.log(jnp.float32(sampling.min_p))
        x = normalised(jnp.where(x >= least, x, NEVER))
    if sampling.typical is not None and sampling.typical < 1.0:
        x = _cut(x, -jnp.abs(-x - entropy_of(x)[:, None]), jnp.exp(x), sampling.typical)
    return x


def normalised(scores: Float[Array, "rows vocab"]) -> Float[Array, "rows vocab"]:
    """Returns log-probabilities that are proportional to exp(score)."""
    top = jnp.max(scores, axis=-1, keepdims=True)
    total = jnp.sum(jnp.exp(scores - top), axis=-1, keepdims=True)
    return (scores - top) - jnp.log(total)


def _cut(
    x: Float[Array, "rows vocab"],
    order: Float[Array, "rows vocab"],
    mass: Float[Array, "rows vocab"],
    wanted: Float[Array, " rows"] | float,
) -> Float[Array, "rows vocab"]:
    """Keeps the first entries by `order`, largest first, whose mass together is what is wanted."""
    least = threshold(order, mass, wanted)
    return normalised(jnp.where(order >= least[:, None], x, NEVER))


def threshold(
    order: Float[Array, "rows vocab"],
    mass: Float[Array, "rows vocab"],
    wanted: Float[Array, " rows"] | float,
) -> Float[Array, " rows"]:
    """Returns the largest t for which the mass of all entries with order >= t is at least `wanted`.

    Where all entries together have less (by rounding), every finite one is above t. The search is a
    bisection over the 32 bits of a float, whose order as integers is that of the numbers.
    """
    keys = _sortable(order)
    rows = order.shape[0]
    low = jnp.full((rows,), _sortable(jnp.float32(-3.4e38)), jnp.int32)
    high = _sortable(jnp.max(order, axis=-1))

    def narrow(_: Int[Array, ""], bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low | high) - ((low ^ high) >> 1)  # the mean rounded up, without overflow
        enough = jnp.sum(jnp.where(keys >= middle[:, None], mass, 0.0), axis=-1) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    low, _ = jax.lax.fori_loop(0, 32, narrow, (low, high))
    return _float_of(low)


def _sortable(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns integers that are ordered as the floats are."""
    bits = jax.lax.bitcast_convert_type(x + 0.0, jnp.int32)  # -0.0 + 0.0 is 0.0
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _float_of(keys: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the floats that `_sortable` made integers of."""
    return jax.lax.bitcast_convert_type(
        jnp.where(keys < 0, keys ^ jnp.int32(0x7FFFFFFF), keys), jnp.float32
    )


def draw(
    log_probabilities: Float[Array, "rows vocab"], uniform: Float[Array, " rows"]
) -> Int[Array, " rows"]:
    """Returns the token of each row at a point of its distribution function.

    The function is summed by blocks of entries and then within one, so that no sum is long; an
    entry of probability 0 is never returned.

    Args:
        log_probabilities: normalised; -inf where an entry cannot be drawn.
        uniform: a number from 0 to below 1 for each row.
    """
    rows, vocab = log_probabilities.shape
    size = 1 << (max(1, vocab - 1).bit_length() + 1) // 2
    p = jnp.exp(log_probabilities)
    p = jnp.pad(p, ((0, 0), (0, -vocab % size))).reshape(rows, -1, size)
    sums = jnp.sum(p, axis=-1)
    block, rest = _place(sums, uniform * jnp.sum(sums, axis=-1))
    inside = jnp.take_along_axis(p, block[:, None, None], axis=1)[:, 0]
    place, _ = _place(inside, rest)
    return (block * size + place).astype(jnp.int32)


def _place(
    mass: Float[Array, "rows some"], point: Float[Array, " rows"]
) -> tuple[Int[Array, " rows"], Float[Array, " rows"]]:
    """Returns the first place whose running sum is above the point, and the point within it."""
    running = jnp.cumsum(mass, axis=-1)
    places = jnp.arange(mass.shape[-1])
    last = jnp.max(jnp.where(mass > 0, places, 0), axis=-1)
    first = jnp.min(jnp.where((mass > 0) & (running > point[:, None]), places, last[:, None]), -1)
    before = jnp.take_along_axis(running - mass, first[:, None], axis=-1)[:, 0]
    return first, jnp.maximum(point - before, 0.0)
