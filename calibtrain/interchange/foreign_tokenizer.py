"""Converts the tokenizer of an imported model: which file is used, and how documents are framed."""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.tokenizers.added_tokens import ADDED_TEXT, AddedToken, text_tokens
from calibtrain.data.tokenizers.byte_level_bpe import (
    BYTE_LEVEL,
    JSON_FILE,
    ByteLevelBPE,
    added_of,
    read_entries,
)
from calibtrain.data.tokenizers.sentencepiece_model import (
    SPACE_MARK,
    exact_pieces,
    load_model,
    read_proto,
    specials_of,
)
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_manifest import IMPORTED, MODEL_FILE, PADDED_TO, Manifest
from calibtrain.errors import UserError
from calibtrain.interchange.side_files import require_agreement
from calibtrain.interchange.tokenizer_files import gives_same_ids


@dataclasses.dataclass(frozen=True)
class Marks:
    """The tokens around a document, as ids or as texts of added tokens; None means not stated.

    Attributes:
        start: the token that starts a document.
        end: the token that ends a document.
        others: texts of other marks (padding, turns of a chat), which are never text.
    """

    start: int | str | None
    end: int | str | None
    others: Collection[str] = ()


@dataclasses.dataclass(frozen=True)
class ForeignTokenizer:
    """An imported tokenizer.

    Attributes:
        tokenizer: the tokenizer, converted to ours.
        notes: its differences from the original, one sentence each.
    """

    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()

    @classmethod
    def byte_level(
        cls, content: bytes, vocab_size: int, marks: Marks, source: str
    ) -> "ForeignTokenizer":
        """Converts a `tokenizer.json`.

        Args:
            content: content of the file.
            vocab_size: rows of the model's embedding.
            marks: the tokens around a document.
            source: name of the source in messages.

        Raises:
            UserError: where it is not lossless, has more ids than the model, or has no token that
                ends a document.
        """
        try:
            vocabulary, added = read_entries(content)
            specials = _frame(vocabulary, added, vocab_size, marks)
            text = text_tokens(added, _marks(added, specials, marks.others))
            pieces = ByteLevelBPE(content, vocab_size, text)
            _require_composed(pieces, text)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        notes = []
        settings: dict[str, Any] = {}
        if text:
            settings[ADDED_TEXT] = text
        if framing := [
            token.content
            for token in added
            if not token.is_special and token.id not in text and token.content
        ]:
            notes.append(
                f"its tokenizer.json calls {_few(framing)} text, but its configuration calls "
                "them marks: no text is read as such"
            )
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
        if spare := vocab_size - len({*vocabulary.values(), *(token.id for token in added)}):
            notes.append(f"the model has {spare:,} rows that its tokenizer has no entry for")
        tokenizer = _ours(BYTE_LEVEL, vocab_size, settings, content, specials)
        if specials["bos"] == specials["eos"]:
            notes.append("the token that ends a document also starts the next one")
        _require_lossless(tokenizer, " ".join(token.content for token in added), source)
        return cls(tokenizer, tuple(notes))

    @classmethod
    def sentencepiece(cls, content: bytes, vocab_size: int, source: str) -> "ForeignTokenizer":
        """Converts a `tokenizer.model`; arguments and errors are those of `byte_level`."""
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
        """Returns the tokenizer with the corpus that its tokens were counted on."""
        self.tokenizer.manifest = dataclasses.replace(
            self.tokenizer.manifest,
            corpus=corpus,
            corpus_hash=corpus_hash,
            bytes_per_token=bytes_per_token,
        )
        return self.tokenizer


def find_tokenizer(
    folder: Path, vocab_size: int, marks: Marks, declared: Sequence[AddedToken] = ()
) -> tuple[ForeignTokenizer, list[Path]]:
    """Returns the tokenizer of a Hugging Face folder, and the files it was read from.

    `tokenizer.model` is used if it is lossless, else `tokenizer.json` if that is.

    Args:
        folder: folder of the model.
        vocab_size: rows of the model's embedding.
        marks: the tokens around a document.
        declared: added tokens that other files of the folder list.

    Raises:
        UserError: where neither can be used; it says why.
    """
    reasons = []
    model, tree = folder / MODEL_FILE, folder / JSON_FILE
    if model.is_file():
        try:
            content = _read(model)
            found = ForeignTokenizer.sentencepiece(content, vocab_size, str(model))
            beside = _read(tree) if tree.is_file() else None
            return _beside(found, content, beside, marks, declared, folder), [model]
        except UserError as error:
            reasons.append(str(error))
    if tree.is_file():
        try:
            content = _read(tree)
            found = ForeignTokenizer.byte_level(content, vocab_size, marks, str(tree))
            framing = {*marks.others, *(x for x in (marks.start, marks.end) if type(x) is str)}
            require_agreement(declared, read_entries(content)[1], framing, folder)
            _require_their_ids(content, found.tokenizer, str(tree))
            return found, [tree]
        except UserError as error:
            reasons.append(str(error))
    if not reasons:
        raise UserError(f"{folder}: has no tokenizer; wanted: {JSON_FILE} or {MODEL_FILE}")
    raise UserError("; ".join(reasons))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _beside(
    found: ForeignTokenizer,
    model: bytes,
    tree: bytes | None,
    marks: Marks,
    declared: Sequence[AddedToken],
    folder: Path,
) -> ForeignTokenizer:
    """Returns a SentencePiece model with notes on other files that transformers would read too.

    Raises:
        UserError: where those files add a text token that the model does not know.
    """
    proto = read_proto(model)
    kind = type(proto).SentencePiece
    own = {
        piece.piece.replace(SPACE_MARK, " ") for piece in proto.pieces if piece.type != kind.NORMAL
    }
    added = [*declared, *(added_of(tree) if tree is not None else ())]
    marked = {token.content for token in added if token.flags.get("special") is True}
    known = {*own, *marks.others, *marked, ""}
    for token in added:
        if token.content not in known:
            raise UserError(
                f"{folder}: added token {token.content[:60]!r} is text, and {MODEL_FILE} does not "
                "know it as a token of its own"
            )
    if tree is None or gives_same_ids(tree, found.tokenizer):
        return found
    note = f"{JSON_FILE} gives other tokens than {MODEL_FILE}, which is used"
    return dataclasses.replace(found, notes=(*found.notes, note))


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
        bytes_per_token=1.0,  # replaced when it is counted
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


def _frame(
    vocabulary: Mapping[str, int], added: Sequence[AddedToken], vocab_size: int, marks: Marks
) -> dict[str, int]:
    """Returns the ids of document start and end; without a start token, the end serves as both."""

    def found(mark: int | str | None, does: str) -> int | None:
        if mark is None:
            return None
        if isinstance(mark, str):
            if mark not in contents:
                raise UserError(
                    f"{mark[:60]!r}, which {does} a document, is not an added token of "
                    f"{JSON_FILE}; allowed: {_few(contents)}"
                )
            return next(token.id for token in added if token.content == mark)
        if not 0 <= mark < vocab_size:
            raise UserError(
                f"id {mark}, which {does} a document, is not in the vocabulary of {vocab_size:,}"
            )
        piece = next((piece for piece, index in vocabulary.items() if index == mark), None)
        if piece is not None and piece not in contents:
            option = {"starts": "--start", "ends": "--end"}[does]
            raise UserError(
                f"id {mark}, which {does} a document, is {piece[:60]!r}, a piece of text; "
                f"name an added token with {option}: {_few(contents)}"
            )
        return mark

    contents = [token.content for token in added]
    end = found(marks.end, "ends")
    if end is None:
        raise UserError(
            "no token ends a document: the model names no eos; name one of its added tokens with "
            f"--end: {_few(contents)}"
        )
    start = found(marks.start, "starts")
    return {"bos": end if start is None else start, "eos": end}


def _marks(
    added: Sequence[AddedToken], frame: Mapping[str, int], others: Collection[str]
) -> set[int]:
    """Returns the ids of added tokens that the model's configuration uses as marks."""
    return {*frame.values(), *(token.id for token in added if token.content in others)}


def _require_composed(pieces: ByteLevelBPE, text: Collection[int]) -> None:
    """Refuses an added token that its tokenizer would normalise before it looks for it."""
    for token in pieces.tokens if pieces.left_out else ():
        composed = unicodedata.is_normalized("NFC", token.content)
        if token.id in text and token.flags["normalized"] and not composed:
            raise UserError(
                f"{JSON_FILE}: added token {token.content[:60]!r} is composed ({pieces.left_out}) "
                "before it is looked for, which does not come back; only a lossless tokenizer can "
                "be used"
            )


def _require_their_ids(content: bytes, tokenizer: Tokenizer, source: str) -> None:
    """Refuses a file whose added tokens get other ids from the tokenizers package."""
    from tokenizers import Tokenizer as Theirs

    try:
        theirs = Theirs.from_str(content.decode())
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{source}: cannot be used: {str(error)[:200]}") from None
    _, added = read_entries(content)
    used = {*tokenizer.manifest.settings.get(ADDED_TEXT, ()), tokenizer.bos_id, tokenizer.eos_id}
    for token in added:
        own = theirs.token_to_id(token.content)
        if token.id in used and own != token.id:
            raise UserError(
                f"{source}: added token {token.content[:60]!r} has id {token.id}, but the "
                f"tokenizers package numbers it {own}; number added tokens on from the "
                "vocabulary's last"
            )


def _few(names: Sequence[str]) -> str:
    return json.dumps([name[:60] for name in names[:8]], ensure_ascii=False) + (
        " ..." if len(names) > 8 else ""
    )
