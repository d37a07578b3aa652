"""Temperatures: what divides the logits of a model, so that it knows what it knows."""

from calibtrain.temperature.build import make_head, network_of, tempered
from calibtrain.temperature.scalar import FittedTemperature, fit_temperature

__all__ = ["FittedTemperature", "fit_temperature", "make_head", "network_of", "tempered"]
