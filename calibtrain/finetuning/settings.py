"""From a file of settings and the run it starts from to the configuration of a fine-tuning.

What the model is comes from that run; what it is trained on, and how, from the file. The result is
the configuration of a run like any other, which also says by hash what it started from.
"""

import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from calibtrain.config import (
    WAYS_TO_COMPUTE,
    Config,
    FinetuningConfig,
    apply_overrides,
    check_effects,
    read_text,
    to_tree,
    validate,
)
from calibtrain.config.finetuning import LINEAR_MAPS, LSTM_MAPS
from calibtrain.data.batches.examples import split_examples
from calibtrain.errors import UserError
from calibtrain.finetuning.examples import examples_of
from calibtrain.models import build
from calibtrain.models.adapter import linear_maps
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import latest_step
from calibtrain.storage.places import in_bucket, place

_log = logging.getLogger(__name__)

INHERITED = ("corpus", "tokenizer", "context", "model", "temperature")
"""Sections that the run it starts from decides."""


def resolve(path: Path, overrides: Iterable[str] = (), run: Path | None = None) -> Config:
    """The configuration of a fine-tuning.

    Args:
        path: YAML with a section `finetune`.
        overrides: `key.path=value`.
        run: the folder that it is for: where it was begun, it goes on with the adapters it has.

    Raises:
        UserError: for what is not allowed, a run that is none, and examples that cannot be read.
    """
    overrides = list(overrides)
    text = read_text(path)
    tree = apply_overrides(to_tree(text, str(path)), overrides)
    given = tree.get("finetune")
    if not isinstance(given, Mapping):
        raise UserError(
            f"{path}: has no section finetune; to train from scratch: calibtrain train {path}"
        )
    if not any(item.startswith("finetune.paths") for item in overrides):
        given = tree["finetune"] = {**given, **_paths_of_file(given, path.parent)}
    for name in ("started_from", "examples"):
        if name in given:
            raise UserError(f"{path}: finetune.{name}: is filled in, not given; remove it")
    # what is wrong with it is said before anything is looked for
    with_budget = {"budget": {"steps": 1}, **tree}
    asked = validate(Config, with_budget, str(path), overrides)
    check_effects(asked, text, str(path), overrides)
    settings, rows = asked.finetune, asked.batch.rows
    assert settings is not None
    if settings.objective != "sft" and "loss" in tree:
        raise UserError(
            f"{path}: loss: is for finetune.objective: sft; {settings.objective} has its own, "
            "remove it"
        )
    base = RunFolder(place(settings.run))
    own = base.read_config()
    allowed = WAYS_TO_COMPUTE["model"]
    for name in INHERITED:
        more = set(tree.get(name) or ()) - (allowed if name == "model" else set())
        if more:
            raise UserError(
                f"{path}: {name}: comes from the run that is fine-tuned ({settings.run}); remove it"
            )
    inherited = {name: own.model_dump(mode="json")[name] for name in INHERITED}
    inherited["model"] = {**inherited["model"], **tree.get("model", {})}
    examples, digest = examples_of(settings)
    training, _ = split_examples(examples, settings.validation_fraction)
    each = len(examples[0].answers)
    if rows % each:
        raise UserError(
            f"{path}: batch.rows: {rows} is not a multiple of {each}, the rows that the answers of "
            f"an example take (finetune.objective: {settings.objective})"
        )
    tree = {**tree, **inherited}
    if "budget" not in tree:
        steps = max(1, math.ceil(settings.epochs * len(training) * each / rows))
        tree["budget"] = {"steps": steps}
    elif set(tree["budget"]) != {"steps"}:
        raise UserError(
            f"{path}: budget: a fine-tuning takes finetune.epochs, or budget.steps; got "
            f"{', '.join(tree['budget'])}"
        )
    elif settings.epochs != type(settings).model_fields["epochs"].default:
        message = (
            f"{path}: finetune.epochs: {settings.epochs:g} has no effect with budget.steps: "
            f"{tree['budget']['steps']}; remove one of them"
        )
        said = any(item.startswith("budget") for item in overrides)
        if not said or any(item.startswith("finetune.epochs") for item in overrides):
            raise UserError(message)
        _log.warning("note: %s", message)  # an override is the user's last word
    tree["finetune"] = {
        **given,
        "started_from": _identity(base),
        "examples": digest,
    }
    if settings.lora is not None:
        asked_for = given["lora"].get("maps")
        maps = _adapted_maps(f"{path}: finetune.lora.maps", asked_for, own, _begun(run))
        tree["finetune"]["lora"] = {**given["lora"], "maps": maps}
    return validate(Config, tree, str(path), overrides)


def _paths_of_file(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The examples that a file names: those that are not here but beside the file are read there.

    Args:
        given: the file's section `finetune`.
        folder: where the file is.
    """
    paths = given.get("paths")
    if not isinstance(paths, list) or in_bucket(folder):
        return {}

    def found(path: Any) -> Any:
        beside = folder / str(path)
        absent = isinstance(path, str) and "://" not in path and not os.path.exists(path)
        return str(beside) if absent and beside.is_file() else path

    return {"paths": [found(path) for path in paths]}


def _adapted_maps(key: str, asked: Any, base: Config, begun: FinetuningConfig | None) -> list[str]:
    """The maps of a section `finetune.lora`, which the model's layers have.

    Args:
        key: what messages begin with.
        asked: the maps that were asked for; None means those that are there.
        base: of the run that is fine-tuned.
        begun: the section `finetune` of what goes on. It may hold maps which are not there: once,
            they were passed over.

    Raises:
        UserError: for a map that the layers do not have, or that is named twice.
    """
    shapes = jax.eval_shape(build(base.model, 256).init, jax.random.key(0))
    every = LSTM_MAPS if base.model.kind == "lstm" else LINEAR_MAPS
    there = [name for name in every if name in linear_maps(shapes)]
    wanted = list(asked or every)
    if begun is not None and begun.lora is not None and set(begun.lora.maps) & set(there):
        before = list(begun.lora.maps)
        if before == (list(LINEAR_MAPS) if asked is None else wanted):
            return before
    if asked is None:
        return wanted
    absent = [name for name in wanted if name not in there]
    if absent:
        raise UserError(
            f"{key}: the {base.model.kind} that is fine-tuned has no linear map called "
            f"{', '.join(absent)}; allowed: {', '.join(there)}"
        )
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise UserError(f"{key}: {', '.join(twice)} is named twice; name each map once")
    return wanted


def _begun(run: Path | None) -> FinetuningConfig | None:
    """The section of the fine-tuning that a folder holds, if it holds one."""
    if run is None or not (folder := RunFolder(place(run))).exists:
        return None
    return folder.read_config().finetune


def _identity(base: RunFolder) -> str:
    """The latest checkpoint of a run: hash of its configuration, and its step."""
    step = latest_step(base)
    return f"{base.require_summary().config_hash}@{step}"
