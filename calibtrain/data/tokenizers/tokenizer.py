"""Lossless tokenizers: text to ids and back to the exact bytes; trained once, kept in a folder.

The bytes of every piece are known exactly, so byte counts and per-byte figures are exact for every
vocabulary. SentencePiece only segments; decoding concatenates the pieces' bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from calibtrain.data.tokenizers.added_tokens import ADDED_TEXT
from calibtrain.data.tokenizers.byte_level_bpe import BYTE_LEVEL, JSON_FILE, ByteLevelBPE
from calibtrain.data.tokenizers.encoder import HasText, available_cores, encode_documents
from calibtrain.data.tokenizers.sentencepiece_model import (
    SPACE_MARK,
    exact_pieces,
    load_model,
    specials_of,
)
from calibtrain.data.tokenizers.tokenizer_manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MODEL_FILE,
    PADDED_TO,
    Manifest,
    read_file,
    read_manifest,
)
from calibtrain.errors import UserError
from calibtrain.storage.disk import disk_errors, make_folder, write_whole

_DECODED = 2**14  # tokens decoded at once, so that they fit a core's cache
_PROBE = "  \u3000a\u0301\ufb01\uff21\u212b\t\r\n\0\ufeff\U0001f469\u200d\U0001f52c <s><0x41>  "
"""A text of characters that tokenizers easily lose."""


class Tokenizer:
    """Text to ids and back. Every text without lone surrogates comes back byte for byte.

    Attributes:
        vocab_size: all ids, specials included.
        bos_id: document start.
        eos_id: document end.
        piece_bytes: the exact bytes each id stands for; empty for specials.
        byte_lengths: their lengths, int32 [vocab_size].
        byte_ids: the id of the piece for each single byte, int32 [256]; -1 where byte-level BPE
            has none, and refuses texts with that byte.
        manifest: the record of its origin.
        hash: 16 hex digits that identify its behaviour, wherever it was trained.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    piece_bytes: tuple[bytes, ...]
    byte_lengths: Int[np.ndarray, " vocab"]
    byte_ids: Int[np.ndarray, " 256"]
    manifest: Manifest
    hash: str

    def __init__(self, manifest: Manifest, model: bytes | None):
        """Args:
        manifest: the record of its origin.
        model: the bytes of `tokenizer.model` or `tokenizer.json`; None for kind `byte`.

        Raises:
            UserError: when the model cannot be lossless, or is not the manifest's.
        """
        self.manifest, self._model = manifest, model
        self._processor, self._byte_level = None, None
        if model is None:
            single = [bytes([value]) for value in range(256)]
            self.piece_bytes, self.byte_ids = (*single, b"", b""), np.arange(256, dtype=np.int32)
            specials = {"bos": 256, "eos": 257}
        elif manifest.kind == BYTE_LEVEL:
            self._byte_level = ByteLevelBPE(model, manifest.vocab_size, _added_text(manifest))
            self.piece_bytes, self.byte_ids = self._byte_level.pieces, self._byte_level.byte_ids
            specials = manifest.specials  # the file does not say which they are
        else:
            self._processor = load_model(model)
            self.piece_bytes, self.byte_ids = exact_pieces(self._processor)
            specials = specials_of(self._processor)
        padding = manifest.settings.get(PADDED_TO, 0) - len(self.piece_bytes)
        self.piece_bytes += (b"",) * padding
        self.vocab_size = len(self.piece_bytes)
        if self.vocab_size != manifest.vocab_size or specials != manifest.specials:
            raise UserError(
                f"the model has {self.vocab_size} pieces and specials {specials}; the manifest "
                f"says {manifest.vocab_size} and {manifest.specials}"
            )
        self.bos_id, self.eos_id = specials["bos"], specials["eos"]
        self.byte_lengths = np.array([len(piece) for piece in self.piece_bytes], np.int32)
        self._spelling = np.frombuffer(b"".join(self.piece_bytes), np.uint8)
        self._starts = np.cumsum(self.byte_lengths, dtype=np.int64) - self.byte_lengths
        behaviour = f"calibtrain tokenizer {FORMAT_VERSION} {manifest.kind}\n".encode() + (
            model or b""
        )
        if manifest.kind == BYTE_LEVEL or PADDED_TO in manifest.settings:
            apart = [self.vocab_size, manifest.specials, *filter(None, [_added_text(manifest)])]
            behaviour += json.dumps(apart, sort_keys=True).encode()
        self.hash = hashlib.sha256(behaviour).hexdigest()[:16]

    @property
    def model(self) -> bytes | None:
        """The bytes of `tokenizer.model` or `tokenizer.json`; None for kind `byte`."""
        return self._model

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """Returns the ids of a text, int32, without document start and end.

        Raises:
            UserError: when the text holds a lone surrogate, which has no UTF-8 bytes.
        """
        return self.encode_batch([text], threads=1)[0]

    def encode_batch(
        self, texts: Sequence[str], threads: int | None = None
    ) -> list[Int[np.ndarray, " tokens"]]:
        """Returns the ids of several texts, encoded on `threads` threads (None means all cores).

        Raises:
            UserError: when a text holds a lone surrogate, which has no UTF-8 bytes, or a byte that
                has no piece.
        """
        processor = self._processor
        if self._byte_level is not None:
            for text in texts:
                utf8_bytes(text)
            return self._byte_level.encode(texts)
        if processor is None:
            return [np.frombuffer(utf8_bytes(text), np.uint8).astype(np.int32) for text in texts]
        # SentencePiece writes spaces as U+2581 and so cannot tell that letter from a space. The
        # text around it is encoded, and the letter itself becomes its three bytes.
        marked = {index: text for index, text in enumerate(texts) if SPACE_MARK in text}
        plain = ["" if index in marked else text for index, text in enumerate(texts)]
        try:
            encoded = processor.encode(
                plain, out_type="numpy", num_threads=threads or available_cores()
            )
            mark = self.byte_ids[list(SPACE_MARK.encode())]
            for index, text in marked.items():
                around = processor.encode(text.split(SPACE_MARK), out_type="numpy", num_threads=1)
                rest = (part for ids in around[1:] for part in (mark, ids))
                encoded[index] = np.concatenate([around[0], *rest])
        except (RuntimeError, TypeError):
            for text in texts:
                utf8_bytes(text)
            raise
        return encoded

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " tokens"]) -> bytes:
        """Returns the bytes that ids stand for; specials have none. Any sequence is allowed.

        Raises:
            IndexError: when an id is not in the vocabulary.
        """
        values = np.asarray(ids, np.int64)
        if values.size and values.min() < 0:
            raise IndexError(f"id {values.min()} is not in a vocabulary of {self.vocab_size}")
        parts = range(0, len(values), _DECODED)
        return b"".join(self._spell(values[i : i + _DECODED]).tobytes() for i in parts)

    def _spell(self, ids: Int[np.ndarray, " tokens"]) -> UInt8[np.ndarray, " bytes"]:
        lengths = self.byte_lengths[ids]
        shift = self._starts[ids] - (np.cumsum(lengths, dtype=np.int64) - lengths)
        places = np.repeat(shift, lengths)
        places += np.arange(len(places))
        return self._spelling[places]

    def gives_back(self, text: str = _PROBE) -> bool:
        """Returns whether a text comes back byte for byte.

        Characters with a byte that has no piece are left out of it. The default text has characters
        that are easily lost.
        """
        absent = {value for value, index in enumerate(self.byte_ids) if index < 0}
        text = "".join(letter for letter in text if absent.isdisjoint(letter.encode()))
        return self.decode(self.encode(text)) == text.encode()

    def check_lossless(self, documents: Iterable[HasText]) -> None:
        """Encodes and decodes documents and compares the bytes.

        Raises:
            UserError: for the first document that does not come back; it names the byte offset.
        """
        for _ in encode_documents(self, documents):
            pass

    def save(self, folder: Path) -> None:
        """Writes the model (if it has one) and then `manifest.json`, each one whole.

        Raises:
            UserError: when the disk is full or may not be written.
        """
        manifest = json.dumps(self.manifest.to_dict(), indent=2, ensure_ascii=False) + "\n"
        make_folder(folder)
        with disk_errors(folder):
            if self._model is None:
                (folder / MODEL_FILE).unlink(missing_ok=True)
            else:
                write_whole(folder / _model_file(self.manifest), self._model)
            write_whole(folder / MANIFEST_FILE, manifest)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads a folder written by `save`.

        Raises:
            UserError: when a file is missing, truncated or not the one in the manifest, or when the
                model is not lossless.
        """
        manifest = read_manifest(folder)
        model = None
        if manifest.kind != "byte":
            path = folder / _model_file(manifest)
            model = read_file(path)
            found = hashlib.sha256(model).hexdigest()
            if found != manifest.model_hash:
                raise UserError(
                    f"{path}: is damaged or not the one of {MANIFEST_FILE} "
                    f"({len(model)} bytes, SHA-256 {found[:16]}, not "
                    f"{str(manifest.model_hash)[:16]}); restore it, or delete the folder and train "
                    "it again"
                )
        try:
            tokenizer = cls(manifest, model)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        if not tokenizer.gives_back(_PROBE):
            raise UserError(
                f"{folder / _model_file(manifest)}: is not lossless: it normalises text or changes "
                "white space; train one with: calibtrain tokenizer train CONFIG"
            )
        return tokenizer


def _model_file(manifest: Manifest) -> str:
    return JSON_FILE if manifest.kind == BYTE_LEVEL else MODEL_FILE


def _added_text(manifest: Manifest) -> list[int]:
    """Returns the ids of the added tokens that are text."""
    ids = manifest.settings.get(ADDED_TEXT, [])
    if not isinstance(ids, list) or not all(type(index) is int for index in ids):
        raise UserError(f"settings.{ADDED_TEXT} is {str(ids)[:80]}; it must be a list of ids")
    return ids


def utf8_bytes(text: str) -> bytes:
    """Returns the UTF-8 bytes of a text.

    Raises:
        UserError: for a text that holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.start]
        raise UserError(
            f"a text holds a lone surrogate (U+{ord(text[error.start]):04X} at character "
            f"{error.start}, after {near!r}), which has no UTF-8 bytes; remove it"
        ) from None
