"""The curves of a run in TensorBoard or Weights & Biases, while it trains."""

from calibtrain.trackers.listening import require_trackers, tracked

__all__ = ["require_trackers", "tracked"]
