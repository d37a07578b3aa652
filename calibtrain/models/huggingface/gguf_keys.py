"""The metadata of a GGUF file: the keys that llama.cpp reads for our archs, and their meaning.

An unknown key of the architecture is refused unless its value is neutral.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from calibtrain.errors import UserError
from calibtrain.models.huggingface.keys import KeyRules, Neutral, names

_RULES = KeyRules(
    harmless=names(
        """
        general.* split.* quantize.* tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.tokens
        tokenizer.ggml.token_type tokenizer.ggml.scores tokenizer.ggml.merges
        tokenizer.ggml.*_token_id tokenizer.ggml.*_token_ids tokenizer.ggml.add_bos_token
        tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token tokenizer.chat_template*
        tokenizer.chat_templates tokenizer.huggingface.json tokenizer.ggml.token_type_count
        """
    ),
    neutral={
        "general.type": ("model",),
        "tokenizer.ggml.add_space_prefix": (False,),
        "tokenizer.ggml.remove_extra_whitespaces": (False,),
        "tokenizer.ggml.precompiled_charsmap": ([],),
    },
    computes=re.compile(r"^tokenizer\.|adapter|control_vector"),
)
_USED = (
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
    *("rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"),
)
_UNUSED = ("rope.scaling.finetuned", "pooling_type")
_ONLY_OF_YARN = ("rope.scaling.original_context_length", "rope.scaling.yarn_*")


def review_metadata(
    metadata: Mapping[str, Any], arch: str, head_size: int, source: str
) -> list[str]:
    """Returns notes on unknown metadata.

    Args:
        metadata: metadata of a file.
        arch: the kind of its architecture.
        head_size: width of a head.
        source: name of the file in messages.

    Raises:
        UserError: where the file needs a feature that calibtrain does not have; it names it.
    """
    context = whole(metadata, f"{arch}.context_length", source)
    own: dict[str, Neutral] = {
        "attention.key_length": (head_size,),
        "attention.value_length": (head_size,),
        "rope.dimension_count": (head_size,),
        "attention.scale": lambda value: (
            type(value) in (int, float)
            and (value == 0 or math.isclose(value, head_size**-0.5, rel_tol=1e-6))
        ),
        "attention.causal": (True,),
        "attention.sliding_window": lambda value: (
            type(value) is int and (value == 0 or value >= context)
        ),
        "attention.clamp_kqv": (0,),
        "attention.max_alibi_bias": (0,),
        "attn_logit_softcapping": (0,),
        "final_logit_softcapping": (0,),
        "logit_scale": (0, 1),
        "residual_scale": (0, 1),
        "embedding_scale": (0, 1),
        "expert_count": (0,),
        "expert_used_count": (0,),
        "use_parallel_residual": (False,),
        "tensor_data_layout": ("Meta AI original pth",),
        "rope.scaling.attn_factor": (1,),
        "rope.scaling.alpha": (0,),
    }
    known = names(" ".join(f"{arch}.{key}" for key in (*_USED, *_UNUSED, *_ONLY_OF_YARN)))
    neutral: dict[str, Neutral] = {f"{arch}.{key}": rule for key, rule in own.items()}
    for key in metadata:
        if key.startswith(f"{arch}.") and key not in neutral and not known.fullmatch(key):
            neutral[key] = (0, False, "", [])
    tree = {key: value for key, value in metadata.items() if not known.fullmatch(key)}
    found = _RULES.review(tree, source, neutral)
    sampling = [key for key in metadata if key.startswith("general.sampling.")]
    if sampling:
        found.append(
            f"{', '.join(sampling[:4])} are not used: they change what is sampled, not the logits"
        )
    return found


def whole(metadata: Mapping[str, Any], key: str, source: str, default: int | None = None) -> int:
    """Returns a value that must be a whole number of at least 1."""
    value = metadata.get(key, default)
    if type(value) is not int or value < 1:
        said = f"is {str(value)[:60]}" if value is not None else "is missing"
        raise UserError(f"{source}: {key} {said}; it must be a whole number of at least 1")
    return value


def real(metadata: Mapping[str, Any], key: str, source: str, default: float | None = None) -> float:
    """Returns a value that must be a finite number."""
    value = metadata.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value):
        said = f"is {str(value)[:60]}" if value is not None else "is missing"
        raise UserError(f"{source}: {key} {said}; it must be a finite number")
    return float(value)


def scaling_of(metadata: Mapping[str, Any], arch: str, source: str) -> tuple[str, float]:
    """Returns how a file's rotary frequencies are scaled (`none` or `linear`), and the factor.

    The keys are read as llama.cpp reads them: a factor without a type is linear, the older key
    `rope.scale_linear` counts where the newer one is missing, and a factor of 0 means 1.

    Raises:
        UserError: for another type, or a factor that is not a number.
    """
    kind = metadata.get(f"{arch}.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise UserError(
            f"{source}: {arch}.rope.scaling.type {str(kind)[:60]!r} is not known; allowed: "
            "none, linear"
        )
    key = f"{arch}.rope.scaling.factor"
    if key not in metadata:
        key = f"{arch}.rope.scale_linear"
    factor = real(metadata, key, source, 1.0) or 1.0
    return ("none", 1.0) if kind == "none" or factor == 1 else ("linear", factor)
