"""Opens a model to import: its architecture, tokenizer and tensors, which are read when needed."""

import dataclasses
import hashlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from calibtrain.data.tokenizers.byte_level_bpe import BYTE_LEVEL, added_of
from calibtrain.data.tokenizers.gguf_tokenizer import tokenizer_json
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError
from calibtrain.interchange.foreign_tokenizer import ForeignTokenizer, Marks, find_tokenizer
from calibtrain.interchange.side_files import (
    content,
    declared_tokens,
    named_marks,
    read_object,
    read_tokenizer_config,
    sampling_notes,
    token_ids,
)
from calibtrain.models import Network, Params
from calibtrain.models.huggingface.architecture import Architecture, read_architecture
from calibtrain.models.huggingface.gguf_file import (
    ROPE_FACTORS,
    GGUFFile,
    read_gguf_architecture,
)
from calibtrain.models.huggingface.keys import shown
from calibtrain.models.huggingface.names import EMBEDDING, UNEMBEDDING
from calibtrain.models.huggingface.parameters import Tensors, read_parameters
from calibtrain.models.huggingface.safetensors_folder import SafetensorsFolder

CONFIG = "config.json"
_EMBEDDING, _UNEMBEDDING = EMBEDDING.huggingface, UNEMBEDDING.huggingface
_FREQUENCIES = "rotary_emb.inv_freq"
"""Suffix of the names of tensors that repeat the rotary frequencies of `config.json`."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model to import.

    Attributes:
        path: file or folder.
        format: `safetensors` or `gguf`.
        architecture: its architecture.
        tokenizer: its tokenizer.
        tensors: its weights.
        files: the files that were read.
        about: further facts, such as its quantisation.
        notes: differences from the original and parts that are not used, one sentence each.
    """

    path: Path
    format: str
    architecture: Architecture
    tokenizer: ForeignTokenizer
    tensors: Tensors
    files: Sequence[Path]
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def parameters(
        self, network: Network, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Params:
        """Returns its parameters, read by `models.huggingface.parameters.read_parameters`."""
        return read_parameters(network, self.tensors, spare_tensors(self.tensors), progress)

    def checksums(self) -> dict[str, str]:
        """Returns the hex SHA-256 of its files."""
        sums = {}
        for file in self.files:
            with file.open("rb") as handle:
                sums[file.name] = hashlib.file_digest(handle, "sha256").hexdigest()
        return sums


def open_pretrained(path: Path, *, start: str | None = None, end: str | None = None) -> Pretrained:
    """Opens a Hugging Face folder or a GGUF file; weights are read later.

    Args:
        path: the folder or file.
        start: the added token that starts a document; None means the one in the model's
            configuration.
        end: the added token that ends a document; None means the one in the model's configuration.

    Raises:
        UserError: for what is missing, damaged, unknown, or not supported; it names it.
    """
    require_packages()
    if path.is_dir():
        return _open_folder(path, start, end)
    if not path.is_file():
        raise UserError(f"{path}: is neither a folder nor a file")
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic != b"GGUF":
        raise UserError(
            f"{path}: is no GGUF file; name one, or a folder with {CONFIG} and safetensors "
            "(pickled weights, as in .bin and .pt files, are never read)"
        )
    return _open_gguf(path, start, end)


def spare_tensors(tensors: Tensors) -> set[str]:
    """Returns the names of redundant tensors: rotary frequencies, and factors on them."""
    if tensors.naming == "gguf":
        return {ROPE_FACTORS} & {*tensors.shapes}  # already compared with the architecture's
    return {name for name in tensors.shapes if name.endswith(_FREQUENCIES)}


def require_utf8(path: Path) -> None:
    """Refuses a name that is not UTF-8, which neither run.json nor Orbax can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: is not a name in UTF-8; rename the folder") from None


def require_packages() -> None:
    """Raises a UserError that names the packages of the extra `hf` that are not installed."""
    specs = {name: importlib.util.find_spec(name) for name in ("safetensors", "gguf", "tokenizers")}
    # a folder of that name in the working directory has a spec too, but no origin
    absent = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if absent:
        raise UserError(
            f"models of others need the packages {', '.join(absent)}; install them with: "
            "pip install 'calibtrain[hf]'"
        )


def _open_folder(folder: Path, start: str | None, end: str | None) -> Pretrained:
    tree = read_object(folder / CONFIG)
    if tree is None:
        raise UserError(f"{folder}: has no {CONFIG}, so it is not a folder of a Hugging Face model")
    architecture = read_architecture(tree, str(folder / CONFIG))
    size = architecture.vocab_size
    tensors = SafetensorsFolder(folder)
    shape = tensors.shapes.get(_EMBEDDING)
    if shape and shape[0] != size:  # before anything of that size is allocated
        raise UserError(
            f"{folder / CONFIG}: vocab_size is {size:,}, but {_EMBEDDING} has {shape[0]:,} rows"
        )
    named, notes = read_tokenizer_config(folder)
    first, last = (
        token_ids(tree, key, size, str(folder / CONFIG)) for key in ("bos_token_id", "eos_token_id")
    )
    if len(first) > 1:
        raise UserError(f"{folder / CONFIG}: bos_token_id is {first}; it must be one id")
    own_start, own_end = content(named.get("bos_token")), content(named.get("eos_token"))
    marks = Marks(
        start=start or (first[0] if first else own_start),
        end=end or (last[0] if len(last) == 1 else own_end or (last[0] if last else None)),
        others=named_marks(folder, named),
    )
    tokenizer, files = find_tokenizer(folder, size, marks, declared_tokens(folder, named))
    if (start or end) and tokenizer.tokenizer.manifest.kind != BYTE_LEVEL:
        raise UserError(
            f"--start, --end: {files[0]} says itself what frames a document; leave them out"
        )
    ours = None if architecture.model.tied else _one_table(tensors, architecture.model.width)
    if ours is not None:
        model = architecture.model.model_copy(update={"tied": True, "embedding_scale": True})
        architecture = dataclasses.replace(architecture, model=model)
    notes += sampling_notes(folder, size)
    if spare_tensors(tensors):
        notes.append(
            f"its {_FREQUENCIES} are not read, as transformers does not: config.json says them"
        )
    if not (start or end):
        notes += _frame_notes(tokenizer.tokenizer, {"bos": first, "eos": last}, named)
    return Pretrained(
        path=folder,
        format="safetensors",
        architecture=architecture,
        tokenizer=tokenizer,
        tensors=ours or tensors,
        files=[folder / CONFIG, *tensors.files, *files],
        about={},
        notes=(*architecture.notes, *notes, *tokenizer.notes),
    )


def _frame_notes(
    tokenizer: Tokenizer, ids: Mapping[str, Sequence[int]], named: Mapping[str, Any]
) -> list[str]:
    """Returns notes on files that name another document start or end than the one used."""
    own = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    texts = {}
    if tokenizer.manifest.kind == BYTE_LEVEL and tokenizer.model is not None:
        texts = {token.id: token.content for token in added_of(tokenizer.model)}
    found = []
    for name, used in own.items():
        if ids[name] and used not in ids[name]:
            found.append(
                f"{CONFIG} has {name}_token_id {ids[name][0]}; the tokenizer's, {used}, is used"
            )
        text = content(named.get(f"{name}_token"))
        if ids[name] and text is not None and texts.get(used, text) != text:
            found.append(
                f"tokenizer_config.json has {name}_token {shown(text)}; the {name}_token_id of "
                f"{CONFIG}, {used}, is used"
            )
    return found


def _open_gguf(path: Path, start: str | None, end: str | None) -> Pretrained:
    file = GGUFFile(path)
    architecture = read_gguf_architecture(file)
    metadata, size = file.metadata, architecture.vocab_size
    first, last = (
        token_ids(metadata, f"tokenizer.ggml.{name}_token_id", size, str(path))
        for name in ("bos", "eos")
    )
    marks = Marks(
        start=start or (first[0] if first else None), end=end or (last[0] if last else None)
    )
    spelled = tokenizer_json(metadata, str(path))
    tokenizer = ForeignTokenizer.byte_level(spelled, size, marks, str(path))
    return Pretrained(
        path=path,
        format="gguf",
        architecture=architecture,
        tokenizer=tokenizer,
        tensors=file,
        files=[path],
        about={"quantisation": file.quantisation},
        notes=(*architecture.notes, *tokenizer.notes),
    )


def _one_table(tensors: SafetensorsFolder, width: int) -> Tensors | None:
    """Returns the tensors with one table, if the embedding is the scaled unembedding; else None.

    Our own tied models are exported in this form. The comparison is to the bit, so the parameters
    are those before the export.
    """
    shapes = [tensors.shapes.get(name) for name in (_EMBEDDING, _UNEMBEDDING)]
    if shapes[0] is None or shapes[0] != shapes[1] or not math.prod(shapes[0]):
        return None
    if not np.array_equal(tensors.read(_EMBEDDING), scaled(tensors.read(_UNEMBEDDING), width)):
        return None
    return _OneTable(tensors)


class _OneTable:
    """Tensors with one table for embedding and unembedding."""

    naming: Literal["huggingface", "gguf"] = "huggingface"

    def __init__(self, tensors: SafetensorsFolder):
        self._tensors, self.source = tensors, tensors.source
        self.shapes = {name: x for name, x in tensors.shapes.items() if name != _UNEMBEDDING}

    def read(self, name: str) -> np.ndarray:
        return self._tensors.read(_UNEMBEDDING if name == _EMBEDDING else name)


def scaled(table: np.ndarray, width: int) -> np.ndarray:
    """Returns a table times the square root of the width, to the bit as our models embed."""
    return table * np.float32(width**0.5)
