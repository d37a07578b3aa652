"""What is written into every `tokenizer.json` alike: its frame, added tokens, bytes as letters."""

from collections.abc import Mapping, Sequence
from typing import Any


def tokenizer_tree(
    model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], **parts: Any
) -> dict[str, Any]:
    """A whole file.

    Args:
        model: vocabulary and merges, or scores.
        added: from `added_token`.
        parts: normalizer, pre_tokenizer, post_processor and decoder; none where they are not given.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        **parts,
        "model": dict(model),
    }


def added_token(index: int, content: str, *, special: bool = True) -> dict[str, Any]:
    """A token beside the model's own, found in a text as it is spelled; special: never text."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def byte_level(*, use_regex: bool) -> dict[str, Any]:
    """Bytes as letters, behind GPT-2's way of cutting a text or (not `use_regex`) none."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": use_regex,
    }
