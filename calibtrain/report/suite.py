"""The calibration suite: every metric of an evaluation, named and explained in one line."""

from calibtrain.metrics import quantities
from calibtrain.metrics.quantities import QUANTITIES, Quantity, quantity_name

Metric = Quantity
SUITE = tuple(QUANTITIES[key] for key in quantities.SUITE)
"""In the order of their tables."""


def shown_metric(metric: Metric, value: float) -> str:
    """A metric rounded for reading."""
    return metric.show(value)


def metric_name(key: str) -> str:
    """The name of a result key, for a list of figures."""
    return quantity_name(key)
