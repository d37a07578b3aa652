"""A run that goes on is recognised by what it is made of, not by how its files are named.

The text of a run, its tokenizer, and the base and examples of a fine-tuning are known by their
hashes. A configuration that names them by other paths still is that of the run, and the run keeps
the paths it was begun with, so that its hash stays. Likewise a setting that another one leaves
without effect: such settings were accepted once and are refused now, so a user removes them.
"""

import dataclasses
import functools
from typing import Any

from calibtrain.config import Config, overridden, with_value
from calibtrain.data.tokenizers.training_sample import SAMPLE
from calibtrain.errors import UserError
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.training.plan import Plan


def as_begun(config: Config, run: RunFolder) -> Config:
    """Returns a configuration in the spelling of a run that is there.

    Args:
        config: what is asked for.
        run: the run that is to go on.

    Returns:
        The configuration with the run's settings that have no effect in either, and with its paths.
        Paths of a fine-tuning are taken over if the hashes agree; those of a tokenizer and of the
        user's files in any case, because their hashes are compared once they are read.
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


def with_own_sample(config: Config, run: RunFolder) -> Config:
    """Returns a configuration whose tokenizer is trained on as much of the text as that of a run.

    Earlier versions trained on all of any text. A run that they began goes on with that tokenizer,
    and `as_begun_plan` gives it back its own configuration.

    Args:
        config: what is asked for.
        run: the run that is to go on.
    """
    wanted, manifest = config.tokenizer.sample_bytes, run.read_tokenizer().manifest
    sampled = SAMPLE in manifest.settings or manifest.kind not in ("unigram", "bpe")
    if sampled or wanted is None or manifest.training_bytes <= wanted:
        return config
    whole = config.tokenizer.model_copy(update={"sample_bytes": None})
    return config.model_copy(update={"tokenizer": whole})


def as_begun_plan(plan: Plan, begun: Config, run: RunFolder) -> Plan:
    """Returns a plan for the configuration that `as_begun` made of its own.

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
    """Returns settings of a run that have no effect in it, nor in one that leaves them out."""
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
    """Returns the content hash of the text that a run is trained on; None where it is unknown."""
    if saved := checkpoint.steps_saved(run.checkpoints):
        return checkpoint.read_identity(run.checkpoints, saved[-1]).corpus
    summary = run.read_summary()
    return None if summary is None else summary.corpus.content_hash
