"""One temperature for all tokens, fitted exactly (Guo et al., ICML 2017).

With inverse temperature b, the nll of softmax(b z) is convex in b, and its derivative is

    d nll / d b = (nll(b) - H(b)) / b,        H(b) the entropy of softmax(b z),

because nll = log Z - b z_y, H = log Z - b E[z], and the derivative of log Z is E[z]. So the best
temperature is where mean nll and mean entropy agree. It is the only root of a monotone function and
is found by bracketing, to the precision of the sums, with no schedule to tune. There the model's
entropy rate is calibrated, too (Braverman et al., ICML 2020).
"""

import dataclasses
import math
from collections.abc import Callable

from calibtrain.errors import NonFiniteError

LOWEST, HIGHEST = 0.01, 100.0
TOLERANCE = 1e-6
"""Precision of log T."""

Likelihood = Callable[[float], tuple[float, float]]
"""Temperature -> (mean nll, mean entropy), in nats, over the text that is fitted to."""


@dataclasses.dataclass(frozen=True)
class FittedTemperature:
    """The temperature of the lowest nll.

    Attributes:
        temperature: divides the logits; above 1 if the model was over-confident.
        nll_before: mean nll at temperature 1, in nats.
        nll_after: mean nll at this temperature; never above `nll_before`.
        passes: how many times the text was read.
    """

    temperature: float
    nll_before: float
    nll_after: float
    passes: int


def fit_temperature(likelihood: Likelihood) -> FittedTemperature:
    """Returns the temperature in [0.01, 100] that minimises the mean nll.

    Args:
        likelihood: is evaluated at about ten temperatures.

    Raises:
        NonFiniteError: if it returns a number that is not finite.

    Example:
        A model whose logits are three times too large, for two entries and labels that are right
        three times in four:

        >>> import numpy as np
        >>> def likelihood(temperature):
        ...     p = 1 / (1 + np.exp(-3 * np.log(3) / temperature))
        ...     nll = -(0.75 * np.log(p) + 0.25 * np.log1p(-p))
        ...     entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
        ...     return float(nll), float(entropy)
        >>> round(fit_temperature(likelihood).temperature, 4)
        3.0
    """
    from scipy.optimize import brentq

    seen: dict[float, tuple[float, float]] = {}

    def at(log_temperature: float) -> tuple[float, float]:
        if log_temperature not in seen:
            seen[log_temperature] = likelihood(math.exp(log_temperature))
            if not all(map(math.isfinite, seen[log_temperature])):
                raise NonFiniteError(f"likelihood: {seen[log_temperature]} is not finite")
        return seen[log_temperature]

    def slope(log_temperature: float) -> float:
        """d nll / d b, which falls as the temperature rises."""
        nll, entropy = at(log_temperature)
        return (nll - entropy) * math.exp(log_temperature)

    before = at(0.0)[0]
    low, high = _bracket(slope)
    found = low if low == high else brentq(slope, low, high, xtol=TOLERANCE, rtol=1e-12)
    # the best of all that were tried, so that rounding cannot make it worse than no temperature
    best = min({found, 0.0, *seen}, key=lambda log_temperature: at(log_temperature)[0])
    return FittedTemperature(math.exp(best), before, at(best)[0], len(seen))


def _bracket(slope: Callable[[float], float]) -> tuple[float, float]:
    """Two log temperatures with the root between them; twice the nearest one if it lies outside."""
    if slope(0.0) == 0:
        return 0.0, 0.0
    up = slope(0.0) > 0  # over-confident: the temperature must rise
    end = math.log(HIGHEST if up else LOWEST)
    near, step = 0.0, 0.25
    while near != end:
        far = min(end, near + step) if up else max(end, near - step)
        if (slope(far) > 0) != up:
            return min(near, far), max(near, far)
        near, step = far, 2 * step
    return end, end
