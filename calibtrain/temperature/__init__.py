"""Temperature heads: they divide the logits of a model, so that its confidence is calibrated."""

from calibtrain.temperature.build import make_head, tempered

__all__ = ["make_head", "tempered"]
