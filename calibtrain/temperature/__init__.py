"""Temperatures: what divides the logits of a trained model, so that it knows what it knows."""

from calibtrain.temperature.scalar import FittedTemperature, fit_temperature

__all__ = ["FittedTemperature", "fit_temperature"]
