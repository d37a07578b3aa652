"""Where text meets a model to be scored: batches go in, statistics of their tokens come out.

Corpus windows, answers and cached hidden states are scored by the same compiled program, on one
device or on many. The host reads the scores of a batch while the device computes those of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from calibtrain.models import Network
from calibtrain.models.pieces import apply_in_pieces
from calibtrain.parallel.mesh import ROWS, Layout
from calibtrain.readout import Functional, TokenStats, readout

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

Batch = TypeVar("Batch")

ModelOutput = tuple[Array, Array, Any]
"""Hidden states, unembedding and temperature (None without a head): the input of `readout`."""


class Scorer:
    """Scores batches under a model. The program is compiled once for each shape of a batch."""

    def __init__(
        self,
        output: Callable[[Any, Any], ModelOutput],
        *,
        vocab_size: int,
        soft_cap: float | None,
        fields: Sequence[str],
        functionals: Mapping[str, Functional] | None = None,
        result: Callable[[TokenStats, Any], Any] = lambda stats, batch: stats,
        chunk: int | None = None,
        layout: Layout | None = None,
    ):
        """Args:
        output: returns what `readout` multiplies, from parameters and a batch.
        vocab_size: columns of the unembedding from here on only pad the vocabulary.
        soft_cap: caps the logits before they are divided by a temperature.
        fields: the statistics that `result` reads.
        functionals: functionals of the logits that `result` reads from `stats.extra`.
        result: returns the scores, from the statistics of a batch's labels and the batch: by
            default the statistics. With a layout, the first axis of the scores is that of the rows.
        chunk: number of tokens whose logits are held at once.
        layout: divides the rows of a batch among devices; None means that one device has them all.
        """
        self._layout = layout if layout is not None and layout.devices > 1 else None

        def score(params: Any, batch: Any, temperature: Float[Array, ""] | None) -> Any:
            hidden, unembedding, own = output(params, batch)
            stats = readout(
                hidden,
                unembedding,
                batch.labels,
                temperature=combined(own, temperature),
                vocab_size=vocab_size,
                soft_cap=soft_cap,
                fields=fields,
                functionals=functionals,
                chunk=chunk,
            )
            return result(stats, batch)

        if self._layout is None:
            self._program: Any = jax.jit(score)
        else:  # each device scores its own rows, and every host gets all scores
            run = self._layout.on_each_device(score, (P(), P(ROWS), P()), P(ROWS))
            self._program = jax.jit(run, out_shardings=self._layout.everywhere)

    def __call__(self, params: Any, batch: Any, temperature: np.float32 | None = None) -> Any:
        """Returns the scores of a batch as arrays that the device may still be computing.

        Args:
            params: the first argument of `output`.
            batch: host arrays, among them `labels`.
            temperature: divides the logits, together with the temperatures of the model's own head;
                None divides by those alone.
        """
        if self._layout is not None:
            batch = self._layout.share_out(batch)
        return self._program(params, batch, temperature)

    def over(
        self, params: Any, batches: Iterable[Batch], temperature: np.float32 | None = None
    ) -> Iterator[tuple[Batch, Any]]:
        """Yields each batch with its scores as NumPy arrays."""
        return one_behind(lambda batch: self(params, batch, temperature), batches)

    def rows(self, wanted: int) -> int:
        """Returns the rows wanted, rounded up to a number that the devices share evenly."""
        shares = self._layout.row_shares if self._layout is not None else 1
        return -(-wanted // shares) * shares

    def lower(self, params: Any, batch: Any) -> Any:
        """Returns the program for parameters and a batch of such shapes, ready to be compiled."""
        sharding = self._layout.rows if self._layout is not None else None
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), batch
        )
        return self._program.lower(params, shapes, None)


def combined(own: Any, asked: Any) -> Any:
    """Returns the product of the temperatures of a model's own head and of the caller.

    None means no temperature, on either side and in the result.
    """
    if own is None or asked is None:
        return asked if own is None else own
    return own * asked


def network_output(
    network: Network, layout: Layout | None = None
) -> Callable[[Any, Any], ModelOutput]:
    """Returns what a network gives a `Scorer`, from its parameters and a batch of tokens.

    Args:
        network: the model.
        layout: that the scorer has.
    """
    platform = jax.default_backend() if layout is None else layout.platform

    def output(params: Any, batch: Any) -> ModelOutput:
        return apply_in_pieces(network, params, batch.tokens, batch.segments, platform)

    return output


def one_behind(
    score: Callable[[Batch], Any], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Any]]:
    """Yields each batch with its scores as NumPy arrays, one batch behind the device.

    The device is given the next batch before the host waits for the scores of this one.

    Args:
        score: returns arrays that the device may still be computing.
        batches: are read one ahead of those that are yielded.
    """
    pending: tuple[Batch, Any] | None = None
    for batch in batches:
        scores = score(batch)
        if pending is not None:
            yield _on_host(pending)
        pending = batch, scores
    if pending is not None:
        yield _on_host(pending)


def _on_host(pending: tuple[Batch, Any]) -> tuple[Batch, Any]:
    batch, scores = pending
    return batch, jax.tree.map(np.asarray, scores)
