"""Byte-level BPE (Radford et al. 2019) from a `tokenizer.json`: text to ids, and each id's bytes.

Pieces are spelled in an alphabet with a letter for each of the 256 bytes, so that their bytes are
exact and every text can be encoded. Where a vocabulary lacks rare bytes, a text with such a byte is
refused. Added tokens that are marks ("<|im_end|>") stand for no bytes, and a text that spells one
gets the pieces of its letters. Added tokens that are text are pieces.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from calibtrain.data.tokenizers.added_tokens import AddedToken, read_added_tokens, require_distinct
from calibtrain.errors import UserError
from calibtrain.storage.json_text import parse_json

BYTE_LEVEL = "byte_level_bpe"
"""The kind of tokenizer, in manifests and configurations."""
JSON_FILE = "tokenizer.json"
_NEEDED = {0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF0)}
"""Bytes that common text needs; the others are controls, parts of emoji, or never in UTF-8."""
_SPLITTERS = ("Split", "Digits", "ByteLevel", "Punctuation")
"""Pre-tokenizers that cut text without loss, unless they are set to remove what they find."""
_MARK = {"special": True}


def byte_alphabet() -> list[str]:
    """Returns the letter that stands for each byte in GPT-2's encoder.

    Visible characters of Latin-1 stand for themselves; the other bytes are represented by the
    letters from U+0100 on, in order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in visible else next(others)) for value in range(256)]


class ByteLevelBPE:
    """The tokenizer of a `tokenizer.json`, with its merges and the added tokens that are text.

    Attributes:
        pieces: exact bytes of each id; empty for marks and ids without a piece.
        byte_ids: the id of each single byte; -1 where it has no piece.
        absent: bytes without a piece.
        tokens: the added tokens, as in the file.
        left_out: normalisations of the file that are not applied here.
    """

    def __init__(self, content: bytes, vocab_size: int | None = None, text: Collection[int] = ()):
        """Args:
        content: content of the file.
        vocab_size: number of ids; those after the tokenizer's own have no piece. None means its
            own number.
        text: ids of the added tokens that are text (`added_tokens.text_tokens`).

        Raises:
            UserError: when it is not byte-level BPE, would lose text, or has more ids.
        """
        tree = _parse(content)
        _require_byte_level(tree)
        self.left_out = "NFC" if _normalizers(tree) else None
        self.tokens = tuple(read_added_tokens(tree))
        vocabulary: dict[str, int] = dict(tree["model"]["vocab"])
        ids = [*vocabulary.values(), *(token.id for token in self.tokens)]
        size = max(ids, default=-1) + 1
        if vocab_size is not None and size > vocab_size:
            beyond = [token.content for token in self.tokens if token.id >= vocab_size]
            raise UserError(
                f"{JSON_FILE} has {size:,} ids, the model {vocab_size:,}"
                + (f": {', '.join(beyond[:4])} cannot be embedded" if beyond else "")
            )
        own = [token for token in self.tokens if token.id in text]
        if lost := sorted({*text} - {token.id for token in own}):
            raise UserError(f"{JSON_FILE} has no added token of id {lost[0]}, which is to be text")
        for token in self.tokens:
            if token.id not in text:
                vocabulary.pop(token.content, None)
        self.pieces, self.byte_ids = _spell(vocabulary, own, max(size, vocab_size or 0))
        self.absent = bytes(np.flatnonzero(self.byte_ids < 0).tolist())
        self._lengths = np.array([len(piece) for piece in self.pieces])
        marks = [token for token in self.tokens if token.id not in text and token.content]
        self._processor, self._ids = _build(tree, vocabulary, own, marks)

    def encode(self, texts: Sequence[str]) -> list[Int[np.ndarray, " tokens"]]:
        """Returns the ids of texts, int32.

        Raises:
            UserError: where a text has a byte without a piece.
        """
        encoded = self._processor.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [np.array(one.ids, np.int32) for one in encoded]
        if self._ids is not None:
            ids = [self._ids[one] for one in ids]
        for text, own in zip(texts, ids, strict=True) if self.absent else ():
            raw = text.encode()
            if self._lengths[own].sum() != len(raw):  # bytes without a piece were dropped
                place = next(i for i, value in enumerate(raw) if value in self.absent)
                raise UserError(
                    f"byte {place} of a text is 0x{raw[place]:02X}, for which the tokenizer has "
                    "no piece; remove it from the text"
                )
        return ids


def read_entries(content: bytes) -> tuple[Mapping[str, int], tuple[AddedToken, ...]]:
    """Returns the vocabulary and the added tokens of a `tokenizer.json`.

    Raises:
        UserError: where it is not byte-level BPE, or an id has two entries.
    """
    tree = _parse(content)
    _require_byte_level(tree)
    vocabulary, added = tree["model"]["vocab"], tuple(read_added_tokens(tree))
    require_distinct(vocabulary, added)
    return vocabulary, added


def added_of(content: bytes) -> list[AddedToken]:
    """Returns the added tokens of a `tokenizer.json` of any kind; UserError where it is not one."""
    try:
        return read_added_tokens(parse_json(content))
    except ValueError as error:
        raise UserError(f"{JSON_FILE} is not a tokenizer ({error})") from None
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{JSON_FILE} is not a tokenizer; it is damaged or cut short") from None


def _parse(content: bytes) -> dict[str, Any]:
    reason = "it is damaged or cut short"
    try:
        tree = parse_json(content)
        if tree["model"]["type"] != "BPE":
            return {**tree, "added_tokens": []}
        read_added_tokens(tree)
        entries = tree["model"]["vocab"].values()
        if all(type(at) is int and at >= 0 for at in entries):
            return {**tree, "added_tokens": tree.get("added_tokens") or []}
    except ValueError as error:
        reason = f"{error}; {reason}"
    except (KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{JSON_FILE} is not a tokenizer ({reason})")


def _steps(tree: Mapping[str, Any], name: str, inside: str) -> list[Mapping[str, Any]]:
    """Returns the steps of a normalizer or pre-tokenizer; a sequence has them under `inside`.

    Raises:
        UserError: where it is something else.
    """

    def steps(part: Any) -> list[Mapping[str, Any]]:
        if isinstance(part, dict) and part.get("type") != "Sequence":
            return [part]
        if isinstance(part, dict) and isinstance(part.get(inside), list):
            return [step for one in part[inside] for step in steps(one)]
        raise UserError(
            f"{JSON_FILE}: {name} holds {json.dumps(part)[:80]}; it must be an object with a type, "
            f"or one of type Sequence with a list of such objects, {inside}"
        )

    return [] if tree.get(name) is None else steps(tree[name])


def _normalizers(tree: Mapping[str, Any]) -> list[str]:
    return [str(step.get("type")) for step in _steps(tree, "normalizer", "normalizers")]


def _require_byte_level(tree: Mapping[str, Any]) -> None:
    """Refuses a tokenizer that is not byte-level BPE, or that changes text.

    Composing characters (NFC) is the one change that is left out rather than refused. Nearly all
    texts are composed and get the same ids; the others are encoded as they are.
    """
    model = tree["model"]
    steps = _steps(tree, "pre_tokenizer", "pretokenizers")
    kinds = [str(step.get("type")) for step in steps]
    if model.get("type") != "BPE" or "ByteLevel" not in kinds:
        raise UserError(
            f"{JSON_FILE} is no byte-level BPE (model {model.get('type')}, pre-tokenizer "
            f"{' + '.join(kinds) or 'none'}); only that, or a lossless SentencePiece model, can "
            "be used"
        )
    losing = [kind for kind in _normalizers(tree) if kind != "NFC"]
    losing += [kind for kind in kinds if kind not in _SPLITTERS]
    losing += [
        f"{step['type']} that removes" for step in steps if step.get("behavior") == "Removed"
    ]
    losing += ["add_prefix_space" for step in steps if step.get("add_prefix_space")]
    settings = ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
    losing += [name for name in settings if model.get(name)]
    if losing:
        raise UserError(
            f"{JSON_FILE} changes text before it is cut ({', '.join(losing)}), so that it does "
            "not come back byte for byte; only a lossless tokenizer can be used"
        )


def _spell(
    vocabulary: Mapping[str, int], added: Sequence[AddedToken], size: int
) -> tuple[tuple[bytes, ...], Int[np.ndarray, " 256"]]:
    """Returns the bytes of each id, and the ids of single bytes; added tokens spell themselves."""
    letters = byte_alphabet()
    values = {letter: value for value, letter in enumerate(letters)}
    pieces = [b""] * size
    texts = {token.content for token in added}
    for entry, index in vocabulary.items():
        try:
            pieces[index] = bytes(values[letter] for letter in entry)
        except KeyError:
            if entry not in texts:
                raise UserError(
                    f"{JSON_FILE}: entry {index} ({entry[:60]!r}) is not spelled in bytes"
                ) from None
    for token in added:
        try:
            own = token.content.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{JSON_FILE}: added token {token.content[:60]!r} holds a lone surrogate, which "
                "has no UTF-8 bytes"
            ) from None
        if pieces[token.id] not in (b"", own):
            raise UserError(
                f"{JSON_FILE}: entry {token.id} stands for the text {token.content[:60]!r} as an "
                f"added token, and for the bytes {pieces[token.id][:60]!r} as a piece"
            )
        pieces[token.id] = own
    absent = [value for value in sorted(_NEEDED) if letters[value] not in vocabulary]
    if absent:
        raise UserError(
            f"{JSON_FILE} has no piece for {len(absent)} of the {len(_NEEDED)} bytes that texts "
            f"are made of (the first: 0x{absent[0]:02X}), so it loses text"
        )
    return tuple(pieces), np.array([vocabulary.get(letter, -1) for letter in letters], np.int32)


def _build(
    tree: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    added: Sequence[AddedToken],
    marks: Sequence[AddedToken],
) -> tuple[Any, Int[np.ndarray, " ids"] | None]:
    """Returns the bare encoder, and our id for each of its ids (None where they are the same).

    The encoder has no normalisation, padding, truncation or template, and reads a mark in a text as
    letters. It knows the marks so as not to find an added token inside one. The package numbers
    added tokens itself, after the vocabulary. Where there are added tokens, it therefore gets a
    vocabulary without gaps, so that no two tokens share an id.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError(
            f"{JSON_FILE} needs the package tokenizers; install it with: "
            "pip install 'calibtrain[hf]'"
        ) from None
    ids = None
    if added:
        order = sorted(vocabulary, key=lambda token: vocabulary[token])
        beside = [token for token in added if token.content not in vocabulary]
        ids = np.array(
            [*(vocabulary[token] for token in order), *(token.id for token in beside)], np.int32
        )
        vocabulary = {token: index for index, token in enumerate(order)}
        added = [*added, *(dataclasses.replace(each, flags=each.flags | _MARK) for each in marks)]
    plain = {
        "version": tree.get("version", "1.0"),
        "truncation": None,
        "padding": None,
        "added_tokens": [token.to_json() for token in added],
        "normalizer": None,
        "pre_tokenizer": tree["pre_tokenizer"],
        "post_processor": None,
        "decoder": tree.get("decoder"),
        "model": {**tree["model"], "vocab": vocabulary, "unk_token": None},
    }
    try:
        encoder = Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{JSON_FILE} cannot be used: {str(error)[:200]}") from None
    encoder.encode_special_tokens = True
    return encoder, ids
