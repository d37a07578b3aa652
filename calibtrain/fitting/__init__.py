"""A temperature or a head fitted to the hidden states of a frozen model."""

from calibtrain.fitting.root_finding import FittedTemperature, fit_temperature

__all__ = ["FittedTemperature", "fit_temperature"]
