"""Writes a tokenizer in the files that transformers reads, where they give the same ids.

Each `tokenizer.json` is tried first, on texts that distinguish ways of splitting. One that gives
other ids than ours is left out, with a note.
"""

import json
from collections.abc import Sequence
from typing import Any

from calibtrain.data.tokenizers.added_tokens import ADDED_TEXT
from calibtrain.data.tokenizers.byte_level_bpe import BYTE_LEVEL, JSON_FILE, added_of, byte_alphabet
from calibtrain.data.tokenizers.sentencepiece_model import read_proto
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_json import added_token, byte_level, tokenizer_tree
from calibtrain.data.tokenizers.tokenizer_manifest import MODEL_FILE
from calibtrain.storage.json_text import parse_json

TOKENIZER_CONFIG = "tokenizer_config.json"
_TRIAL = (
    "In the beginning God created the heaven and the earth.",
    "  two  spaces\n\nand lines\t1234567 don't ",
    "naïve Ünïcode 你好 \U0001f469\u200d\U0001f52c \x00 ﬁ",
    "",
    " ",
)


def tokenizer_files(tokenizer: Tokenizer, context: int) -> tuple[dict[str, bytes], list[str]]:
    """Returns the files by name, and notes on what they cannot express.

    Args:
        tokenizer: tokenizer of a run.
        context: context of its model, in tokens.
    """
    files: dict[str, bytes] = {}
    notes: list[str] = []
    if tokenizer.manifest.kind == BYTE_LEVEL:
        assert tokenizer.model is not None
        files[JSON_FILE] = _with_numbers(tokenizer.model)
    else:
        if tokenizer.model is not None:
            files[MODEL_FILE] = tokenizer.model
        tree = _bytes_alone() if tokenizer.model is None else _sentencepiece(tokenizer.model)
        content = json.dumps(tree, ensure_ascii=False).encode()
        if gives_same_ids(content, tokenizer):
            files[JSON_FILE] = content
        else:
            notes.append(
                f"{JSON_FILE} is left out: the tokenizers package gives other tokens than "
                "SentencePiece for this model; encode with SentencePiece"
            )
    if JSON_FILE in files:
        named = _names(files[JSON_FILE])
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": named.get(tokenizer.bos_id),
            "eos_token": named.get(tokenizer.eos_id),
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
        }
        if apart := _marks_called_text(tokenizer):
            settings["additional_special_tokens"] = apart
            notes.append(
                f"{TOKENIZER_CONFIG} calls {len(apart)} added tokens special that {JSON_FILE} "
                f"calls text ({', '.join(apart)[:80]}), because this run reads no text as such"
            )
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        files[TOKENIZER_CONFIG] = text.encode()
    return files, notes


def _with_numbers(content: bytes) -> bytes:
    """Returns a `tokenizer.json` whose vocabulary holds the added tokens too.

    The tokenizers package numbers those anew that it does not hold, whatever id they have: they
    would follow the last entry.
    """
    tree = parse_json(content)
    vocabulary = tree["model"]["vocab"]
    missing = {
        token.content: token.id for token in added_of(content) if token.content not in vocabulary
    }
    behind = range(len(vocabulary), len(vocabulary) + len(missing))
    if [*missing.values()] == [*behind]:  # where the package would put them
        return content
    tree["model"]["vocab"] = {**vocabulary, **missing}
    return json.dumps(tree, ensure_ascii=False).encode()


def _marks_called_text(tokenizer: Tokenizer) -> list[str]:
    """Returns the added tokens that `tokenizer.json` calls text and the run treats as marks."""
    if tokenizer.manifest.kind != BYTE_LEVEL or tokenizer.model is None:
        return []
    read = {*tokenizer.manifest.settings.get(ADDED_TEXT, ()), tokenizer.bos_id, tokenizer.eos_id}
    return [
        token.content
        for token in added_of(tokenizer.model)
        if not token.is_special and token.content and token.id not in read
    ]


def _names(content: bytes) -> dict[int, str]:
    """Returns the texts of added tokens by id."""
    return {token["id"]: token["content"] for token in parse_json(content)["added_tokens"]}


def gives_same_ids(content: bytes, tokenizer: Tokenizer) -> bool:
    """Returns whether the tokenizers package gives our ids for trial texts."""
    from tokenizers import Tokenizer as Theirs

    try:
        theirs = Theirs.from_str(content.decode())
    except Exception:  # the library raises no narrower class
        return False
    encoded = theirs.encode_batch(list(_TRIAL), add_special_tokens=False)
    own = tokenizer.encode_batch(_TRIAL)
    return all(one.ids == ids.tolist() for one, ids in zip(encoded, own, strict=True))


def _bytes_alone() -> dict[str, Any]:
    """Returns the tokenizer of kind `byte`, as byte-level BPE without merges."""
    vocabulary = {letter: value for value, letter in enumerate(byte_alphabet())}
    level = byte_level(use_regex=False)
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    added = [added_token(256, "<s>"), added_token(257, "</s>")]
    return tokenizer_tree(model, added, pre_tokenizer=level, decoder=level)


def _sentencepiece(model: bytes) -> dict[str, Any]:
    """Returns a SentencePiece model trained here: no normalisation or prefix, byte fallback."""
    proto = read_proto(model)
    kind = type(proto).SentencePiece
    numbered = list(enumerate(proto.pieces))
    controls = [
        added_token(index, piece.piece)
        for index, piece in numbered
        if piece.type in (kind.CONTROL, kind.UNKNOWN)
    ]
    own = [
        added_token(index, piece.piece, special=False)
        for index, piece in numbered
        if piece.type == kind.USER_DEFINED
    ]
    added = [*controls, *own]
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    unknown = proto.trainer_spec.unk_id
    tree: dict[str, Any]
    if proto.trainer_spec.model_type == 1:  # unigram
        tree = {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": pieces,
            "byte_fallback": True,
        }
    else:
        tree = {
            "type": "BPE",
            "unk_token": proto.pieces[unknown].piece,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: index for index, (piece, _) in enumerate(pieces)},
            "merges": _merges(
                [(piece.piece, piece.score) for piece in proto.pieces if piece.type == kind.NORMAL]
            ),
        }
    return tokenizer_tree(
        tree,
        added,
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
    )


def _merges(pieces: Sequence[tuple[str, float]]) -> list[list[str]]:
    """Returns the pairs of pieces that make a piece, in the order of SentencePiece's preference."""
    scores = dict(pieces)
    found = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    found.sort(key=lambda merge: merge[0])
    return [[left, right] for _, left, right in found]
