"""Reads a GGUF file of llama.cpp: its architecture, and its weights with quantisation undone.

For arch `llama`, llama.cpp reorders the rows of queries and keys, so that the two dimensions of a
rotary pair are adjacent. Here, as in transformers, a pair is a dimension of the first half of a
head and one of the second half, so the reordering is undone. Other archs keep the order of
transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from calibtrain.config import ModelConfig, RopeScalingConfig, validate
from calibtrain.errors import UserError
from calibtrain.models.huggingface.architecture import Architecture
from calibtrain.models.huggingface.gguf_header import check_header
from calibtrain.models.huggingface.gguf_keys import real, review_metadata, scaling_of, whole

ARCHS = {"llama": "turned in pairs", "qwen2": "turned in halves", "qwen3": "turned in halves"}
"""Archs that match our transformer, and the layout of their rotary pairs."""
ROPE_FACTORS = "rope_freqs.weight"
_KNOWN_SCALINGS = [  # of Llama 3.1 and 3.2: a file has the resulting factors, not the settings
    RopeScalingConfig(kind="llama3", factor=factor, original_context=8192) for factor in (8.0, 32.0)
]


class GGUFFile:
    """The metadata and tensors of a GGUF file.

    Attributes:
        source: the file.
        metadata: every key with its value.
        shapes: shapes of all tensors, the slowest axis first.
        quantisation: number of tensors of each type.
    """

    naming: Literal["huggingface", "gguf"] = "gguf"

    def __init__(self, path: Path):
        """Args:
        path: the file.

        Raises:
            UserError: when it is not a GGUF file, or is cut short.
        """
        from gguf import GGUFReader

        self.source = str(path)
        try:
            check_header(path)
            reader = GGUFReader(path)
            self.metadata = {
                name: field.contents()
                for name, field in reader.fields.items()
                if not name.startswith("GGUF.")
            }
        except (ValueError, LookupError, OSError, ArithmeticError, MemoryError, TypeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: is not a whole GGUF file ({said}); it is damaged or cut short"
            ) from None
        _require_in_order(reader, path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }
        types = [tensor.tensor_type.name for tensor in reader.tensors]
        self.quantisation = {name: types.count(name) for name in sorted({*types})}
        parts = self.metadata.get("split.count", 1)
        if parts not in (0, 1):
            raise UserError(f"{path}: is one part of {parts}; merge them into one file")

    @property
    def arch(self) -> str:
        """The kind of its architecture."""
        return str(self.metadata.get("general.architecture"))

    def value(self, key: str, default: Any = None) -> Any:
        """Returns a value of the architecture."""
        return self.metadata.get(f"{self.arch}.{key}", default)

    def whole(self, key: str, default: int | None = None) -> int:
        """Returns a value of the architecture; UserError if it is not a whole number above 0."""
        return whole(self.metadata, f"{self.arch}.{key}", self.source, default)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, float32, its rows in the order of transformers.

        Raises:
            UserError: for a quantisation that cannot be undone.
        """
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        try:
            array = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise UserError(
                f"{self.source}: {name} is quantised as {tensor.tensor_type.name}, which cannot "
                "be undone here"
            ) from None
        array = np.asarray(array, np.float32).reshape(self.shapes[name])
        part = name.split(".")[-2]
        if self.arch == "llama" and part in ("attn_q", "attn_k"):
            heads = self.value("attention.head_count")
            kv_heads = self.value("attention.head_count_kv") or heads
            return halves(array, heads if part == "attn_q" else kv_heads)
        return array


def _require_in_order(reader: Any, path: Path) -> None:
    """Refuses a file whose tensors do not follow each other, as llama.cpp does."""
    expected = int(reader.data_offset)
    for tensor in reader.tensors:
        if int(tensor.data_offset) != expected:
            raise UserError(
                f"{path}: is not a whole GGUF file ({tensor.name[:60]} begins at byte "
                f"{int(tensor.data_offset):,}, not {expected:,}); it is damaged"
            )
        expected += -(-int(tensor.n_bytes) // int(reader.alignment)) * int(reader.alignment)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Returns rows of heads with adjacent rotary pairs, reordered to pairs across the halves."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def read_gguf_architecture(file: GGUFFile) -> Architecture:
    """Returns the architecture in a file's metadata.

    Raises:
        UserError: for what is unknown, missing or not supported; it names it.
    """
    arch, source = file.arch, file.source
    if arch not in ARCHS:
        raise UserError(
            f"{source}: architecture {arch!r} is not known; allowed: {', '.join(ARCHS)}"
        )
    epsilon = f"{arch}.attention.layer_norm_rms_epsilon"
    width, heads = file.whole("embedding_length"), file.whole("attention.head_count")
    size = file.whole("attention.key_length", max(1, width // heads))
    notes = review_metadata(file.metadata, arch, size, source)
    embedding = file.shapes.get("token_embd.weight")
    if embedding is None:
        raise UserError(f"{source}: lacks token_embd.weight")
    rows = file.whole("vocab_size", embedding[0])
    if rows != embedding[0]:
        raise UserError(
            f"{source}: {arch}.vocab_size is {rows:,}, but token_embd.weight has "
            f"{embedding[0]:,} rows"
        )
    base = real(file.metadata, f"{arch}.rope.freq_base", source, 10_000.0)
    model: Mapping[str, Any] = {
        "width": width,
        "depth": file.whole("block_count"),
        "heads": heads,
        "kv_heads": file.whole("attention.head_count_kv", heads),
        "head_size": None if size * heads == width else size,
        "feed_forward_width": file.whole("feed_forward_length"),
        "qkv_bias": arch == "qwen2",
        "qk_norm": arch == "qwen3",
        "tied": "output.weight" not in file.shapes,
        "embedding_scale": False,
        "rope_base": base,
        "rope_scaling": _rope_scaling(file, size, base),
        "norm_epsilon": _shortest(real(file.metadata, epsilon, source)),
    }
    return Architecture(
        name=arch,
        model=validate(ModelConfig, model, source),
        vocab_size=embedding[0],
        context=file.whole("context_length"),
        notes=tuple(notes),
    )


def _shortest(value: float) -> float:
    """Returns the shortest decimal of a float32: 1e-5 instead of 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(file: GGUFFile, size: int, base: float) -> dict[str, Any]:
    from calibtrain.models.layers import rotary_frequencies

    kind, factor = scaling_of(file.metadata, file.arch, file.source)
    if ROPE_FACTORS in file.shapes:
        if kind != "none":
            raise UserError(
                f"{file.source}: has both {ROPE_FACTORS} and {file.arch}.rope.scaling.factor "
                f"{factor:g}; calibtrain has one or the other"
            )
        factors = file.read(ROPE_FACTORS)
        plain = np.asarray(rotary_frequencies(size, base))
        for known in _KNOWN_SCALINGS:
            lowered = np.asarray(rotary_frequencies(size, base, known))
            if factors.shape == plain.shape and np.allclose(plain / factors, lowered, rtol=1e-4):
                return known.model_dump()
        raise UserError(
            f"{file.source}: {ROPE_FACTORS} are not those of Llama 3.1 or 3.2; others are not known"
        )
    return {"kind": "none"} if kind == "none" else {"kind": kind, "factor": factor}
