"""A temperature head fitted to a run's latest checkpoint: `calibtrain temperature fit`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import calibtrain
from calibtrain import losses
from calibtrain.config import HEADS, TemperatureConfig, validate
from calibtrain.config.temperature import AFFINE, check_fits
from calibtrain.data.corpora.named import Columns
from calibtrain.errors import UserError
from calibtrain.fitting.balanced_loss import Balanced, share_right
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.head import FittedHead, Recipe, TokenLoss, fit_head
from calibtrain.posthoc.hidden_text import HiddenText, Progress, read_hidden_text
from calibtrain.runs.latest_checkpoint import checkpoint_facts
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.temperature import make_head
from calibtrain.temperature.bounded import bounded_log_temperature, raw_of
from calibtrain.temperature.saved_head import SavedHead, check_name, require_free, write_head

LOSSES = ("nll", "selective_smoothing")


def fit_temperature_head(
    path: Path,
    kind: str,
    *,
    name: str | None = None,
    corpus: str | None = None,
    field: str | None = None,
    split: str = "validation",
    limit: int | None = None,
    loss: str = "nll",
    alpha: float = 0.5,
    balanced: bool = False,
    settings: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    keep: bool = True,
    replace: bool = False,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> SavedHead:
    """Fit a head to a run's latest checkpoint, whose own parameters stay as they are.

    Args:
        path: the run folder.
        kind: the kind of head, one of `config.HEADS`.
        name: its name from then on; by default made of kind, loss and corpus.
        corpus: the text to fit on; None means the run's own.
        field: the field of its documents that is read; None means that of the run's own.
        split: train or validation.
        limit: about how many bytes of text are read; None means the whole split.
        loss: one of `LOSSES`.
        alpha: the parameter of selective smoothing.
        balanced: whether right and wrong tokens are weighted by the inverse of their share.
        settings: settings of the head, by their keys.
        recipe: how the head is fitted, unless the fit is exact.
        keep: whether the model's hidden states are kept in the cache.
        replace: whether a head of that name may be replaced.
        cache: the folder of prepared data.
        say: is told in words what is done with the hidden states.
        progress: is told the number of batches or steps done, and of all.

    Returns:
        The head, as it is saved in the run's folder.

    Raises:
        UserError: for options that do not go together, a test split, and as `evaluate_run` does.
    """
    check_request(split, loss, alpha)
    if balanced and kind in AFFINE:
        raise UserError(
            f"--balanced: is not allowed with --head {kind}, which changes what is right and "
            "wrong; allowed with heads that give a temperature"
        )
    config = head_settings(kind, settings or {})
    name = check_name(name or default_name(kind, loss, balanced, corpus))
    # groups are not read here: a corpus without the field of the run's own need not have one
    columns = {corpus: Columns(field, None if corpus is None else "")}
    with opened(path, cache, columns=columns, writes=True) as saved:
        require_headless(saved)
        check_fits_model(config, saved)
        if not replace:
            require_free(saved.run.heads, name)
        text = read_hidden_text(saved, corpus, split, limit, keep=keep, progress=progress)
        say(describe_text(text))
        objective = _objective(loss, alpha, balanced, text)
        proper = loss == "nll" and not balanced
        fitted = fit_on(text, config, saved, objective, recipe, proper, progress)
        about = {
            "fitted_on": fitted_on(saved, corpus, split, limit, text),
            "checkpoint": checkpoint_of(saved),
            "loss": {"kind": loss, **_options(loss, alpha, balanced)},
            "steps": fitted.steps,
            "held_out_tokens": fitted.held_out,
            "nll_before": fitted.nll_before,
            "nll_after": fitted.nll_after,
            "seconds": fitted.seconds,
            "device": jax.devices()[0].device_kind,
            "version": calibtrain.__version__,
            **_global_facts(config, fitted),
        }
        return write_head(saved.run.heads, name, config, fitted.params, about)


def fit_on(
    text: HiddenText,
    config: TemperatureConfig,
    saved: SavedRun,
    loss: TokenLoss,
    recipe: Recipe | None = None,
    proper: bool = True,
    progress: Progress = lambda done, total: None,
) -> FittedHead:
    """Returns a head fitted to a text: exactly for one temperature and the nll, else by gradients.

    Args:
        text: its hidden states.
        config: the configuration of the head.
        saved: the run.
        loss: is minimised.
        recipe: how the head is fitted, unless the fit is exact.
        proper: whether the loss is the nll with equal weights.
        progress: is told the number of steps done, and of all.
    """
    head = make_head(config, saved.config.model, saved.tokenizer.vocab_size)
    assert head is not None
    if config.kind == "global" and proper:
        began = time.monotonic()
        limit = config.limit
        found = fit_global_temperature(
            text.output_layer, text.states, lowest=1 / limit, highest=limit
        )
        params = {"raw": np.float32(raw_of(found.temperature, limit))}
        seconds = time.monotonic() - began
        return FittedHead(params, found.nll_before, found.nll_after, found.passes, 0, seconds)
    return fit_head(
        head, text.output_layer, text.states, loss, recipe, proper=proper, progress=progress
    )


def check_request(split: str, loss: str = "nll", alpha: float = 0.5) -> None:
    """Raises a UserError for a split that may not be fitted on, or a loss that does not exist."""
    if split not in ("train", "validation"):
        raise UserError(
            f"--split: {split!r} is not allowed to fit on; allowed: validation, train (the test "
            "split is what a fitted head is measured on)"
        )
    if loss not in LOSSES:
        raise UserError(f"--loss: {loss!r} is not allowed; allowed: {', '.join(LOSSES)}")
    if not 0 <= alpha <= 1:
        raise UserError(f"--alpha: {alpha} is not allowed; from 0 to 1")


def head_settings(
    kind: str, settings: Mapping[str, Any], option: str = "--head"
) -> TemperatureConfig:
    """Returns the configuration of a head; `option` is how messages call the kind.

    Raises:
        UserError: for a kind or settings that do not exist.
    """
    if kind not in HEADS:
        raise UserError(f"{option}: {kind!r} is not allowed; allowed: {', '.join(HEADS)}")
    return validate(HEADS[kind], {"kind": kind, **settings}, f"{option} {kind}")


def check_fits_model(config: TemperatureConfig, saved: SavedRun, option: str = "--head") -> None:
    """Raises a UserError for a head that a run's model cannot have."""
    try:
        check_fits(config, saved.config.model, saved.tokenizer.vocab_size)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def require_headless(saved: SavedRun) -> None:
    """Raises a UserError for a run that was trained with a head."""
    if saved.network.head is not None:
        raise UserError(
            f"{saved.run.path}: was trained with a head of its own (temperature.kind: "
            f"{saved.config.temperature.kind}); heads are fitted to runs without one"
        )


def default_name(kind: str, loss: str, balanced: bool, corpus: str | None) -> str:
    """Returns the name of a head that the user did not name."""
    parts = [kind, "" if loss == "nll" else loss, "balanced" if balanced else ""]
    parts.append("".join(c if c.isalnum() and c.isascii() else "_" for c in corpus or ""))
    return "-".join(filter(None, parts))[:60]


def describe_text(text: HiddenText) -> str:
    """Returns a line on how many hidden states there are, and whether they are kept."""
    size = f"{text.size / 2**20:,.1f} MiB"
    how = (
        "kept in the cache"
        if text.kept
        else "not kept (they are computed anew in every pass): the disk has no room, or so asked"
    )
    return f"hidden states: {text.states.tokens:,} tokens, {size}, {how}"


def fitted_on(
    saved: SavedRun, corpus: str | None, split: str, limit: int | None, text: HiddenText
) -> dict[str, Any]:
    """Returns the facts about the text that a head was fitted on."""
    provenance = saved.corpus(corpus).provenance
    return {
        "corpus": provenance.name,
        "corpus_hash": provenance.content_hash,
        "tokenizer_hash": saved.tokenizer.hash,
        "split": split,
        "limit": limit,
        "documents": len(text.documents),
        "tokens": text.states.tokens,
        "hidden_bytes": text.size,
        "hidden_kept": text.kept,
        **({"notes": notes} if (notes := saved.notes(corpus)) else {}),
    }


def checkpoint_of(saved: SavedRun) -> dict[str, Any]:
    """Returns the facts about a checkpoint that `latest_checkpoint.fitted_head` compares."""
    return checkpoint_facts(saved.run, saved.config)


def _objective(loss: str, alpha: float, balanced: bool, text: HiddenText) -> TokenLoss:
    chosen: Any = losses.CrossEntropy()
    if loss == "selective_smoothing":
        chosen = losses.SelectiveSmoothing(alpha=alpha)
    return Balanced(chosen, share_right(text.output_layer, text.states)) if balanced else chosen


def _options(loss: str, alpha: float, balanced: bool) -> dict[str, Any]:
    return {**({} if loss == "nll" else {"alpha": alpha}), "balanced": balanced}


def _global_facts(config: TemperatureConfig, fitted: FittedHead) -> dict[str, Any]:
    """The temperature itself, if there is a single one."""
    if config.kind != "global":
        return {}
    log_temperature = float(bounded_log_temperature(fitted.params["raw"], config.limit))
    at_limit = abs(log_temperature) > 0.999 * float(np.log(config.limit))
    return {"value": float(np.exp(log_temperature)), "at_limit": at_limit}
