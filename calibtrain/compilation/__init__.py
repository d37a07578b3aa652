"""A run's programs compiled for devices that are not here. Imports no JAX: see `target.prepare`."""
