"""A run that goes on is known by what it was made of, not by how that was written at first.

The text of a run, its tokenizer and, where it is fine-tuned, its base and its examples are known by
their hashes. A configuration that names them by other paths is then that of the run, which keeps
the spelling it was begun with: its hash stays what it is. So does a setting that another leaves
without effect, which was accepted once and is refused now: a user removes it and goes on.
"""

import dataclasses
import functools
from typing import Any

from calibtrain.config import Config, overridden, with_value
from calibtrain.errors import UserError
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.training.plan import Plan


def as_begun(config: Config, run: RunFolder) -> Config:
    """A configuration spelled as that of a run that is there.

    Args:
        config: what is asked for.
        run: what is to go on.

    Returns:
        The configuration with the run's settings that have no effect in either, and with its own
        paths: those of a fine-tuning, if the hashes agree; those of a tokenizer and of the user's
        files, whose hashes are compared once they are read.
    """
    there = run.read_config()
    config = with_value(config, _without_effect(config, there))
    changes: dict[str, object] = {}
    mine, theirs = config.finetune, there.finetune
    if mine is not None and theirs is not None:
        known_by = (mine.started_from, mine.examples)
        if None not in known_by and known_by == (theirs.started_from, theirs.examples):
            paths = {"run": theirs.run, "paths": theirs.paths}
            changes["finetune"] = mine.model_copy(update=paths)
    if _are_files(config) and _are_files(there):
        spelled = {"name": there.corpus.name, "paths": there.corpus.paths}
        changes["corpus"] = config.corpus.model_copy(update=spelled)
    if config.tokenizer.path is not None and there.tokenizer.path is not None:
        path = {"path": there.tokenizer.path}
        changes["tokenizer"] = config.tokenizer.model_copy(update=path)
    return config.model_copy(update=changes)


def as_begun_plan(plan: Plan, begun: Config, run: RunFolder) -> Plan:
    """The plan of a configuration, with what `as_begun` made of it.

    Raises:
        UserError: where the paths that differ lead to another text than the run was begun with.
    """
    if plan.config == begun:
        return plan
    if plan.config.corpus != begun.corpus:
        found = plan.corpus.provenance.content_hash
        if text_of(run) != found:
            run.check_config(plan.config.model_copy(update={"finetune": begun.finetune}))
            raise UserError(f"{run.path}: was begun with another text; choose another --run")
    return dataclasses.replace(plan, config=begun, corpus=plan.corpus.named(begun.corpus.name))


def _without_effect(config: Config, there: Config) -> dict[str, Any]:
    """Settings of a run that have no effect in it, nor in a configuration that leaves them out."""
    found = {}
    for key, value, _, default in overridden(there):
        try:
            own = functools.reduce(getattr, key.split("."), config)
        except AttributeError:  # it has no such section, or they are in a list
            continue
        if own == default:
            found[key] = value
    try:
        idle = {key for key, *_ in overridden(with_value(config, found))}
    except UserError:  # they do not even fit: it is another run
        return {}
    return {key: value for key, value in found.items() if key in idle}


def _are_files(config: Config) -> bool:
    return config.corpus.name.partition(":")[0] == "files"


def text_of(run: RunFolder) -> str | None:
    """The content hash of the text that a run is trained on; None where none is known."""
    if saved := checkpoint.steps_saved(run.checkpoints):
        return checkpoint.read_identity(run.checkpoints, saved[-1]).corpus
    summary = run.read_summary()
    return None if summary is None else summary.corpus.content_hash
