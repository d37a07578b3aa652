"""Converts the tokenizer in a GGUF file's metadata to a `tokenizer.json`.

A GGUF file names its pre-tokenizer instead of describing it. The pre-tokenizers named here are
written as in the models' own tokenizer.json. An unknown one is refused, because another way of
splitting would silently give other tokens.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from calibtrain.data.tokenizers.tokenizer_json import added_token, byte_level, tokenizer_tree
from calibtrain.errors import UserError

_NORMAL, _USER_DEFINED = 1, 4  # tokenizer.ggml.token_type of pieces, and of other tokens of texts
_KEY = "tokenizer.ggml."

# Regular expressions of Llama 3 and of Qwen 2; they differ in how many digits form a piece.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(digits: str) -> list[dict[str, Any]]:
    pattern = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{_REST}"
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        byte_level(use_regex=False),
    ]


SPLITTING: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "gpt-2": [byte_level(use_regex=True)],
    "smollm": [{"type": "Digits", "individual_digits": True}, byte_level(use_regex=True)],
    "qwen2": _split(r"\p{N}"),
    "llama-bpe": _split(r"\p{N}{1,3}"),
}
"""Pre-tokenizers by their names in GGUF files."""
_WHOLE_WORDS = ("llama-bpe",)
"""The pre-tokenizers with which a word that is a piece is not built up by merges."""


def tokenizer_json(metadata: Mapping[str, Any], source: str) -> bytes:
    """Returns the `tokenizer.json` for the tokenizer of a GGUF file.

    Args:
        metadata: the keys and values of the file.
        source: name of the file in messages.

    Raises:
        UserError: where its tokenizer is of another kind, or its way of splitting is not known.
    """
    family, splitting = metadata.get(f"{_KEY}model"), str(metadata.get(f"{_KEY}pre"))
    if family != "gpt2":
        raise UserError(
            f"{source}: its tokenizer is {family!r}; only byte-level BPE ('gpt2') can be used: "
            "others, such as 'llama', add a space before a text, which does not come back"
        )
    if splitting not in SPLITTING:
        raise UserError(
            f"{source}: {_KEY}pre {splitting!r} is not known; allowed: {', '.join(SPLITTING)}"
        )
    absent = [key for key in ("tokens", "token_type", "merges") if f"{_KEY}{key}" not in metadata]
    if absent:
        raise UserError(f"{source}: its metadata lack {_KEY}{f', {_KEY}'.join(absent)}")
    tokens, types = metadata[f"{_KEY}tokens"], metadata[f"{_KEY}token_type"]
    merges = metadata[f"{_KEY}merges"]
    for key, values, kind in (
        ("tokens", tokens, str),
        ("token_type", types, int),
        ("merges", merges, str),
    ):
        if not isinstance(values, list) or any(type(value) is not kind for value in values):
            what = "texts" if kind is str else "whole numbers"
            raise UserError(f"{source}: {_KEY}{key} must be a list of {what}; it is damaged")
    if len(tokens) != len(types):
        raise UserError(
            f"{source}: its metadata hold {len(tokens):,} tokens and types of {len(types):,}; "
            "it is damaged"
        )
    if len({*tokens}) != len(tokens):
        names = sorted(tokens)
        twice = next(one for one, other in pairwise(names) if one == other)
        raise UserError(f"{source}: token {twice!r} is listed twice; it is damaged")
    if odd := [merge for merge in merges if " " not in merge]:
        raise UserError(f"{source}: {_KEY}merges: {odd[0][:40]!r} is not two pieces")
    added = [
        added_token(index, token, special=kind != _USER_DEFINED)
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != _NORMAL
    ]
    beside = {token["content"] for token in added}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": splitting in _WHOLE_WORDS,
        "vocab": {token: i for i, token in enumerate(tokens) if token not in beside},
        "merges": [merge.split(" ", 1) for merge in merges],
    }
    tree = tokenizer_tree(
        model,
        added,
        pre_tokenizer={"type": "Sequence", "pretokenizers": SPLITTING[splitting]},
        decoder=byte_level(use_regex=True),
    )
    return json.dumps(tree, ensure_ascii=False).encode()
