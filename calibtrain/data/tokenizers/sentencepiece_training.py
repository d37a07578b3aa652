"""SentencePiece training with settings that make it lossless, deterministic and silent.

The input is text, the output the bytes of a `tokenizer.model`. Every refusal of the trainer becomes
one line that names the key to change and the value that would work.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sentencepiece

from calibtrain.config import TokenizerConfig
from calibtrain.data.tokenizers.sentencepiece_model import SPACE_MARK, read_proto
from calibtrain.data.tokenizers.trainer_process import TrainerError, train
from calibtrain.errors import UserError

_UNKNOWN_MARK = "\u2585"  # the trainer silently skips lines with this character
_LINE_CHARACTERS = 4096
_LOWEST_COVERAGE = 0.98  # the trainer's own limit, and that of the configuration

# Lossless: no normalisation, no space added or removed, bytes for what has no piece. A newline is
# a piece by itself. A space always has a piece: if coverage left it out, it would be spelled with
# the bytes of its mark, and come back as the mark. The result depends on the number of threads
# (each sums its share of the expectations), so that number is fixed.
_FIXED: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "byte_fallback": True,
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "user_defined_symbols": ["\n"],
    "required_chars": SPACE_MARK,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "num_threads": 4,
    "max_sentence_length": 4 * _LINE_CHARACTERS,  # bytes; longer lines would be skipped
}


def training_settings(config: TokenizerConfig) -> dict[str, Any]:
    """Returns the settings besides kind and size that shape the trained model, as JSON values."""
    settings = {**_FIXED, "character_coverage": config.character_coverage}
    return settings if config.cut_from is None else {**settings, "cut_from": config.cut_from}


def trainer_version() -> str:
    """Returns the name and version of the trainer; another version may train another model."""
    return f"sentencepiece {sentencepiece.__version__}"


def train_sentencepiece(config: TokenizerConfig, texts: Sequence[str]) -> bytes:
    """Trains a `unigram` or `bpe` model of `config.vocab_size` pieces, or of `config.cut_from`.

    Args:
        config: kind, size and character coverage.
        texts: the training documents, without lone surrogates; read twice.

    Returns:
        The bytes of `tokenizer.model`: the same for the same texts on any number of cores.

    Raises:
        UserError: when the size is larger or smaller than the texts allow (naming the nearest size
            that works).
    """
    wanted, characters = config.cut_from or config.vocab_size, sum(map(len, texts))
    options = {
        "model_type": config.kind,
        "vocab_size": wanted,
        # Without the limit, a BPE that runs out of pairs ends with fewer pieces, which gives
        # the largest possible size; with the limit it only says that the size is wrong.
        "hard_vocab_limit": config.kind == "unigram",
        # Otherwise the suffix array overflows at 2^31 characters and aborts the process.
        "train_extremely_large_corpus": characters >= 2**30,
        "character_coverage": config.character_coverage,
        **_FIXED,
    }
    try:
        model = train(options, training_lines(texts), characters)
    except TrainerError as error:
        raise _explain(config, str(error)) from None
    size = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    if size != wanted:
        raise _too_large(config, size)
    return model


def cut_bpe(model: bytes, vocab_size: int) -> bytes:
    """Returns a BPE model with the first pieces of another one.

    Special pieces, the newline and the 256 bytes stay. Then come the characters, and then the
    merges in their order, as far as they fit. Where not all characters fit, the most frequent ones
    stay, and the others are spelled in bytes. So the pieces of a smaller cut are among those of a
    larger one. Where all characters fit, training with this size gives the same pieces.

    Args:
        model: the bytes of a BPE model that SentencePiece has trained.
        vocab_size: how many pieces are kept, at most all.

    Raises:
        UserError: for a size that holds no character.
    """
    proto = read_proto(model)
    normal = [piece for piece in proto.pieces if piece.type == proto.SentencePiece.NORMAL]
    fixed = [piece for piece in proto.pieces if piece.type != proto.SentencePiece.NORMAL]
    room = vocab_size - len(fixed)
    if room < 1:
        raise UserError(
            f"tokenizer.vocab_size: {vocab_size} leaves no room for a character; the smallest "
            f"possible size with cut_from is {len(fixed) + 1}"
        )
    merges = [piece for piece in normal if len(piece.piece) > 1]
    characters = [piece for piece in normal if len(piece.piece) == 1]  # most frequent first
    if len(characters) > room:  # a space always has a piece
        characters.sort(key=lambda piece: piece.piece != SPACE_MARK)
    kept = merges[: max(0, room - len(characters))] + characters[:room]
    made = type(proto)()
    made.CopyFrom(proto)
    made.trainer_spec.vocab_size = vocab_size
    del made.pieces[:]
    made.pieces.extend(fixed)
    for place, piece in enumerate(kept):
        made.pieces.add(piece=piece.piece, score=-float(place))
    return bytes(made.SerializeToString())


def training_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yields texts as lines short enough for the trainer; only newlines and reserved marks go."""
    has_space = False
    for text in texts:
        has_space = has_space or " " in text
        for line in re.split(f"[\n{SPACE_MARK}{_UNKNOWN_MARK}]", text):
            yield from _pieces_of_line(line)
    if not has_space:
        yield " "  # a required character that never occurs would abort the process


def _pieces_of_line(line: str) -> Iterator[str]:
    """Cuts a long line before spaces, if it has any, so that no word is cut."""
    start = 0
    while len(line) - start > _LINE_CHARACTERS:
        end = start + _LINE_CHARACTERS
        cut = line.rfind(" ", start + 1, end)
        end = cut if cut > 0 else end
        yield line[start:end]
        start = end
    if start < len(line):
        yield line[start:]


def _explain(config: TokenizerConfig, message: str) -> UserError:
    if found := re.search(r"size too high.*<= (\d+)", message):
        return _too_large(config, int(found[1]))
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        hint = ""
        if config.character_coverage > _LOWEST_COVERAGE:
            hint = (
                f", or lower tokenizer.character_coverage ({config.character_coverage:g}, "
                f"at least {_LOWEST_COVERAGE}): fewer characters then need a piece of their own"
            )
        return UserError(
            f"{_asked(config)} is too small for the characters of this "
            f"text; the smallest possible size is {found[1]}{hint}"
        )
    return UserError(f"tokenizer: SentencePiece cannot train on this text: {message.strip()}")


def _asked(config: TokenizerConfig) -> str:
    """Returns the key that says how many pieces are trained, and its value."""
    if config.cut_from is not None:
        return f"tokenizer.cut_from: {config.cut_from}"
    return f"tokenizer.vocab_size: {config.vocab_size}"


def _too_large(config: TokenizerConfig, largest: int) -> UserError:
    return UserError(
        f"{_asked(config)} is more than a {config.kind} tokenizer can "
        f"learn from this text; the largest possible size is {largest}"
    )
