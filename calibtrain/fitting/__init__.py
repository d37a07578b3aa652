"""Fitting a temperature or a head to the states of a frozen model."""
