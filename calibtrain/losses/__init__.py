"""Losses: small pure functions of `TokenStats`. Each declares the fields that it reads."""

from calibtrain.losses.cross_entropy import CrossEntropy

__all__ = ["CrossEntropy"]
