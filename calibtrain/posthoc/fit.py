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
from calibtrain.config.temperature import check_fits
from calibtrain.data.corpora.named import Columns
from calibtrain.errors import UserError
from calibtrain.fitting.fit_global import fit_global
from calibtrain.fitting.fit_head import FittedHead, Recipe, TokenLoss, fit_head
from calibtrain.posthoc.balance import Balanced, share_right
from calibtrain.posthoc.hidden import HiddenText, Progress, read_text
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
        kind: of the head, one of `config.HEADS`.
        name: by which it will be known; default: kind, loss and corpus.
        corpus: the text to fit on; none: the run's own.
        field: of its documents that is read; None means that of the run's own.
        split: of it: train or validation.
        limit: bytes of text, about; none: the whole split.
        loss: one of `LOSSES`.
        alpha: of selective smoothing.
        balanced: weigh right and wrong tokens by the inverse of their share.
        settings: of the head, by their keys.
        recipe: how it is fitted, where that is not exact.
        keep: keep the model's hidden states in the cache.
        replace: take the place of a head of that name.
        cache: where prepared data is kept.
        say: told in words what is done with the hidden states.
        progress: told how far it is.

    Raises:
        UserError: for what does not fit together, a test split, and as `evaluate_run` does.
    """
    check_request(split, loss, alpha)
    if balanced and kind == "vector":
        raise UserError(
            "--balanced: is not allowed with --head vector, which changes what is right and wrong; "
            "allowed with heads that give a temperature"
        )
    config = head_settings(kind, settings or {})
    name = check_name(name or default_name(kind, loss, balanced, corpus))
    # groups are not read here: a corpus without the field of the run's own need not have one
    columns = {corpus: Columns(field, None if corpus is None else "")}
    with opened(path, cache, columns=columns, writes=True) as saved:
        require_headless(saved)
        fits(config, saved)
        if not replace:
            require_free(saved.run.heads, name)
        text = read_text(saved, corpus, split, limit, keep=keep, progress=progress)
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
    """Fit a head to a text: exactly, for one temperature and the nll; else by gradients.

    `proper` says that the loss is the nll, each token weighing the same.
    """
    head = make_head(config, saved.config.model, saved.tokenizer.vocab_size)
    assert head is not None
    if config.kind == "global" and proper:
        began = time.monotonic()
        limit = config.limit
        found = fit_global(text.frozen, text.states, lowest=1 / limit, highest=limit)
        params = {"raw": np.float32(raw_of(found.temperature, limit))}
        seconds = time.monotonic() - began
        return FittedHead(params, found.nll_before, found.nll_after, found.passes, 0, seconds)
    return fit_head(head, text.frozen, text.states, loss, recipe, proper=proper, progress=progress)


def check_request(split: str, loss: str = "nll", alpha: float = 0.5) -> None:
    """Raise a UserError for what may not be fitted on, or no loss."""
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
    """The section of a head; `option` is what messages call the kind.

    Raises:
        UserError: for a kind or settings that there are not.
    """
    if kind not in HEADS:
        raise UserError(f"{option}: {kind!r} is not allowed; allowed: {', '.join(HEADS)}")
    return validate(HEADS[kind], {"kind": kind, **settings}, f"{option} {kind}")


def fits(config: TemperatureConfig, saved: SavedRun, option: str = "--head") -> None:
    """Raise a UserError for a head that a run's model cannot have."""
    try:
        check_fits(config, saved.config.model)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def require_headless(saved: SavedRun) -> None:
    """Raise a UserError for a run that has a head of its own."""
    if saved.network.head is not None:
        raise UserError(
            f"{saved.run.path}: was trained with a head of its own (temperature.kind: "
            f"{saved.config.temperature.kind}); heads are fitted to runs without one"
        )


def default_name(kind: str, loss: str, balanced: bool, corpus: str | None) -> str:
    """Of a head that nobody named."""
    parts = [kind, "" if loss == "nll" else loss, "balanced" if balanced else ""]
    parts.append("".join(c if c.isalnum() and c.isascii() else "_" for c in corpus or ""))
    return "-".join(filter(None, parts))[:60]


def describe_text(text: HiddenText) -> str:
    """What is done with the hidden states."""
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
    """Which text a head was fitted on."""
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
    """Which checkpoint a head was fitted to; `runs.latest_checkpoint.fitted_head` compares it."""
    return checkpoint_facts(saved.run, saved.config)


def _objective(loss: str, alpha: float, balanced: bool, text: HiddenText) -> TokenLoss:
    chosen: Any = losses.CrossEntropy()
    if loss == "selective_smoothing":
        chosen = losses.SelectiveSmoothing(alpha=alpha)
    return Balanced(chosen, share_right(text)) if balanced else chosen


def _options(loss: str, alpha: float, balanced: bool) -> dict[str, Any]:
    return {**({} if loss == "nll" else {"alpha": alpha}), "balanced": balanced}


def _global_facts(config: TemperatureConfig, fitted: FittedHead) -> dict[str, Any]:
    """The number itself, where there is one."""
    if config.kind != "global":
        return {}
    log_temperature = float(bounded_log_temperature(fitted.params["raw"], config.limit))
    at_limit = abs(log_temperature) > 0.999 * float(np.log(config.limit))
    return {"value": float(np.exp(log_temperature)), "at_limit": at_limit}
