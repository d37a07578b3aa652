"""Converts `config.json` of a Hugging Face folder to our model configuration, and back.

A model type decides which code transformers runs and which keys that code reads. Keys that ask for
something that we do not have are refused, and unknown keys are noted (`keys`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from calibtrain.config import ModelConfig, RopeScalingConfig, validate
from calibtrain.errors import UserError
from calibtrain.models.huggingface.config_keys import CONFIG_KEYS, by_architecture
from calibtrain.models.huggingface.keys import shown
from calibtrain.models.huggingface.rope import number, read_rope

FAMILY = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Model types that match our transformer, up to biases and norms, and their classes."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture of a model.

    Attributes:
        name: name of the class or kind in its own format.
        model: our configuration of it.
        vocab_size: rows of its embedding.
        context: its largest context, in tokens.
        notes: parts of its file that are not used, one sentence each.
    """

    name: str
    model: ModelConfig
    vocab_size: int
    context: int
    notes: tuple[str, ...] = ()


def read_architecture(tree: Mapping[str, Any], source: str) -> Architecture:
    """Returns the architecture in a `config.json`.

    Args:
        tree: content of the file.
        source: name of the file in messages.

    Raises:
        UserError: for what is unknown, missing or not supported; it names it.
    """
    kind = tree.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILY:
        raise UserError(
            f"{source}: model_type {shown(kind)} is not known; allowed: {', '.join(FAMILY)}"
        )
    classes = _names(tree, "architectures", source) or [FAMILY[kind]]
    if FAMILY[kind] not in classes:
        raise UserError(
            f"{source}: architectures {shown(classes)} is not a language model of type {kind}; "
            f"allowed: {FAMILY[kind]}"
        )
    width, heads = _whole(tree, "hidden_size", source), _whole(tree, "num_attention_heads", source)
    depth = _whole(tree, "num_hidden_layers", source)
    kv_heads = heads
    if tree.get("num_key_value_heads") is not None:
        kv_heads = _whole(tree, "num_key_value_heads", source)
    elif kind != "llama":  # other types have another default
        raise UserError(f"{source}: has no num_key_value_heads")
    size = None if tree.get("head_dim") is None else _whole(tree, "head_dim", source)
    if size is None and kind == "qwen3":
        raise UserError(f"{source}: has no head_dim")
    _require_full_attention(tree, depth, source)
    if kind == "mistral" and "sliding_window" not in tree:
        raise UserError(
            f"{source}: has no sliding_window, so that transformers takes 4096; calibtrain has no "
            "sliding windows: set it to null where the model has none"
        )
    if tree.get("hidden_act", "silu") is None:
        raise UserError(f"{source}: hidden_act is null; allowed: silu")
    neutral = by_architecture(tree, kind, size or max(1, width // heads))
    notes = CONFIG_KEYS.review(tree, source, neutral)
    rope = read_rope(tree, source)
    tied = tree.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise UserError(f"{source}: tie_word_embeddings is {shown(tied)}; it must be true or false")
    model = {
        "width": width,
        "depth": depth,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": None if size is None or size * heads == width else size,
        "feed_forward_width": _whole(tree, "intermediate_size", source),
        "qkv_bias": kind == "qwen2",
        "qk_norm": kind == "qwen3",
        "tied": tied,
        "embedding_scale": False,
        "rope_base": rope.base,
        "rope_scaling": rope.scaling,
        "norm_epsilon": number(tree, "rms_norm_eps", source, 1e-6),
    }
    return Architecture(
        name=FAMILY[kind],
        model=validate(ModelConfig, model, source),
        vocab_size=_whole(tree, "vocab_size", source),
        context=_whole(tree, "max_position_embeddings", source),
        notes=(*notes, *rope.notes),
    )


def _whole(tree: Mapping[str, Any], key: str, source: str) -> int:
    value = tree.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        said = f"is {shown(value)}" if key in tree else "is missing"
        raise UserError(f"{source}: {key} {said}; it must be a whole number of at least 1")
    return value


def _names(tree: Mapping[str, Any], key: str, source: str) -> list[str]:
    """Returns a list of names; an empty one where the key is missing."""
    value = tree.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{source}: {key} is {shown(value)}; it must be a list of names")
    return value


def _require_full_attention(tree: Mapping[str, Any], depth: int, source: str) -> None:
    layers = _names(tree, "layer_types", source)
    if others := sorted({*layers} - {"full_attention"}):
        raise UserError(
            f"{source}: asks for what calibtrain does not have: layer_types "
            f"{', '.join(others)} (allowed: full_attention)"
        )
    if layers and len(layers) != depth:
        raise UserError(
            f"{source}: layer_types has {len(layers)} entries, num_hidden_layers is {depth}"
        )


def write_architecture(
    model: ModelConfig, vocab_size: int, context: int, *, bos: int, eos: int
) -> dict[str, Any]:
    """Returns the `config.json` of a model, as transformers reads it; its weights are float32.

    Args:
        model: the architecture.
        vocab_size: entries of the vocabulary.
        context: its largest context, in tokens.
        bos: id of document start.
        eos: id of document end.

    Raises:
        UserError: for a setting that the format cannot express.
    """
    if found := [key for key, asked in _NOT_TO_BE_SAID.items() if asked(model)]:
        raise UserError(
            f"such a model cannot be written for transformers: {'; '.join(found)}; what can: a "
            "transformer with model.mlp: swiglu, no model.logit_soft_cap, and not both "
            "model.qk_norm and model.qkv_bias"
        )
    kind = "qwen3" if model.qk_norm else "qwen2" if model.qkv_bias else "llama"
    tree: dict[str, Any] = {
        "architectures": [FAMILY[kind]],
        "model_type": kind,
        "vocab_size": vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp_width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads or model.heads,
        "head_dim": model.size_of_head,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "rope_scaling": _rope_tree(model.rope_scaling),
        "tie_word_embeddings": is_tied_outside(model),
        "attention_dropout": 0.0,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": "float32",
    }
    if kind == "llama":
        tree |= {"attention_bias": False, "mlp_bias": False}
    else:
        tree |= {"use_sliding_window": False}
    if kind == "qwen3":
        tree["attention_bias"] = False
    return tree


def is_tied_outside(model: ModelConfig) -> bool:
    """Returns whether the exported tables are tied: not where embeddings are scaled."""
    return model.tied and not model.embedding_scale


_NOT_TO_BE_SAID: Mapping[str, Callable[[ModelConfig], bool]] = {
    "model.kind is lstm": lambda model: model.kind == "lstm",
    "model.mlp is gelu": lambda model: model.kind != "lstm" and model.mlp == "gelu",
    "model.logit_soft_cap is set": lambda model: model.logit_soft_cap is not None,
    "model.qk_norm with model.qkv_bias": lambda model: model.qk_norm and model.qkv_bias,
}


def _rope_tree(scaling: RopeScalingConfig) -> dict[str, Any] | None:
    if scaling.kind == "none":
        return None
    tree: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        tree |= {
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return tree
