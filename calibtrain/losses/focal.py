"""The focal family: tokens whose target is already probable count less.

None of these losses is proper. The less a loss asks for high probabilities, the less reason a model
has to give them, and a language model, whose entropy is not small, becomes under-confident.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import TokenLoss, one_minus_exp, safe_power
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Focal(TokenLoss):
    """Focal loss: -(1 - p_y)^g log p_y.

    Attributes:
        gamma: g >= 0; 0 gives cross entropy.

    Example:
        >>> stats = TokenStats(nll=-jnp.log(jnp.array([0.5, 0.2])))
        >>> print(Focal(gamma=2.0).per_token(stats))
        [0.1733 1.03  ]

    References:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
        Mukhoti et al., "Calibrating Deep Neural Networks using Focal Loss", NeurIPS 2020.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    gamma: float = 3.0

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        return safe_power(one_minus_exp(-stats.nll), self.gamma) * stats.nll


@dataclasses.dataclass(frozen=True)
class SampleDependentFocal(TokenLoss):
    """Sample-dependent focal loss (FLSD-53): focal loss with g = 5 where p_y < 0.2, else g = 3.

    Attributes:
        gamma_below: g where p_y is below the threshold.
        gamma_above: g elsewhere.
        threshold: of p_y.

    Example:
        >>> stats = TokenStats(nll=-jnp.log(jnp.array([0.5, 0.1])))
        >>> print(SampleDependentFocal().per_token(stats))
        [0.0866 1.3597]

    References:
        Mukhoti et al., "Calibrating Deep Neural Networks using Focal Loss", NeurIPS 2020.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    gamma_below: float = 5.0
    gamma_above: float = 3.0
    threshold: float = 0.2

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats.

        The choice of exponent is piecewise constant, so no gradient flows through it.
        """
        rest = one_minus_exp(-stats.nll)
        is_below = jnp.exp(-stats.nll) < self.threshold
        factor = jnp.where(
            is_below, safe_power(rest, self.gamma_below), safe_power(rest, self.gamma_above)
        )
        return factor * stats.nll


@dataclasses.dataclass(frozen=True)
class DualFocal(TokenLoss):
    """Dual focal loss: -(1 - p_y + p_j)^g log p_y, where p_j is the largest probability below p_y.

    Attributes:
        gamma: g >= 0; 0 gives cross entropy.

    Example:
        >>> stats = TokenStats(nll=-jnp.log(jnp.array([0.5])), runner_up=jnp.array([0.3]))
        >>> print(DualFocal(gamma=5.0).per_token(stats))  # 0.8^5 log 2
        [0.2271]

    References:
        Tao et al., "Dual Focal Loss for Calibration", ICML 2023.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "runner_up")
    gamma: float = 5.0

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats. p_j is 0 where no entry is less probable than y."""
        return safe_power(one_minus_exp(-stats.nll) + stats.runner_up, self.gamma) * stats.nll
