"""Heads that a comparison fitted, kept in the cache: one that was stopped goes on with the rest.

They are under `$CALIBTRAIN_CACHE/fitted` and may be removed. Nothing there is a head of the run.
"""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.config import TemperatureConfig
from calibtrain.errors import UserError
from calibtrain.fitting.head import FittedHead, Recipe
from calibtrain.losses import CrossEntropy
from calibtrain.posthoc.fit import checkpoint_of, fit_on
from calibtrain.posthoc.hidden_text import HiddenText, Progress
from calibtrain.runs.loading import SavedRun
from calibtrain.temperature import make_head
from calibtrain.temperature.saved_head import ABOUT, read_head, write_head

_log = logging.getLogger(__name__)
_FACTS = ("nll_before", "nll_after", "steps", "held_out", "seconds")


def fit_once(
    text: HiddenText,
    config: TemperatureConfig,
    saved: SavedRun,
    recipe: Recipe | None,
    progress: Progress,
) -> tuple[FittedHead, bool]:
    """Returns a head fitted to a text by its nll, and whether it had been fitted before.

    Args:
        text: its hidden states; `text.key` changes with the checkpoint, the text and its extent.
        config: the configuration of the head.
        saved: the run.
        recipe: how the head is fitted, unless the fit is exact.
        progress: is told the number of steps done, and of all.
    """
    folder, kind = _folder(text, config, saved, recipe), config.kind
    if (folder / kind / ABOUT).is_file():
        try:
            return _read(folder, config, saved), True
        except UserError as error:
            _log.warning("note: %s; it is fitted again", error)
    fitted = fit_on(text, config, saved, CrossEntropy(), recipe, True, progress)
    about = {
        "fitted_on": {"corpus": text.key, "split": "validation"},
        "checkpoint": checkpoint_of(saved),
        **{name: getattr(fitted, name) for name in _FACTS},
    }
    write_head(folder, kind, config, fitted.params, about)
    return fitted, False


def _read(folder: Path, config: TemperatureConfig, saved: SavedRun) -> FittedHead:
    head = make_head(config, saved.config.model, saved.tokenizer.vocab_size)
    assert head is not None
    kept = read_head(folder, config.kind)
    about: dict[str, Any] = {name: kept.about.get(name, 0) for name in _FACTS}
    return FittedHead(params=kept.read_params(head), **about)


def _folder(
    text: HiddenText, config: TemperatureConfig, saved: SavedRun, recipe: Recipe | None
) -> Path:
    """Returns a folder whose name changes with anything that changes the fitted head."""
    how = dataclasses.asdict(recipe or Recipe())
    parts = [text.key, config.model_dump(mode="json"), how, calibtrain.__version__]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return saved.cache / "fitted" / digest[:24]
