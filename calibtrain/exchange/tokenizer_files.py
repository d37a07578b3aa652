"""A tokenizer of ours in the files that transformers reads, where it can say the same.

Each `tokenizer.json` that is written is tried first, on text that tells ways of splitting apart:
one that gives other ids than ours is left out, and that is said.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.data.byte_level_bpe import BYTE_LEVEL, JSON_FILE, byte_alphabet
from calibtrain.data.sentencepiece_model import read_proto
from calibtrain.data.tokenizer import Tokenizer
from calibtrain.data.tokenizer_manifest import MODEL_FILE

TOKENIZER_CONFIG = "tokenizer_config.json"
_TRIAL = (
    "In the beginning God created the heaven and the earth.",
    "  two  spaces\n\nand lines\t1234567 don't ",
    "naïve Ünïcode 你好 \U0001f469\u200d\U0001f52c \x00 ﬁ",
    "",
    " ",
)


def tokenizer_files(tokenizer: Tokenizer, context: int) -> tuple[dict[str, bytes], list[str]]:
    """Files by name, and notes on what they cannot say.

    Args:
        tokenizer: of a run.
        context: tokens that its model is made to see.
    """
    files: dict[str, bytes] = {}
    notes: list[str] = []
    if tokenizer.manifest.kind == BYTE_LEVEL:
        assert tokenizer.model is not None
        files[JSON_FILE] = tokenizer.model
    else:
        if tokenizer.model is not None:
            files[MODEL_FILE] = tokenizer.model
        tree = _bytes_alone() if tokenizer.model is None else _sentencepiece(tokenizer.model)
        content = json.dumps(tree, ensure_ascii=False).encode()
        if _agrees(content, tokenizer):
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
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        files[TOKENIZER_CONFIG] = text.encode()
    return files, notes


def _names(content: bytes) -> dict[int, str]:
    """Texts of added tokens."""
    return {token["id"]: token["content"] for token in json.loads(content)["added_tokens"]}


def _agrees(content: bytes, tokenizer: Tokenizer) -> bool:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(content.decode())
    encoded = theirs.encode_batch(list(_TRIAL), add_special_tokens=False)
    own = tokenizer.encode_batch(_TRIAL)
    return all(one.ids == ids.tolist() for one, ids in zip(encoded, own, strict=True))


def _bytes_alone() -> dict[str, Any]:
    """The tokenizer of kind `byte`: byte-level BPE without a merge."""
    vocabulary = {letter: value for value, letter in enumerate(byte_alphabet())}
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    return _tree(model, _added({"<s>": 256, "</s>": 257}), pre_tokenizer=level, decoder=level)


def _sentencepiece(model: bytes) -> dict[str, Any]:
    """A SentencePiece model that was trained here: identity, byte fallback, no space put before."""
    proto = read_proto(model)
    kind = type(proto).SentencePiece
    controls = {
        piece.piece: index
        for index, piece in enumerate(proto.pieces)
        if piece.type in (kind.CONTROL, kind.UNKNOWN)
    }
    own = {
        piece.piece: index
        for index, piece in enumerate(proto.pieces)
        if piece.type == kind.USER_DEFINED
    }
    added = [*_added(controls), *_added(own, special=False)]
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
    return _tree(
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
    """Pairs of pieces that make a piece, the ones that SentencePiece prefers first."""
    scores = dict(pieces)
    found = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    found.sort(key=lambda merge: merge[0])
    return [[left, right] for _, left, right in found]


def _added(tokens: Mapping[str, int], *, special: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for token, index in tokens.items()
    ]


def _tree(model: Mapping[str, Any], added: Sequence[Any], **parts: Any) -> dict[str, Any]:
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
