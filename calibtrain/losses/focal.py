"""The focal family: tokens that are already probable count less.

None of them is proper: the more a loss forgives high probabilities, the less reason a model has to
give them, and a language model, whose entropy is not small, becomes under-confident.
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
    """-(1 - p_y)^g log p_y (Lin et al., ICCV 2017; for calibration Mukhoti et al., NeurIPS 2020).

    Attributes:
        gamma: g >= 0; 0 is cross entropy.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    gamma: float = 3.0

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return safe_power(one_minus_exp(-stats.nll), self.gamma) * stats.nll


@dataclasses.dataclass(frozen=True)
class SampleDependentFocal(TokenLoss):
    """FLSD-53: focal loss with g = 5 where p_y < 0.2, and 3 elsewhere (Mukhoti et al. 2020).

    Attributes:
        gamma_below: g of the tokens whose probability is below the threshold.
        gamma_above: g of the others.
        threshold: of p_y.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    gamma_below: float = 5.0
    gamma_above: float = 3.0
    threshold: float = 0.2

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token; which power holds is no function that is differentiated."""
        rest = one_minus_exp(-stats.nll)
        is_below = jnp.exp(-stats.nll) < self.threshold
        factor = jnp.where(
            is_below, safe_power(rest, self.gamma_below), safe_power(rest, self.gamma_above)
        )
        return factor * stats.nll


@dataclasses.dataclass(frozen=True)
class DualFocal(TokenLoss):
    """-(1 - p_y + p_j)^g log p_y, p_j the largest p below p_y (Tao et al., ICML 2023).

    Attributes:
        gamma: g >= 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "runner_up")
    gamma: float = 5.0

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token; 1 - p_y alone where no entry is less probable than the target."""
        return safe_power(one_minus_exp(-stats.nll) + stats.runner_up, self.gamma) * stats.nll
