"""Facts about a tokenizer, for `calibtrain tokenizer inspect`."""

from typing import Any

from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_manifest import Manifest
from calibtrain.data.tokenizers.training_sample import SAMPLE


def describe(tokenizer: Tokenizer, *, longest: int = 10) -> dict[str, Any]:
    """Returns the facts that `calibtrain tokenizer inspect` shows, as JSON values.

    `character_pieces` stand for one character, `byte_pieces` for one byte of a character that has
    no piece, `merged_pieces` for two characters or more.
    """
    manifest = tokenizer.manifest
    pieces = dict(enumerate(tokenizer.piece_bytes))
    for index in {*manifest.specials.values(), *tokenizer.byte_ids.tolist()}:
        pieces.pop(index, None)
    pieces = {index: piece for index, piece in pieces.items() if piece}
    by_length = sorted(pieces.values(), key=lambda piece: (-len(piece), piece))
    # a piece of byte-level BPE may be part of a character
    characters = sum(len(piece.decode(errors="replace")) == 1 for piece in pieces.values())
    return {
        "kind": manifest.kind,
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": manifest.bytes_per_token,
        "specials": manifest.specials,
        "byte_pieces": int((tokenizer.byte_ids >= 0).sum()),
        "character_pieces": characters,
        "merged_pieces": len(pieces) - characters,
        "longest_pieces": [piece.decode(errors="replace") for piece in by_length[:longest]],
        "corpus": manifest.corpus,
        "corpus_hash": manifest.corpus_hash,
        "training_bytes": manifest.training_bytes,
        "training_documents": manifest.training_documents,
        "training_share": _share(manifest),
        "settings": manifest.settings,
        "trainer": manifest.trainer,
        "model_hash": manifest.model_hash,
        "hash": tokenizer.hash,
    }


def _share(manifest: Manifest) -> float | None:
    """Returns the share of the training text that it was trained on; None where not known."""
    if not manifest.training_bytes:
        return None
    drawn_from = manifest.settings.get(SAMPLE, {}).get("of_bytes", manifest.training_bytes)
    return float(manifest.training_bytes / drawn_from)
