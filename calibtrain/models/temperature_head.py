"""What a network asks of a temperature head; without one, nothing here is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

Params = dict[str, Any]


class TemperatureHead(Protocol):
    """Divides a network's logits by temperatures that it reads off the last hidden states.

    `calibtrain.temperature` has the kinds. An attention head is never called a head alone.
    """

    @property
    def name(self) -> str:
        """The kind, as signatures name it."""

    def mapped(self) -> TemperatureHead:
        """Returns this head, to be traced under `jax.vmap` over parameters and rows."""

    def init(self, key: Array) -> Params:
        """Returns fresh float32 parameters, which give T = 1."""

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest temperature that all tokens can be given."""

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature within reach."""

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[
        Float[Array, "batch time inner"],
        Float[Array, "inner vocab"],
        Float[Array, "batch time"] | None,
    ]:
        """Returns hidden states, unembedding and temperatures for `readout`.

        The temperature of a token depends on it and those before it in its segment only. It is None
        for a head that changes the unembedding instead.
        """

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "inner vocab"]:
        """Returns the unembedding that `apply` returns."""

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """Returns the head's part of `decoding.empty_cache`, in the `dtype` of the layers."""

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time inner"], Float[Array, "rows time"] | None, Any]:
        """Returns hidden states and temperatures of the first tokens of rows, and the cache.

        A row has so many tokens as its count says; the cache is that of these alone.
        """

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, "rows inner"], Float[Array, " rows"] | None, Any]:
        """Returns hidden state and temperature of one more token of each row, and the cache."""
