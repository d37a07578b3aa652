"""The gradient of an objective over the rows of one device, however they are cut.

What is a sum over tokens is taken a micro-batch and a device at a time. What couples tokens (the
batch terms of the objective) is a function of a few statistics a token: those are gathered from all
devices before any gradient is taken of them, so that its value and its gradient do not depend on
how a batch is cut. They are those of some rows, which come first: where one micro-batch holds them,
they take no forward pass of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.data.batches import Batch
from calibtrain.losses.preference import REFERENCE
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS
from calibtrain.readout import Pull, TokenStats, accumulate, additive_loss
from calibtrain.training.objective import Coupled, LossState, Objective

FIELDS = ("nll", "log_confidence", "correct")
"""Statistics that the running sums of a run read."""

Sums = dict[str, Any]
"""What adds up over micro-batches and devices, beside the gradient."""

Outlook = tuple[Any, Any, Any]
"""What a network says of a batch: hidden states, unembedding, temperature."""

Seen = list[tuple[TokenStats, Array]]
"""Statistics and weights of the tokens that batch terms look at, one for each `Coupled`."""

LEAST_MICRO_BATCH = {"cpu": 640}
"""Tokens of a micro-batch, at least, where cutting a batch pays: a CPU then finds more of its
temporaries in its caches, and the kernel has fewer new pages to clear."""


def default_micro_batches(
    rows: int, context: int, platform: str, objective: Objective, shares: int = 1
) -> int:
    """Pieces that the rows of one device are cut into on a platform when a caller does not say.

    The first holds all rows that batch terms look at, so that none takes another forward pass.

    Args:
        rows: of one device.
        context: tokens of each.
        platform: of the device.
        objective: what is minimised.
        shares: devices that hold as many rows each.
    """
    if platform not in LEAST_MICRO_BATCH:
        return 1
    needed = _most_of_a_device(objective, rows, context, shares)
    least = max(LEAST_MICRO_BATCH[platform], needed * context)
    return max(
        pieces
        for pieces in range(1, rows + 1)
        if rows % pieces == 0 and (pieces == 1 or rows // pieces * context >= least)
    )


def _most_of_a_device(objective: Objective, rows: int, context: int, shares: int) -> int:
    """How many rows that batch terms look at a device holds at most, in whichever step."""
    every = {rows * shares // some.rows(rows * shares, context) for some in objective.coupled}
    # every fourth row is among every second one
    apart = [n for n in every if not any(n % other == 0 for other in every - {n})]
    return min(rows, sum(-(-rows // n) for n in apart))


@dataclasses.dataclass(frozen=True)
class LossGradient:
    """The objective of a model, and how a batch is cut.

    Attributes:
        network: the model.
        objective: what is minimised.
        fields: statistics computed beside those that it reads.
        chunk: tokens whose logits are held at once.
        shares: devices that hold a part of the batch's rows each.
        micro_batches: that a device's rows are cut into.
    """

    network: Network
    objective: Objective
    fields: tuple[str, ...]
    chunk: int | None
    shares: int
    micro_batches: int

    def __call__(
        self, params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        """Gradient of the loss times the batch's weight, and sums, over this device's rows."""
        weight = jnp.sum(batch.weights)
        if self.shares > 1 and self.objective.batch_terms:
            weight = jax.lax.psum(weight, ROWS)
        rows, context = batch.labels.shape
        view = self._view(rows, context, step)
        parts = self._parts(batch, view)

        def plain(params: Params, part: _Part) -> tuple[Array, Sums]:
            return self._read(self._outlook(params, part), part, step, memory)

        if self.micro_batches > 1 and view.parts == 0:
            return _summed(plain, params, parts)
        if view.parts > 1:
            ahead = jax.tree.map(lambda x: x[: view.parts], parts)
            seen = self._seen_in(params, ahead, view)
            slopes, coupled, more = self._slopes(seen, ahead, view, weight, step)

            def pulled(params: Params, x: tuple[_Part, Seen]) -> tuple[Array, Sums]:
                pulls = self._pulls(x[1], x[0], view)
                return self._read(self._outlook(params, x[0]), x[0], step, memory, pulls)

            grads, sums = _summed(pulled, params, (ahead, slopes))
        else:  # what batch terms look at is in the first micro-batch: one forward pass does
            first = jax.tree.map(lambda x: x[0], parts)

            def at_once(params: Params) -> tuple[Array, tuple[Sums, Array, Sums]]:
                outlook = self._outlook(params, first)
                seen = self._seen(outlook, first, view)
                slopes, coupled, more = self._slopes(seen, first, view, weight, step)
                pulls = self._pulls(slopes, first, view)
                total, sums = self._read(outlook, first, step, memory, pulls)
                return total, (sums, coupled, more)

            grads, (sums, coupled, more) = jax.grad(at_once, has_aux=True)(params)
        done = max(1, view.parts)
        if done < self.micro_batches:
            rest = jax.tree.map(lambda x: x[done:], parts)
            grads, sums = _summed(plain, params, rest, (grads, sums))
        return grads, self._with(sums, coupled, more)

    def _view(self, rows: int, context: int, step: Array) -> _View:
        """Of a device's rows."""
        whole, coupled = (rows * self.shares, context), self.objective.coupled
        own = _most_of_a_device(self.objective, rows, context, self.shares)
        size = rows // self.micro_batches
        foremost = slice(min(own, size))
        columns = [some.places(step, *whole) for some in coupled]
        return _View(
            parts=-(-own // size),
            rows=foremost,
            places=[foremost if some is None else (foremost, some) for some in columns],
            counts=[some.rows(*whole) for some in coupled],
            turns=[some.turn(step, *whole) for some in coupled],
        )

    def _parts(self, batch: Batch, view: _View) -> _Part:
        """The micro-batches, the rows that batch terms look at foremost: a leading axis more."""
        rows = len(batch.labels)
        chosen = jnp.zeros((rows, 0), bool)
        if view.turns:
            chosen = jnp.stack(view.turns, axis=-1)
        if view.turns and self.shares > 1:
            before = jax.lax.axis_index(ROWS) * rows
            chosen = jax.lax.dynamic_slice_in_dim(chosen, before, rows)
        if any(count < rows * self.shares for count in view.counts):
            batch, chosen = _foremost((batch, chosen), jnp.any(chosen, axis=-1), rows)
        cut = (self.micro_batches, rows // self.micro_batches)
        return jax.tree.map(lambda x: x.reshape(*cut, *x.shape[1:]), _Part(batch, chosen))

    def _outlook(self, params: Params, part: _Part) -> Outlook:
        return self.network.apply(params, part.batch.tokens, part.batch.segments)

    def _read(
        self,
        outlook: Outlook,
        part: _Part,
        step: Array,
        memory: LossState,
        pulls: Sequence[Pull] = (),
    ) -> tuple[Array, Sums]:
        """Token terms, summed, with the gradient of the batch terms besides; and sums."""
        hidden, unembedding, temperature = outlook
        batch, bound = part.batch, self.objective.bound(memory)
        coupled = self.objective.coupled if pulls else ()
        fields = [field for some in coupled for field in some.fields]
        functionals = bound.functionals
        for some in coupled:
            functionals |= some.functionals
        total, stats = additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            lambda stats: bound.per_token(stats, step),
            temperature=temperature,
            **self.network.reading,
            fields=tuple(dict.fromkeys((*FIELDS, *self.fields, *bound.fields, *fields))),
            functionals=functionals,
            chunk=self.chunk,
            pulls=pulls,
        )
        sums = {
            "weight": jnp.sum(batch.weights),
            "loss": total,
            "confidence": jnp.sum(stats.confidence * batch.weights),
            "correct": jnp.sum(stats.correct * batch.weights),
            "counts": bound.counted(stats, batch.weights),
        }
        if not bound.is_cross_entropy:
            sums["nll"] = jnp.sum(stats.nll * batch.weights)
        if bound.names:
            for term in bound.token_terms:
                value = term.loss.per_token(stats)
                sums[f"loss/{term.name}"] = jnp.sum(value * batch.weights)
        return total, sums

    def _seen(self, outlook: Outlook, part: _Part, view: _View) -> Seen:
        """Statistics of the tokens that batch terms are computed over; no gradient."""
        outlook = jax.lax.stop_gradient(outlook)
        return [
            self._look(number, some, outlook, part, view)
            for number, some in enumerate(self.objective.coupled)
        ]

    def _seen_in(self, params: Params, parts: _Part, view: _View) -> Seen:
        """The same of each of some micro-batches."""

        def look(_: None, part: _Part) -> tuple[None, Seen]:
            return None, self._seen(self._outlook(params, part), part, view)

        return jax.lax.scan(look, None, parts)[1]

    def _look(
        self, number: int, some: Coupled, outlook: Outlook, part: _Part, view: _View
    ) -> tuple[TokenStats, Array]:
        hidden, unembedding, temperature = outlook
        batch, place = part.batch, view.places[number]
        hidden, labels, weights, temperature = jax.tree.map(
            lambda x: x[place], (hidden, batch.labels, part.weights(number), temperature)
        )
        sums, stats = accumulate(
            hidden,
            unembedding,
            labels,
            weights,
            some.reduction,
            temperature=temperature,
            **self.network.reading,
            fields=some.fields,
            functionals=some.functionals,
            chunk=self.chunk,
        )
        extra = stats.extra
        if batch.reference is not None:
            extra = {**extra, REFERENCE: batch.reference[view.rows]}
        return dataclasses.replace(stats, sums=sums, extra=extra), weights

    def _pulls(self, slopes: Seen, part: _Part, view: _View) -> list[Pull]:
        """Slopes as of all tokens: 0 of those that are not looked at."""
        nothing = jnp.zeros_like(part.batch.weights)
        pulls = []
        for number, (some, (stats, _)) in enumerate(
            zip(self.objective.coupled, slopes, strict=True)
        ):
            place = view.places[number]
            extra = {name: stats.extra[name] for name in some.functionals}
            by_token = dataclasses.replace(stats, extra=extra, sums={})
            by_token = jax.tree.map(lambda x, at=place: nothing.at[at].set(x), by_token)
            weights = nothing.at[place].set(part.weights(number)[place])
            reduction = some.reduction if stats.sums else None
            pulls.append(Pull(dataclasses.replace(by_token, sums=stats.sums), weights, reduction))
        return pulls

    def _coupled(
        self, seen: Seen, part: _Part, view: _View, weight: Array, step: Array
    ) -> tuple[Array, Sums]:
        """This device's share of the batch terms (times the batch's weight): weighted sum, each."""
        total: Any = 0.0
        each = {}
        chosen = part.chosen[..., view.rows, :].reshape(-1, part.chosen.shape[-1])
        for number, (some, found) in enumerate(zip(self.objective.coupled, seen, strict=True)):
            stats, weights = self._gathered(*found, chosen[:, number], view.counts[number])
            for term in some.terms:
                value = term.loss(stats, weights) * weight / self.shares
                total += term.weight_at(step) * value
                each[f"loss/{term.name}"] = value
        return total, each if self.objective.names else {}

    def _slopes(
        self, seen: Seen, part: _Part, view: _View, weight: Array, step: Array
    ) -> tuple[Seen, Array, Sums]:
        """Derivatives of the batch terms by what is seen in a micro-batch (or several of them, with
        a leading axis more); and their values."""
        if not self.objective.batch_terms:
            return [], jnp.zeros(()), {}

        def together(seen: Seen) -> tuple[Array, Sums]:
            if part.chosen.ndim > 2:
                seen = [_whole(*found) for found in seen]
            return self._coupled(seen, part, view, weight, step)

        (value, more), slopes = jax.value_and_grad(together, has_aux=True)(seen)
        return slopes, value, more

    def _gathered(
        self, stats: TokenStats, weights: Array, chosen: Array, count: int
    ) -> tuple[TokenStats, Array]:
        """The same of all devices: the rows that are looked at, in their order, and no others."""
        sums = stats.sums
        rows: Any = (dataclasses.replace(stats, sums={}), weights)
        if self.shares > 1:
            rows, chosen = jax.tree.map(
                lambda x: jax.lax.all_gather(x, ROWS, axis=0, tiled=True), (rows, chosen)
            )
            sums = jax.lax.psum(sums, ROWS)
        if len(chosen) > count:
            rows = _foremost(rows, chosen, count)
        return dataclasses.replace(rows[0], sums=sums), rows[1]

    def _with(self, sums: Sums, coupled: Array, more: Sums) -> Sums:
        if not self.objective.batch_terms:
            return sums
        return {**sums, "loss": sums["loss"] + coupled, **more}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Part:
    """A micro-batch.

    Attributes:
        batch: its rows.
        chosen: whether batch terms look at a row, one column for each `Coupled`.
    """

    batch: Batch
    chosen: Array

    def weights(self, number: int) -> Array:
        """Of the tokens in the rows that some batch terms look at; of all others 0."""
        return self.batch.weights * self.chosen[:, number, None]


@dataclasses.dataclass(frozen=True)
class _View:
    """Where what batch terms look at in a step lies; lists have an entry for each `Coupled`.

    Attributes:
        parts: micro-batches of a device, from the first, that hold some.
        rows: foremost ones of a micro-batch, among which are all that they look at there.
        places: index of those rows and of the places in them.
        counts: rows of the whole batch.
        turns: whether a row of the whole batch is one of them.
    """

    parts: int
    rows: slice
    places: list[Any]
    counts: list[int]
    turns: list[Array]


def _foremost(rows: Any, chosen: Array, count: int) -> Any:
    """So many rows, the chosen ones before the others, in their order."""
    order = jnp.argsort(~chosen, stable=True)[:count]
    return jax.tree.map(lambda x: x[order], rows)


def _summed(function: Any, params: Params, parts: Any, total: Any = None) -> Any:
    """Gradients and what comes with them, summed over micro-batches, and added to a total."""
    gradient = jax.grad(function, has_aux=True)
    if total is None:  # zeros rather than the first, of which the memory would be held as well
        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts))
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, part)), None

    return jax.lax.scan(add, total, parts)[0]


def _whole(stats: TokenStats, weights: Array) -> tuple[TokenStats, Array]:
    """Micro-batches' statistics as one batch's: their rows one after another, their sums added."""
    rows = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), (dataclasses.replace(stats, sums={}), weights)
    )
    sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stats.sums)
    return dataclasses.replace(rows[0], sums=sums), rows[1]
