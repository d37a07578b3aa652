"""Names of our parameters in Hugging Face folders and GGUF files, and which are transposed there.

A linear map is [fan_in, fan_out] here and [fan_out, fan_in] there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Path = tuple[str | int, ...]
"""Keys that lead to a parameter."""


class Names(NamedTuple):
    """Names of one parameter in a Hugging Face folder and in a GGUF file; `{}` is the layer."""

    huggingface: str
    gguf: str


_ENDS: Mapping[Path, Names] = {
    ("vocabulary", "embedding"): Names("model.embed_tokens.weight", "token_embd.weight"),
    ("vocabulary", "unembedding"): Names("lm_head.weight", "output.weight"),
    ("final_norm", "scale"): Names("model.norm.weight", "output_norm.weight"),
}
_LAYER: Mapping[Path, tuple[str, str]] = {
    ("attention_norm", "scale"): ("input_layernorm.weight", "attn_norm.weight"),
    ("attention", "query", "kernel"): ("self_attn.q_proj.weight", "attn_q.weight"),
    ("attention", "query", "bias"): ("self_attn.q_proj.bias", "attn_q.bias"),
    ("attention", "key", "kernel"): ("self_attn.k_proj.weight", "attn_k.weight"),
    ("attention", "key", "bias"): ("self_attn.k_proj.bias", "attn_k.bias"),
    ("attention", "value", "kernel"): ("self_attn.v_proj.weight", "attn_v.weight"),
    ("attention", "value", "bias"): ("self_attn.v_proj.bias", "attn_v.bias"),
    ("attention", "query_norm", "scale"): ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("attention", "key_norm", "scale"): ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("attention", "out", "kernel"): ("self_attn.o_proj.weight", "attn_output.weight"),
    ("mlp_norm", "scale"): ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp", "gate", "kernel"): ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp", "up", "kernel"): ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp", "down", "kernel"): ("mlp.down_proj.weight", "ffn_down.weight"),
}

EMBEDDING, UNEMBEDDING = _ENDS["vocabulary", "embedding"], _ENDS["vocabulary", "unembedding"]


def names_of(path: Path) -> Names:
    """Returns the names of a parameter of a transformer."""
    if path in _ENDS:
        return _ENDS[path]
    blocks, layer, *inside = path
    assert blocks == "blocks"
    huggingface, gguf = _LAYER[tuple(inside)]
    return Names(f"model.layers.{layer}.{huggingface}", f"blk.{layer}.{gguf}")


def is_turned(path: Path) -> bool:
    """Returns whether a parameter is transposed in those files."""
    return path[-1] == "kernel"


def parameter_paths(tree: Any) -> list[tuple[Path, Any]]:
    """Returns every parameter (or shape) of a tree, with the keys that lead to it."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(_key(part) for part in path), leaf) for path, leaf in leaves]


def _key(part: Any) -> str | int:
    return part.key if hasattr(part, "key") else part.idx
