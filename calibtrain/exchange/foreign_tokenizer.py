"""The tokenizer of a model of others as one of ours: of which file, and what frames a document."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibtrain.data.byte_level_bpe import BYTE_LEVEL, JSON_FILE, ByteLevelBPE
from calibtrain.data.sentencepiece_model import exact_pieces, load_model, read_proto, specials_of
from calibtrain.data.tokenizer import Tokenizer
from calibtrain.data.tokenizer_manifest import IMPORTED, MODEL_FILE, PADDED_TO, Manifest
from calibtrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class Marks:
    """What starts and what ends a document, as ids or as texts of added tokens; None: not said."""

    start: int | str | None
    end: int | str | None


@dataclasses.dataclass(frozen=True)
class ForeignTokenizer:
    """A tokenizer of others.

    Attributes:
        tokenizer: as ours.
        notes: what differs from it, a sentence each.
    """

    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()

    @classmethod
    def byte_level(
        cls, content: bytes, vocab_size: int, marks: Marks, source: str
    ) -> "ForeignTokenizer":
        """From a `tokenizer.json`.

        Args:
            content: of the file.
            vocab_size: rows of the model's embedding.
            marks: what frames a document.
            source: what messages call where it comes from.

        Raises:
            UserError: where it is not lossless, has more ids than the model, or nothing ends a
                document.
        """
        try:
            pieces = ByteLevelBPE(content, vocab_size)
            specials = _frame(pieces, marks)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        notes = []
        settings: dict[str, Any] = {}
        if pieces.left_out:
            settings["left_out"] = pieces.left_out
            notes.append(
                f"its tokenizer composes characters ({pieces.left_out}) before it cuts a text, "
                "which does not come back; that is left out, so that texts that are not composed "
                "get other tokens"
            )
        if pieces.absent:
            notes.append(
                f"its tokenizer has no piece for {len(pieces.absent)} of the 256 bytes "
                f"({pieces.absent.hex(' ')}): texts that hold one are refused"
            )
        tokenizer = _ours(BYTE_LEVEL, vocab_size, settings, content, specials)
        if specials["bos"] == specials["eos"]:
            notes.append("the token that ends a document also starts the next one")
        _require_lossless(tokenizer, " ".join(pieces.added), source)
        return cls(tokenizer, tuple(notes))

    @classmethod
    def sentencepiece(cls, content: bytes, vocab_size: int, source: str) -> "ForeignTokenizer":
        """From a `tokenizer.model`; arguments and errors as for `byte_level`."""
        try:
            processor = load_model(content)
            pieces, _ = exact_pieces(processor)
            specials = specials_of(processor)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        size = len(pieces)
        if size > vocab_size:
            raise UserError(f"{source}: {MODEL_FILE} has {size:,} pieces, the model {vocab_size:,}")
        settings = {PADDED_TO: vocab_size} if size < vocab_size else {}
        kind = _sentencepiece_kind(content, source)
        tokenizer = _ours(kind, vocab_size, settings, content, specials)
        _require_lossless(tokenizer, "", source)
        return cls(tokenizer)

    def counted(self, corpus: str, corpus_hash: str, bytes_per_token: float) -> Tokenizer:
        """The tokenizer, with the text on which its tokens were counted."""
        self.tokenizer.manifest = dataclasses.replace(
            self.tokenizer.manifest,
            corpus=corpus,
            corpus_hash=corpus_hash,
            bytes_per_token=bytes_per_token,
        )
        return self.tokenizer


def find_tokenizer(
    folder: Path, vocab_size: int, marks: Marks
) -> tuple[ForeignTokenizer, list[Path]]:
    """The tokenizer of a Hugging Face folder, and the files it was read from.

    `tokenizer.model` is taken where it is lossless, else `tokenizer.json` where that is.

    Raises:
        UserError: where neither can be used, saying why.
    """
    reasons = []
    model, tree = folder / MODEL_FILE, folder / JSON_FILE
    if model.is_file():
        try:
            content = model.read_bytes()
            return ForeignTokenizer.sentencepiece(content, vocab_size, str(model)), [model]
        except UserError as error:
            reasons.append(str(error))
    if tree.is_file():
        try:
            content = tree.read_bytes()
            return ForeignTokenizer.byte_level(content, vocab_size, marks, str(tree)), [tree]
        except UserError as error:
            reasons.append(str(error))
    if not reasons:
        raise UserError(f"{folder}: has no tokenizer; wanted: {JSON_FILE} or {MODEL_FILE}")
    raise UserError("; ".join(reasons))


def _ours(
    kind: Any,
    vocab_size: int,
    settings: Mapping[str, Any],
    content: bytes,
    specials: Mapping[str, int],
) -> Tokenizer:
    manifest = Manifest(
        kind=kind,
        vocab_size=vocab_size,
        settings=dict(settings),
        corpus="",
        corpus_hash="",
        training_bytes=0,
        training_documents=0,
        bytes_per_token=1.0,  # until it is counted
        trainer=IMPORTED,
        model_hash=hashlib.sha256(content).hexdigest(),
        specials=dict(specials),
    )
    return Tokenizer(manifest, content)


def _require_lossless(tokenizer: Tokenizer, more: str, source: str) -> None:
    if not (tokenizer.gives_back() and tokenizer.gives_back(more)):
        raise UserError(
            f"{source}: is not lossless: it normalises text or changes white space (as a space "
            "put before a text does), so that bytes could not be counted"
        )


def _sentencepiece_kind(content: bytes, source: str) -> str:
    kinds = {1: "unigram", 2: "bpe"}
    kind = read_proto(content).trainer_spec.model_type
    if kind not in kinds:
        raise UserError(f"{source}: is a SentencePiece model of words or characters, not pieces")
    return kinds[kind]


def _frame(pieces: ByteLevelBPE, marks: Marks) -> dict[str, int]:
    """Ids of document start and end. A model without a start was trained on ends between texts."""
    end = _added(pieces, marks.end, "ends")
    if end is None:
        raise UserError(
            "no token ends a document: the model names no eos; name one of its added tokens with "
            f"--end: {_some(pieces)}"
        )
    start = _added(pieces, marks.start, "starts")
    return {"bos": end if start is None else start, "eos": end}


def _added(pieces: ByteLevelBPE, mark: int | str | None, does: str) -> int | None:
    if mark is None:
        return None
    if isinstance(mark, str):
        if mark not in pieces.added:
            raise UserError(
                f"{mark!r}, which {does} a document, is no added token of {JSON_FILE}; allowed: "
                f"{_some(pieces)}"
            )
        return pieces.added[mark]
    if not 0 <= mark < len(pieces.pieces):
        raise UserError(f"id {mark}, which {does} a document, is not in the vocabulary")
    if pieces.pieces[mark]:
        option = {"starts": "--start", "ends": "--end"}[does]
        raise UserError(
            f"id {mark}, which {does} a document, is {pieces.pieces[mark]!r}, a piece of text; "
            f"name an added token with {option}: {_some(pieces)}"
        )
    return mark


def _some(pieces: ByteLevelBPE) -> str:
    names = list(pieces.added)
    return json.dumps(names[:8], ensure_ascii=False) + (" ..." if len(names) > 8 else "")
