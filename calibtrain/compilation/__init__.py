"""Compiles a run's programs for devices that this machine does not have.

JAX is not imported here, because `target.prepare` must run before.
"""
