"""Reads the files beside `config.json`: a model's marks, its added tokens, settings of sampling.

Nothing in them is ignored silently: what changes tokenisation is used or refused, and the rest is
noted.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.tokenizers.added_tokens import AddedToken, read_added_tokens
from calibtrain.data.tokenizers.byte_level_bpe import JSON_FILE
from calibtrain.errors import UserError
from calibtrain.interchange.tokenizer_files import TOKENIZER_CONFIG
from calibtrain.models.huggingface.keys import KeyRules, names, shown
from calibtrain.storage.json_text import read_json

GENERATION_CONFIG, SPECIALS_MAP = "generation_config.json", "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
_FLAGS = ("special", "lstrip", "rstrip", "single_word")
_LISTS = ("additional_special_tokens", "extra_special_tokens")

_TOKENIZER_KEYS = KeyRules(
    harmless=names(
        """
        bos_token eos_token *_token additional_special_tokens extra_special_tokens
        model_specific_special_tokens added_tokens_decoder chat_template* response_schema
        model_max_length max_length *_side padding truncation stride truncation_strategy
        pad_to_multiple_of pad_token_type_id clean_up_tokenization_spaces
        spaces_between_special_tokens split_special_tokens add_bos_token add_eos_token legacy
        use_default_system_prompt tokenizer_class processor_class tokenizer_file
        special_tokens_map_file name_or_path errors model_input_names use_fast backend is_local
        vocab_size trim_offsets trust_remote_code from_slow local_files_only device_map
        """
    ),
    neutral={
        "auto_map": (),
        "add_prefix_space": (False,),
        "do_lower_case": (False,),
        "sp_model_kwargs": ({},),
        "fix_mistral_regex": (False,),
    },
    computes=names(
        "*normaliz* *lower* *space* *strip* *prefix* *split* *regex* *accent* *dropout*"
    ),
)
_NEUTRAL_SAMPLING: Mapping[str, Sequence[Any]] = {
    "temperature": (1,),
    "top_p": (1,),
    "top_k": (0, 50),
    "min_p": (0,),
    "typical_p": (1,),
    "repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "suppress_tokens": ([],),
    "bad_words_ids": ([],),
}


def read_object(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file, or None if there is no such file.

    Raises:
        UserError: where it is not a JSON object, or cannot be read.
    """
    if not path.is_file():
        return None
    try:
        tree = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); it is damaged or cut short") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: is not a JSON object")
    return tree


def token_ids(tree: Mapping[str, Any], key: str, vocab_size: int, source: str) -> list[int]:
    """Returns the ids that a key names: one, several, or none.

    Raises:
        UserError: where they are not whole numbers in the vocabulary.
    """
    value = tree.get(key)
    if value is None:
        return []
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(index) is int and 0 <= index < vocab_size for index in ids):
        raise UserError(
            f"{source}: {key} is {shown(value)}; it must be a whole number from 0 to "
            f"{vocab_size - 1}, in the vocabulary, or a list of such"
        )
    return ids


def read_tokenizer_config(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the content of `tokenizer_config.json` (or nothing), and notes on its keys."""
    path = folder / TOKENIZER_CONFIG
    tree = read_object(path) or {}
    for key in ("bos_token", "eos_token"):
        if tree.get(key) is not None and content(tree[key]) is None:
            raise UserError(f"{path}: {key} is {shown(tree[key])}; it must be the text of a token")
    return tree, _TOKENIZER_KEYS.review(tree, str(path))


def sampling_notes(folder: Path, vocab_size: int) -> list[str]:
    """Returns notes on `generation_config.json`, which changes sampling and not the logits."""
    path = folder / GENERATION_CONFIG
    tree = read_object(path) or {}
    for key in ("bos_token_id", "eos_token_id"):
        token_ids(tree, key, vocab_size, str(path))
    found = [
        f"{key} {str(tree[key])[:20]}"
        for key, neutral in _NEUTRAL_SAMPLING.items()
        if tree.get(key) is not None and tree[key] not in neutral
    ]
    if not found:
        return []
    return [f"{GENERATION_CONFIG} is not used: it changes what is sampled ({', '.join(found)})"]


def content(token: Any) -> str | None:
    """Returns the text of a token that a tokenizer's configuration names."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def named_marks(folder: Path, named: Mapping[str, Any]) -> set[str]:
    """Returns the texts of tokens that a tokenizer's configuration calls special."""
    found: set[str] = set()
    for tree in (named, read_object(folder / SPECIALS_MAP) or {}):
        tokens: list[Any] = [value for key, value in tree.items() if key.endswith("_token")]
        for key in _LISTS:
            own = tree.get(key) or []
            tokens += (
                own.values() if isinstance(own, dict) else own if isinstance(own, list) else []
            )
        found |= {text for text in map(content, tokens) if text is not None}
    return found


def declared_tokens(folder: Path, named: Mapping[str, Any]) -> list[AddedToken]:
    """Returns the added tokens that `tokenizer_config.json` and `added_tokens.json` list.

    Raises:
        UserError: where they are not such lists.
    """
    path = folder / TOKENIZER_CONFIG
    listed = named.get("added_tokens_decoder") or {}
    try:
        tokens = [{**token, "id": int(index)} for index, token in listed.items()]
        found = read_added_tokens({"added_tokens": tokens})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: added_tokens_decoder must hold an object with a content for each id"
        ) from None
    path = folder / ADDED_TOKENS
    beside = read_object(path) or {}
    known = {token.content for token in found}
    for text, index in beside.items():
        if type(index) is not int or index < 0:
            raise UserError(f"{path}: {shown(text)} is {shown(index)}; it must be an id")
        if text not in known:
            found.append(AddedToken(index, text, {}))
    return found


def require_agreement(
    declared: Iterable[AddedToken], own: Iterable[AddedToken], marks: set[str], folder: Path
) -> None:
    """Refuses added tokens that are text and that `tokenizer.json` lacks or describes differently.

    Args:
        declared: added tokens from `declared_tokens`.
        own: added tokens of `tokenizer.json`.
        marks: tokens that are never text, regardless of the files.
        folder: the folder, for messages.
    """
    mine = {token.content: token for token in own}
    for token in declared:
        if token.content in marks or not token.content:
            continue
        found = mine.get(token.content)
        if found is None:
            if token.flags.get("special") is not True:  # a mark may be left out
                raise UserError(
                    f"{folder}: added token {shown(token.content)} is text, and "
                    f"{JSON_FILE} lacks it"
                )
            continue
        if token.is_special and found.is_special:
            continue
        said = {"id": token.id, **{name: token.flags.get(name) for name in _FLAGS}}
        for name, value in said.items():
            theirs = found.id if name == "id" else found.flags.get(name)
            if value is not None and value != theirs:
                raise UserError(
                    f"{folder / TOKENIZER_CONFIG}: added token {shown(token.content)}: {name} is "
                    f"{shown(value)}, in {JSON_FILE} {shown(theirs)}; make them agree"
                )
