"""The heads of a run, and which of them cannot be used: `calibtrain temperature list`."""

from pathlib import Path
from typing import Any

from calibtrain.config import Config
from calibtrain.errors import UserError
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import another_checkpoint, checkpoint_facts
from calibtrain.storage.places import place
from calibtrain.temperature import make_head
from calibtrain.temperature.saved_head import ABOUT, head_names, read_head, unfinished_names


def describe_heads(path: Path) -> list[dict[str, Any]]:
    """Describes the heads of a run, in the order of their names.

    Args:
        path: the run folder.

    Returns:
        For each head the entries of head.json (for a damaged one only the name), `usable`, and if
        it is not, the `problem`: the head is damaged, or was not fitted to the latest checkpoint.

    Raises:
        UserError: for a folder that holds no run, or whose run.json is damaged.
    """
    run = RunFolder(place(path))
    config = run.read_config()
    run.read_summary()  # refuses a run of an unknown format
    latest = checkpoint_facts(run, config) if checkpoint.steps_saved(run.checkpoints) else None
    found = [_describe(run, config, name, latest) for name in head_names(run.heads)]
    for name in unfinished_names(run.heads):
        problem = f"{run.heads / name}: has no {ABOUT}; remove it, fit again"
        found.append({"name": name, "usable": False, "problem": problem})
    return sorted(found, key=lambda head: head["name"])


def _describe(
    run: RunFolder, config: Config, name: str, latest: dict[str, Any] | None
) -> dict[str, Any]:
    try:
        head = read_head(run.heads, name)
        network = make_head(head.config, config.model, run.read_tokenizer().vocab_size)
        assert network is not None
        head.read_params(network)
    except UserError as error:
        return {"name": name, "usable": False, "problem": str(error)}
    if latest is None:
        problem = "the run has no checkpoint"
    elif other := another_checkpoint(head, latest):
        problem = f"was fitted to {other}"
    else:
        return {**head.about, "usable": True}
    return {**head.about, "usable": False, "problem": problem}
