"""Settings that have no effect because of another setting, and the message about them.

A value that equals its default is never refused, because a resolved configuration holds every
default written out.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from calibtrain.config.losses import BatchTerm, MMCETerm
from calibtrain.config.section import Section
from calibtrain.config.sections import Config
from calibtrain.errors import UserError, shown

_log = logging.getLogger(__name__)

Rule = tuple[str, tuple[str, ...], Callable[[Any], str | None]]
"""The path of a section, keys in it (an empty tuple means all), and a function that returns the
setting that leaves them without effect in a configuration, or None."""


def _corpus(config: Config) -> str | None:
    return None if config.corpus.name == "markov" else f"corpus.name: {config.corpus.name}"


def _tokenizer(config: Config) -> str | None:
    kind = config.tokenizer.kind
    return f"tokenizer.kind: {kind}" if kind in ("byte", "byte_level_bpe") else None


def _not_sampled(config: Config) -> str | None:
    return "tokenizer.sample_bytes: null" if config.tokenizer.sample_bytes is None else None


def _recurrent(config: Config) -> str | None:
    return "model.kind: lstm" if config.model.kind == "lstm" else None


def _not_scaled(config: Config) -> str | None:
    kind = config.model.rope_scaling.kind
    return "model.rope_scaling.kind: none" if kind == "none" else None


def _not_llama3(config: Config) -> str | None:
    kind = config.model.rope_scaling.kind
    return None if kind == "llama3" else f"model.rope_scaling.kind: {kind}"


def _no_decay(config: Config) -> str | None:
    schedule = config.optimizer.schedule
    return None if schedule == "wsd" else f"optimizer.schedule: {schedule}"


def _constant(config: Config) -> str | None:
    return "optimizer.schedule: constant" if config.optimizer.schedule == "constant" else None


def _not_decayed(config: Config) -> str | None:
    return None if config.optimizer.weight_decay else "optimizer.weight_decay: 0"


def _adapters(config: Config) -> str | None:
    adapted = config.finetune is not None and config.finetune.lora is not None
    return "finetune.lora: only its adapters are trained" if adapted else None


def _evaluated_every(config: Config) -> str | None:
    every = config.evaluation.every
    return None if every is None else f"evaluation.every: {every}"


def _no_final_splits(config: Config) -> str | None:
    return None if config.evaluation.final_splits else "evaluation.final_splits: []"


def _no_test_split(config: Config) -> str | None:
    splits = config.evaluation.final_splits
    return None if "test" in splits else f"evaluation.final_splits: [{', '.join(splits)}]"


def _not_measured(event: str) -> Callable[[Config], str | None]:
    def reason(config: Config) -> str | None:
        events = config.evaluation.events
        return None if event in events else f"evaluation.events: [{', '.join(events)}]"

    return reason


def _saved_every(config: Config) -> str | None:
    every = config.checkpoints.every
    return None if every is None else f"checkpoints.every: {every}"


def _not_preferences(config: Config) -> str | None:
    tuned = config.finetune
    if tuned is None or tuned.objective == "dpo":
        return None
    return f"finetune.objective: {tuned.objective}"


def _not_candidates(config: Config) -> str | None:
    tuned = config.finetune
    if tuned is None or tuned.objective in ("softmax", "margin"):
        return None
    return f"finetune.objective: {tuned.objective}"


RULES: tuple[Rule, ...] = (
    ("corpus.markov", (), _corpus),
    ("tokenizer", ("character_coverage", "sample_bytes", "sample_seed"), _tokenizer),
    ("tokenizer", ("sample_seed",), _not_sampled),
    (
        "model",
        (
            "heads",
            "kv_heads",
            "head_size",
            "mlp",
            "mlp_ratio",
            "feed_forward_width",
            "qkv_bias",
            "qk_norm",
            "rope_base",
            "rope_scaling",
            "attention",
        ),
        _recurrent,
    ),
    ("model.rope_scaling", ("factor",), _not_scaled),
    (
        "model.rope_scaling",
        ("low_frequency_factor", "high_frequency_factor", "original_context"),
        _not_llama3,
    ),
    ("optimizer", ("decay_fraction",), _no_decay),
    ("optimizer", ("final_fraction",), _constant),
    ("optimizer", ("decay_embeddings",), _adapters),
    ("optimizer", ("decay_embeddings",), _not_decayed),
    ("temperature", ("decay",), _not_decayed),
    ("evaluation", ("times",), _evaluated_every),
    ("evaluation", ("final_bytes",), _no_final_splits),
    ("evaluation", ("events",), _no_test_split),
    ("evaluation.event_bytes", ("byte",), _not_measured("byte")),
    ("evaluation.event_bytes", ("word",), _not_measured("word")),
    ("checkpoints", ("times",), _saved_every),
    ("finetune", ("beta",), _not_preferences),
    ("finetune", ("choices", "template"), _not_candidates),
)
"""Which settings override which. `context` and `budget` take exactly one key, and heads and losses
have only the keys of their kind, so nothing in them is overridden. A tokenizer's folder is checked
where it is opened (`data.tokenizers.tokenizer`)."""


def overridden(config: Config) -> Iterator[tuple[str, Any, str, Any]]:
    """Yields the settings without effect that differ from their defaults.

    Yields:
        The key, its value, the setting that leaves it without effect, and its default.
    """
    for path, keys, reason in RULES:
        section: Any = config
        for name in path.split("."):
            section = None if section is None else getattr(section, name)
        if section is None or (because := reason(config)) is None:
            continue
        fields = type(section).model_fields
        for key in filter(fields.__contains__, keys or fields):
            for name, value, default in _changed(section, key):
                yield f"{path}.{name}", value, because, default
    if config.finetune is not None:
        for index, term in enumerate(config.loss):
            if isinstance(term, BatchTerm) and not isinstance(term, MMCETerm):
                for name, value, default in _changed(term, "tokens"):
                    because = "finetune: this loss is computed over all tokens of the answers"
                    yield f"loss.{index}.{name}", value, because, default


def refuse_overridden(
    config: Config,
    origin: Callable[[Sequence[str]], str],
    overrides: Sequence[str] = (),
    *,
    resolved: bool = False,
    prefix: str = "",
) -> None:
    """Refuses a configuration with a setting that another one leaves without effect.

    Where an override sets the other one (`model.kind=lstm` over a file with heads), the setting in
    the file is noted and not refused.

    Args:
        config: the configuration that a user gave.
        origin: returns where a key comes from; the message begins with it.
        overrides: keys of the overrides that were applied.
        resolved: whether calibtrain wrote the file; then only keys in overrides are checked.
        prefix: prefix of the configuration's keys in the file and in the overrides.

    Raises:
        UserError: for the first setting without effect.
    """
    for key, value, because, default in overridden(config):
        key = prefix + key
        said = _touched(key, overrides)
        turned = _touched(prefix + because.partition(":")[0], overrides)
        message = f"{origin(key.split('.'))}: {refusal(key, value, because, default)}"
        if turned and not said:
            _log.warning("note: %s", message)
        elif said or turned or not resolved:
            raise UserError(message)


def refusal(key: str, value: Any, because: str, default: Any) -> str:
    """Returns the message about a setting without effect."""
    return (
        f"{key}: {shown(value)} has no effect with {because}; remove it, or leave it at its "
        f"default ({shown(default)})"
    )


def _touched(key: str, given: Sequence[str]) -> bool:
    """Returns whether one of the dotted paths is a key or a section above it."""
    return any(f"{key}.".startswith(f"{each}.") for each in given)


def _changed(section: Section, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yields the keys at or below `key` whose value differs from the default."""
    value, default = getattr(section, key), type(section).model_fields[key].default
    if isinstance(value, Section):
        for name in type(value).model_fields:
            for below, own, usual in _changed(value, name):
                yield f"{key}.{below}", own, usual
    elif value != default:
        yield key, value, default
