"""Losses: small pure functions of `TokenStats`. Each declares the statistics that it reads.

`loss(stats, weights)` returns one number. A `TokenLoss` is the weighted mean of one number per
token (`loss.per_token(stats)`); a `BatchLoss` couples the tokens of a batch. The key `loss:` of a
run's configuration says which losses it minimises, and with which weights.

Example:
    >>> import jax.numpy as jnp
    >>> from calibtrain.readout import statistics
    >>> logits = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]))
    >>> stats = statistics(logits, labels=jnp.array([0, 2]))
    >>> weights = jnp.ones(2)
    >>> print(CrossEntropy().per_token(stats))
    [0.6931 2.3026]
    >>> print(f"{CrossEntropy()(stats, weights):.4f}")
    1.4979
    >>> print(f"{DCA()(stats, weights):.4f}")  # accuracy 0.5, mean confidence 0.65
    0.1500
"""

from calibtrain.losses.averages import DCA, MDCA, AvUC
from calibtrain.losses.candidates import CandidateMargin, CandidateSoftmax
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
    "CandidateMargin",
    "CandidateSoftmax",
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
