"""The kinds of temperature heads, which divide a model's logits, and their settings.

A run's head (`temperature:`) is trained with the model; a head with the same settings can also be
fitted afterwards.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from calibtrain.config.section import Section

Inner = Annotated[int, Field(ge=1, le=65_536)]


class NoTemperature(Section):
    """No temperature: the logits stay as the model makes them."""

    kind: Literal["none"] = "none"
    """No head."""

    @property
    def decay(self) -> bool:
        """Always false, as there are no parameters."""
        return False


class _Head(Section):
    """Settings of every head."""

    decay: bool = False
    """Apply weight decay to the head's matrices too."""


class _Bounded(_Head):
    """Settings of heads with one temperature per token."""

    limit: Annotated[float, Field(gt=1.001, le=1e4)] = 10.0
    """Bound of the temperatures, which stay between 1 / limit and limit."""


class GlobalTemperature(_Bounded):
    """One temperature for all tokens."""

    kind: Literal["global"] = "global"
    """One temperature for all tokens."""


class VectorScaling(_Head):
    """A factor and a bias per vocabulary entry: logits w z + b. Cannot be used with a soft cap."""

    kind: Literal["vector"] = "vector"
    """A factor and a bias per vocabulary entry."""


class _Mixed(_Head):
    """Settings of matrix scaling."""

    off_diagonal_penalty: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    """Weight of the mean squared entry of W off its diagonal, in a fit to a finished run (ODIR)."""


class MatrixScaling(_Mixed):
    """Logits W z + b with any matrix W, for small vocabularies. Cannot be used with a soft cap."""

    kind: Literal["matrix"] = "matrix"
    """Logits W z + b with any matrix W."""


class LowRankMatrixScaling(_Mixed):
    """Logits W z + b, where W is a diagonal and a low-rank matrix. Not with a soft cap."""

    kind: Literal["low_rank_matrix"] = "low_rank_matrix"
    """Logits W z + b, where W is a diagonal and a product of two thin matrices."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Columns of the two thin matrices."""


class PositionTemperature(_Bounded):
    """A temperature that depends on how many tokens of the document the model has read."""

    kind: Literal["position"] = "position"
    """A temperature by the number of tokens read."""


class LinearTemperature(_Bounded):
    """log T is linear in the last hidden state."""

    kind: Literal["linear"] = "linear"
    """log T is linear in the last hidden state."""


class MLPTemperature(_Bounded):
    """log T is computed by an MLP of one hidden layer on the last hidden state."""

    kind: Literal["mlp"] = "mlp"
    """log T is computed by an MLP of one hidden layer on the last hidden state."""
    hidden: Inner | None = None
    """Width of the hidden layer; null means the model's width."""


class AdaptiveTemperature(_Bounded):
    """log T is computed by a causal decoder layer on the last hidden states."""

    kind: Literal["adaptive"] = "adaptive"
    """A causal decoder layer on the last hidden states (adaptive temperature scaling)."""
    heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Attention heads; null means as many as the model has (one for an LSTM)."""


class ThermometerTemperature(_Bounded):
    """The mean inverse temperature over the inputs of a task, here the document so far."""

    kind: Literal["thermometer"] = "thermometer"
    """The mean inverse temperature of the document so far."""
    hidden: Inner | None = None
    """Width of each branch's hidden layer; null means the model's width."""


TemperatureConfig = Annotated[
    NoTemperature
    | GlobalTemperature
    | VectorScaling
    | MatrixScaling
    | LowRankMatrixScaling
    | PositionTemperature
    | LinearTemperature
    | MLPTemperature
    | AdaptiveTemperature
    | ThermometerTemperature,
    Field(discriminator="kind"),
]
HEADS: dict[str, Any] = {
    member.model_fields["kind"].default: member
    for member in get_args(get_args(TemperatureConfig)[0])
    if member is not NoTemperature
}
"""The sections of heads by kind."""


AFFINE = ("vector", "matrix", "low_rank_matrix")
"""Kinds that change the logits by more than a factor, and so which token is most probable."""
LARGEST_MATRIX = 4096
"""The largest vocabulary that `matrix` is allowed for: 64 MiB of parameters."""


def check_fits(head: Any, model: Any, vocab_size: int | None = None) -> None:
    """Raises a ValueError for a head that a model (a `ModelConfig`) cannot have.

    Args:
        head: the section of the head.
        model: the section of the model.
        vocab_size: number of vocabulary entries; None means that it is not known yet.
    """
    if isinstance(head, MatrixScaling) and vocab_size is not None and vocab_size > LARGEST_MATRIX:
        raise ValueError(
            f"temperature.kind matrix has a parameter for every pair of entries and is allowed up "
            f"to {LARGEST_MATRIX:,} entries, not {vocab_size:,}; use low_rank_matrix"
        )
    if head.kind in AFFINE and model.logit_soft_cap is not None:
        raise ValueError(
            f"temperature.kind {head.kind} does not go with model.logit_soft_cap "
            f"({model.logit_soft_cap}): it scales logits before the cap; use another kind, or null"
        )
    if isinstance(head, AdaptiveTemperature):
        heads = attention_heads(head, model)
        if model.width % heads or (model.width // heads) % 2:
            raise ValueError(
                f"model.width ({model.width}) must be temperature.heads ({heads}) times an even "
                "number"
            )


def attention_heads(head: AdaptiveTemperature, model: Any) -> int:
    """Returns the number of attention heads of an adaptive head on a model."""
    return head.heads or (model.heads if model.kind == "transformer" else 1)
