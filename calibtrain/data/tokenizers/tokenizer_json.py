"""The parts that every written `tokenizer.json` shares: its frame, added tokens, byte letters."""

from collections.abc import Mapping, Sequence
from typing import Any


def tokenizer_tree(
    model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], **parts: Any
) -> dict[str, Any]:
    """Returns the content of a whole file.

    Args:
        model: vocabulary and merges, or scores.
        added: added tokens, made by `added_token`.
        parts: normalizer, pre_tokenizer, post_processor and decoder; null where not given.
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
    """Returns an added token, which is found in a text by its spelling; a special one never is."""
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
    """Returns the step that spells bytes as letters, after GPT-2's splitting if `use_regex`."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": use_regex,
    }
