"""Losses: small pure functions of `TokenStats`. Each declares the fields that it reads."""

from calibtrain.losses.cross_entropy import CrossEntropy
from calibtrain.losses.selective import SelectiveSmoothing

__all__ = ["CrossEntropy", "SelectiveSmoothing"]
