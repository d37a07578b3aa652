"""Losses: small pure functions of `TokenStats`. Each declares the statistics that it reads.

`loss(stats, weights)` is a number. A `TokenLoss` is a mean over tokens (`loss.per_token(stats)`); a
`BatchLoss` couples them. Which of them a run is trained on, and with which weights, says its
configuration (`loss:`).
"""

from calibtrain.losses.averages import DCA, MDCA, AvUC
from calibtrain.losses.cross_entropy import CrossEntropy, LabelSmoothing
from calibtrain.losses.focal import DualFocal, Focal, SampleDependentFocal
from calibtrain.losses.kernel import MMCE
from calibtrain.losses.loss import BatchLoss, TokenLoss
from calibtrain.losses.posterior import PosCal
from calibtrain.losses.preference import DPO
from calibtrain.losses.selective import BalancedSelectiveSmoothing, SelectiveSmoothing
from calibtrain.losses.shape import Brier, EntropyPenalty, MarginSmoothing, ZLoss
from calibtrain.losses.soft_bins import DECE, SoftBinnedECE

__all__ = [
    "DCA",
    "DECE",
    "DPO",
    "MDCA",
    "MMCE",
    "AvUC",
    "BalancedSelectiveSmoothing",
    "BatchLoss",
    "Brier",
    "CrossEntropy",
    "DualFocal",
    "EntropyPenalty",
    "Focal",
    "LabelSmoothing",
    "MarginSmoothing",
    "PosCal",
    "SampleDependentFocal",
    "SelectiveSmoothing",
    "SoftBinnedECE",
    "TokenLoss",
    "ZLoss",
]
