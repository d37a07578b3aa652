"""Ablations: a base configuration, varied over a grid, under stated controls."""

from calibtrain.ablation.controls import ControlledArm, FailedArm, apply_controls
from calibtrain.ablation.runner import run_study
from calibtrain.ablation.study import Arm, expand

__all__ = ["Arm", "ControlledArm", "FailedArm", "apply_controls", "expand", "run_study"]
