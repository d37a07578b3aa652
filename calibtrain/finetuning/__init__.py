"""Fine-tuning: a model that is there already, trained on examples, its calibration measured."""

from calibtrain.finetuning.run import finetune, finetune_together
from calibtrain.finetuning.settings import resolve

__all__ = ["finetune", "finetune_together", "resolve"]
