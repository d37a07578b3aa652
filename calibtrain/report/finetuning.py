"""What a fine-tuning is, in facts: where it starts, its objective, its examples, what it trains."""

from typing import Any

from calibtrain.figures.display import plural, setting_value
from calibtrain.report.blocks import Block, Pairs, note
from calibtrain.runs.results import RunResults

_OBJECTIVES = {
    "sft": "sft, on answers",
    "dpo": "dpo, on pairs of answers",
    "softmax": "softmax, on the candidates of questions",
    "margin": "margin, on the candidates of questions",
}


def finetuning_blocks(run: RunResults) -> list[Block]:
    """Returns the facts of a fine-tuning; nothing for another run."""
    found = run.finetune
    if found is None:
        return []
    objective = str(found.get("objective", "sft"))
    rows = [
        ("Base run", base_run(run)),
        ("Objective", _OBJECTIVES.get(objective, objective)),
        ("Examples", setting_value(found.get("paths", []))),
        ("Epochs", setting_value(found.get("epochs"))),
        ("Trained", _trained(run)),
    ]
    if objective == "dpo":
        rows.insert(2, ("Beta", setting_value(found.get("beta"))))
    text = (
        f"Every evaluation measures the corpus of the base run ({run.record.corpus.name}) and the "
        "held-out answers."
    )
    return [Pairs(rows), *note(text)]


def base_run(run: RunResults) -> str:
    """Returns the run that a fine-tuning starts from, with its step."""
    name = str((run.finetune or {}).get("run", "unknown"))
    step = (run.record.started_from or {}).get("step")
    return name if step is None else f"{name}, step {step:,}"


def _trained(run: RunResults) -> str:
    facts: dict[str, Any] = run.record.trained or {}
    lora = (run.finetune or {}).get("lora")
    what = "every parameter" if lora is None else f"adapters of rank {lora.get('rank')}"
    count = facts.get("parameters")
    return what if count is None else f"{what} ({plural(count, 'parameter')})"
