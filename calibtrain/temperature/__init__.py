"""Temperature heads: they divide the logits of a model, so that its confidence is calibrated."""

from calibtrain.temperature.build import make_head, network_of, tempered

__all__ = ["make_head", "network_of", "tempered"]
