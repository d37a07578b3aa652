"""Detection of arms that are written differently but would train the same."""

import json
from collections.abc import Sequence
from typing import Any

from calibtrain.config import WAYS_TO_COMPUTE, Config, overridden, set_path
from calibtrain.config.temperature import AdaptiveTemperature, attention_heads
from calibtrain.errors import UserError
from calibtrain.training.plan import Plan


def refuse_alike(arms: Sequence[tuple[str, Plan]]) -> None:
    """Refuses two arms of a grid that would be the same run.

    Args:
        arms: names and plans, under the controls.

    Raises:
        UserError: for two such arms; it names both.
    """
    names: dict[str, str] = {}
    for name, plan in arms:
        trained = json.dumps(what_is_trained(plan), sort_keys=True)
        if trained in names:
            raise UserError(
                f"grid: arms {names[trained]} and {name} would train and measure the very same: "
                "what sets them apart comes to nothing (a tokenizer, budget, context or size that "
                "is equal in the end, or that a control makes equal; or when checkpoints and lines "
                "are written); remove one of them"
            )
        names[trained] = name


def what_is_trained(plan: Plan) -> dict[str, Any]:
    """Returns a description of a run that is equal for two runs that train the same.

    The text is represented by its hash and splits, the tokenizer by its hash, budget and context by
    steps and tokens. Sizes are written out, and settings without effect have their defaults.
    """
    config = plan.config
    tree = config.model_dump(mode="json", exclude=WAYS_TO_COMPUTE)
    for key, _, _, default in overridden(config):
        if not key.startswith("loss."):
            set_path(tree, key, default)
    del tree["checkpoints"], tree["log_every"]  # when things are written changes no result
    provenance = plan.corpus.provenance.to_dict()
    tree["corpus"] = [provenance["content_hash"], provenance["splits"]]
    tree["tokenizer"] = plan.tokenizer.hash
    tree["context"] = plan.context
    tree["budget"] = [plan.budget.steps, plan.budget.tokens, plan.budget.bytes]
    tree["loss"] = _terms(config, plan.budget.steps)
    model, temperature = config.model, tree["temperature"]
    if model.kind == "transformer":
        sizes = {"head_size": model.size_of_head, "kv_heads": model.kv_heads or model.heads}
        tree["model"] |= {**sizes, "mlp_ratio": None, "feed_forward_width": model.mlp_width}
    if "hidden" in temperature:
        temperature["hidden"] = temperature["hidden"] or model.width
    if isinstance(config.temperature, AdaptiveTemperature):
        temperature["heads"] = attention_heads(config.temperature, model)
    return tree


def _terms(config: Config, steps: int) -> list[dict[str, Any]]:
    """Returns the terms of the loss that count in a run of `steps` steps."""
    return [
        term.model_dump(mode="json")
        for term in config.loss
        if term.weight and term.from_step < steps
    ]
