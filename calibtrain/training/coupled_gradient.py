"""The gradient of an objective with losses that couple tokens, however its batch is cut.

A coupled loss is a function of a few statistics of some tokens. These statistics are computed
first, without a gradient, and gathered from all devices; so neither its value nor its gradient
depends on how a batch is cut. Its derivatives with respect to them (cotangents) then join the one
pass over the logits that the token losses take: the gradient of a coupled loss is that of a sum of
cotangent times statistic. The rows it is computed over come first in the batch: where the first
micro-batch holds them all, they take no forward pass of their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.losses.preference import REFERENCE
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS
from calibtrain.readout import Cotangents, TokenStats, accumulate
from calibtrain.training.coupled import CoupledTerms, coupled_terms, most_selected_rows
from calibtrain.training.objective import LossState, Objective
from calibtrain.training.step import Sums, TokenGradient, micro_batches, summed_gradient

States = tuple[Any, Any, Any]
"""Hidden states, unembedding and temperature, from `Network.apply`."""

Statistics = list[tuple[TokenStats, Array]]
"""Statistics and weights of the selected tokens, one pair for each `CoupledTerms`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MicroBatch:
    """Rows, and whether each of the coupled terms is computed over them.

    Attributes:
        batch: the rows.
        selected: one column for each `CoupledTerms`.
    """

    batch: Batch
    selected: Array

    def weights(self, number: int) -> Array:
        """Weights of the tokens in the rows that some coupled terms select; 0 for all others."""
        return self.batch.weights * self.selected[:, number, None]


@dataclasses.dataclass(frozen=True)
class _Selection:
    """Where the selected tokens of a step are. Lists have one entry for each `CoupledTerms`.

    Attributes:
        micro_batches: how many of a device's micro-batches, from the first on, hold some.
        rows: the first rows of each of those, which hold all that are selected there.
        positions: index of those rows and of the positions in them.
        counts: number of selected rows of the whole batch.
        selected: whether each row of the whole batch is selected.
    """

    micro_batches: int
    rows: slice
    positions: list[Any]
    counts: list[int]
    selected: list[Array]


class CoupledGradient:
    """The gradient as `TokenGradient` takes it, for an objective that has batch terms."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        fields: tuple[str, ...],
        chunk: int | None,
        pieces: int,
        shares: int,
    ):
        """Args:
        network: as for `TokenGradient`, as are those not named here.
        pieces: number of micro-batches that the rows of a device are cut into.
        shares: devices that hold a part of the batch's rows each.
        """
        self.tokens = TokenGradient(network, objective, fields, chunk, pieces)
        self.network, self.objective, self.chunk = network, objective, chunk
        self.pieces, self.shares = pieces, shares
        self.coupled = coupled_terms(objective)

    def __call__(
        self, params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        """Returns the gradient of the loss times the batch's weight, and the sums that are logged.

        Arguments as for `TokenGradient`.
        """
        weight = jnp.sum(batch.weights)
        if self.shares > 1:
            weight = jax.lax.psum(weight, ROWS)
        rows, context = batch.labels.shape
        selection = self._select(rows, context, step)
        parts = self._cut(batch, selection)
        token_loss = self.tokens.loss

        def plain(params: Params, part: _MicroBatch) -> tuple[Array, Sums]:
            return token_loss(self._states(params, part), part.batch, step, memory)

        if selection.micro_batches > 1:  # the selected rows take a forward pass of their own
            ahead = jax.tree.map(lambda x: x[: selection.micro_batches], parts)
            statistics = self._statistics_of_each(params, ahead, selection)
            slopes, value, terms = self._slopes(statistics, ahead, selection, weight, step)

            def pulled(params: Params, x: tuple[_MicroBatch, Statistics]) -> tuple[Array, Sums]:
                part, slopes = x
                own = self._cotangents(slopes, part, selection)
                return token_loss(self._states(params, part), part.batch, step, memory, own)

            grads, sums = summed_gradient(pulled, params, (ahead, slopes))
        else:  # the first micro-batch holds them all, and one forward pass serves both
            first = jax.tree.map(lambda x: x[0], parts)

            def at_once(params: Params) -> tuple[Array, tuple[Sums, Array, Sums]]:
                states = self._states(params, first)
                statistics = self._statistics(states, first, selection)
                slopes, value, terms = self._slopes(statistics, first, selection, weight, step)
                own = self._cotangents(slopes, first, selection)
                total, sums = token_loss(states, first.batch, step, memory, own)
                return total, (sums, value, terms)

            grads, (sums, value, terms) = jax.grad(at_once, has_aux=True)(params)
        done = max(1, selection.micro_batches)
        if done < self.pieces:
            rest = jax.tree.map(lambda x: x[done:], parts)
            grads, sums = summed_gradient(plain, params, rest, (grads, sums))
        return grads, {**sums, "loss": sums["loss"] + value, **terms}

    def _select(self, rows: int, context: int, step: Array) -> _Selection:
        """Selects tokens of a batch of which one device holds `rows` rows."""
        whole = (rows * self.shares, context)
        own = most_selected_rows(self.objective, rows, context, self.shares)
        size = rows // self.pieces
        first = slice(min(own, size))
        positions = [some.positions(step, *whole) for some in self.coupled]
        return _Selection(
            micro_batches=-(-own // size),
            rows=first,
            positions=[first if some is None else (first, some) for some in positions],
            counts=[some.rows(*whole) for some in self.coupled],
            selected=[some.selected_rows(step, *whole) for some in self.coupled],
        )

    def _cut(self, batch: Batch, selection: _Selection) -> _MicroBatch:
        """Cuts a device's rows into micro-batches, along a leading axis, selected rows first."""
        rows = len(batch.labels)
        selected = jnp.stack(selection.selected, axis=-1)
        if self.shares > 1:
            before = jax.lax.axis_index(ROWS) * rows
            selected = jax.lax.dynamic_slice_in_dim(selected, before, rows)
        if any(count < rows * self.shares for count in selection.counts):
            any_term = jnp.any(selected, axis=-1)
            batch, selected = _selected_first((batch, selected), any_term, rows)
        return micro_batches(_MicroBatch(batch, selected), self.pieces)

    def _states(self, params: Params, part: _MicroBatch) -> States:
        return self.network.apply(params, part.batch.tokens, part.batch.segments)

    def _statistics(self, states: States, part: _MicroBatch, selection: _Selection) -> Statistics:
        """Statistics of the selected tokens of a micro-batch; no gradient flows through them."""
        states = jax.lax.stop_gradient(states)
        return [
            self._statistics_for(number, some, states, part, selection)
            for number, some in enumerate(self.coupled)
        ]

    def _statistics_of_each(
        self, params: Params, parts: _MicroBatch, selection: _Selection
    ) -> Statistics:
        """`_statistics` of several micro-batches, along a leading axis."""

        def read(_: None, part: _MicroBatch) -> tuple[None, Statistics]:
            return None, self._statistics(self._states(params, part), part, selection)

        return jax.lax.scan(read, None, parts)[1]

    def _statistics_for(
        self,
        number: int,
        some: CoupledTerms,
        states: States,
        part: _MicroBatch,
        selection: _Selection,
    ) -> tuple[TokenStats, Array]:
        hidden, unembedding, temperature = states
        batch, place = part.batch, selection.positions[number]
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
            extra = {**extra, REFERENCE: batch.reference[selection.rows]}
        return dataclasses.replace(stats, sums=sums, extra=extra), weights

    def _cotangents(
        self, slopes: Statistics, part: _MicroBatch, selection: _Selection
    ) -> list[Cotangents]:
        """Cotangents of all tokens of a micro-batch: 0 for those that are not selected."""
        nothing = jnp.zeros_like(part.batch.weights)
        cotangents = []
        for number, (some, (stats, _)) in enumerate(zip(self.coupled, slopes, strict=True)):
            place = selection.positions[number]
            extra = {name: stats.extra[name] for name in some.functionals}
            by_token = dataclasses.replace(stats, extra=extra, sums={})
            by_token = jax.tree.map(lambda x, at=place: nothing.at[at].set(x), by_token)
            weights = nothing.at[place].set(part.weights(number)[place])
            reduction = some.reduction if stats.sums else None
            stats = dataclasses.replace(by_token, sums=stats.sums)
            cotangents.append(Cotangents(stats, weights, reduction, some.functionals))
        return cotangents

    def _slopes(
        self,
        statistics: Statistics,
        part: _MicroBatch,
        selection: _Selection,
        weight: Array,
        step: Array,
    ) -> tuple[Statistics, Array, Sums]:
        """Derivatives of the batch terms with respect to statistics; their sum; and each term.

        Args:
            statistics: of one micro-batch, or of several along a leading axis.
            part: the micro-batch, or those.
            selection: of the step.
            weight: of the whole batch.
            step: number of the step.
        """

        def together(statistics: Statistics) -> tuple[Array, Sums]:
            if part.selected.ndim > 2:
                statistics = [_flattened(*found) for found in statistics]
            return self._value(statistics, part, selection, weight, step)

        (value, terms), slopes = jax.value_and_grad(together, has_aux=True)(statistics)
        return slopes, value, terms

    def _value(
        self,
        statistics: Statistics,
        part: _MicroBatch,
        selection: _Selection,
        weight: Array,
        step: Array,
    ) -> tuple[Array, Sums]:
        """This device's share of the batch terms, times the batch's weight: sum, and each."""
        total: Any = 0.0
        each = {}
        selected = part.selected[..., selection.rows, :].reshape(-1, part.selected.shape[-1])
        for number, (some, found) in enumerate(zip(self.coupled, statistics, strict=True)):
            stats, weights = self._gathered(*found, selected[:, number], selection.counts[number])
            for term in some.terms:
                value = term.loss(stats, weights) * weight / self.shares
                total += term.weight_at(step) * value
                each[f"loss/{term.name}"] = value
        return total, each if self.objective.names else {}

    def _gathered(
        self, stats: TokenStats, weights: Array, selected: Array, count: int
    ) -> tuple[TokenStats, Array]:
        """Statistics of the selected rows of all devices, in their order, and of no other rows."""
        sums = stats.sums
        rows: Any = (dataclasses.replace(stats, sums={}), weights)
        if self.shares > 1:
            rows, selected = jax.tree.map(
                lambda x: jax.lax.all_gather(x, ROWS, axis=0, tiled=True), (rows, selected)
            )
            sums = jax.lax.psum(sums, ROWS)
        if len(selected) > count:
            rows = _selected_first(rows, selected, count)
        return dataclasses.replace(rows[0], sums=sums), rows[1]


def _selected_first(rows: Any, selected: Array, count: int) -> Any:
    """The first `count` rows when the selected ones are put before the others, order kept."""
    order = jnp.argsort(~selected, stable=True)[:count]
    return jax.tree.map(lambda x: x[order], rows)


def _flattened(stats: TokenStats, weights: Array) -> tuple[TokenStats, Array]:
    """Statistics of several micro-batches as those of one: rows joined, sums added."""
    rows = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), (dataclasses.replace(stats, sums={}), weights)
    )
    sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stats.sums)
    return dataclasses.replace(rows[0], sums=sums), rows[1]
