"""The meaning of a SentencePiece model's ids: exact bytes, single bytes, specials."""

from typing import Any

import numpy as np
import sentencepiece
from jaxtyping import Int

from calibtrain.data.tokenizers.tokenizer_manifest import MODEL_FILE
from calibtrain.errors import UserError

SPACE_MARK = "\u2581"  # SentencePiece's own letter for a space


def load_model(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """Reads the bytes of a model file; UserError when they are not a model."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError:
        raise UserError(f"{MODEL_FILE} is not a SentencePiece model") from None
    return processor


def read_proto(model: bytes) -> Any:
    """Returns the parsed protobuf of a model file that `load_model` accepts."""
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    proto = messages.ModelProto()
    proto.ParseFromString(model)
    return proto


def exact_pieces(
    processor: sentencepiece.SentencePieceProcessor,
) -> tuple[tuple[bytes, ...], Int[np.ndarray, " 256"]]:
    """Returns the exact bytes of every id (empty for specials), and the id of every single byte.

    Raises:
        UserError: when a byte has no piece, so that some text could not be encoded.
    """
    byte_ids = np.full(256, -1, np.int32)
    pieces: list[bytes] = []
    for index in range(processor.vocab_size()):
        name = processor.id_to_piece(index)
        if processor.is_control(index) or processor.is_unknown(index):
            pieces.append(b"")
        elif processor.is_byte(index):
            value = int(name[1:-1], 16)  # <0x41>
            byte_ids[value] = index
            pieces.append(bytes([value]))
        else:
            pieces.append(name.replace(SPACE_MARK, " ").encode())
    if (byte_ids < 0).any():
        raise UserError(
            f"{MODEL_FILE} has no piece for every byte (byte_fallback), so it loses text"
        )
    return tuple(pieces), byte_ids


def specials_of(processor: sentencepiece.SentencePieceProcessor) -> dict[str, int]:
    """Returns the ids of `unk`, document start and document end; UserError if one is missing."""
    ids = {"unk": processor.unk_id(), "bos": processor.bos_id(), "eos": processor.eos_id()}
    for name, index in ids.items():
        if index < 0:
            raise UserError(f"{MODEL_FILE} has no piece for {name}")
    return ids
