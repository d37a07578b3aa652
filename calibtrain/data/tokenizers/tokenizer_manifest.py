"""The record of a tokenizer's origin, `manifest.json`, and how it is read from a folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from calibtrain.errors import UserError
from calibtrain.storage.json_text import parse_json

FORMAT_VERSION = 1  # of the manifest and of `Tokenizer.encode`'s handling around SentencePiece
MODEL_FILE, MANIFEST_FILE = "tokenizer.model", "manifest.json"
PADDED_TO = "padded_to"
IMPORTED = "imported"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The origin of a tokenizer, as `manifest.json` holds it.

    Attributes:
        kind: `unigram`, `bpe`, `byte` or `byte_level_bpe`.
        vocab_size: number of ids, specials included.
        settings: everything else that shaped the training. For an imported tokenizer, `PADDED_TO`
            (the number of ids, where the model has more than the tokenizer) and what is left out.
        corpus: name of the corpus; for an imported tokenizer, the one its tokens were counted on.
        corpus_hash: content hash of the corpus.
        training_bytes: UTF-8 bytes of the training text; 0 where not known.
        training_documents: documents of the training text; 0 where not known.
        bytes_per_token: training bytes per token, without document starts and ends; for an imported
            tokenizer, bytes per token of the corpus.
        trainer: name and version of the trainer, or `IMPORTED`.
        model_hash: hex SHA-256 of `tokenizer.model` or `tokenizer.json`; None for `byte`.
        specials: ids that stand for no bytes, by name; `unk` never appears in a text.
        format_version: version of this record.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    kind: Literal["unigram", "bpe", "byte", "byte_level_bpe"]
    vocab_size: int
    settings: dict[str, Any]
    corpus: str
    corpus_hash: str
    training_bytes: int
    training_documents: int
    bytes_per_token: float
    trainer: str
    model_hash: str | None
    specials: dict[str, int]
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Returns the manifest as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, tree: Any) -> Self:
        """Reads what `to_dict` returns.

        Raises:
            UserError: for the first field that does not fit.
        """
        version = tree.get("format_version") if isinstance(tree, dict) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"format_version {version!r} is not known; this version reads {FORMAT_VERSION}"
            )
        try:
            return TypeAdapter(cls).validate_json(json.dumps(tree))
        except ValidationError as error:
            item = error.errors(include_url=False)[0]
            key = ".".join(map(str, item["loc"]))
            raise UserError(f"{key}: {item['msg'][:1].lower()}{item['msg'][1:]}") from None


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a tokenizer's folder.

    Raises:
        UserError: when it is missing, truncated or of another format.
    """
    path = folder / MANIFEST_FILE
    content = read_file(path)
    try:
        return Manifest.from_dict(parse_json(content))
    except ValueError:
        raise UserError(f"{path}: is no JSON; it is damaged or cut short") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_file(path: Path) -> bytes:
    """Returns the bytes of a file of a tokenizer's folder; UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; a tokenizer's folder holds {MANIFEST_FILE} and {MODEL_FILE}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
