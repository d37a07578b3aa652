"""Reads the weights of a Hugging Face folder: one safetensors file, or several with an index.

Pickled weights (`pytorch_model.bin`, `.pt`) are never read, because reading them can run code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from calibtrain.errors import UserError
from calibtrain.models.huggingface.parameters import listed
from calibtrain.storage.json_text import parse_json, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES: Mapping[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_LENGTH = 8  # bytes before the header, which hold its length


class SafetensorsFolder:
    """The tensors of a folder by name; files are memory-mapped and read on demand.

    Attributes:
        source: the folder.
        shapes: shapes of all tensors.
        files: the files that hold them.
    """

    naming: Literal["huggingface", "gguf"] = "huggingface"

    def __init__(self, folder: Path):
        """Args:
        folder: a folder with `model.safetensors`, or with `model.safetensors.index.json` and the
            files that it names.

        Raises:
            UserError: where there are no such files, one is cut short or damaged, or the index
                names a file or tensor that does not exist.
        """
        self.source = str(folder)
        index = None if (folder / WEIGHTS).is_file() else _read_index(folder)
        names = [WEIGHTS] if index is None else sorted({*index.values()})
        self.files = [folder / name for name in names]
        self._places: dict[str, tuple[Path, Mapping[str, Any]]] = {}
        for file in self.files:
            for name, place in _header(file).items():
                if index is not None and index.get(name) != file.name:
                    said = f"says it is in {index[name]}" if name in index else "does not name it"
                    raise UserError(f"{file}: holds tensor {name[:80]}, but {INDEX} {said}")
                self._places[name] = file, place
        if lost := sorted({*(index or ())} - {*self._places}):
            raise UserError(f"{folder / INDEX}: names tensors that its files lack: {listed(lost)}")
        odd = {
            name: place["dtype"]
            for name, (_, place) in self._places.items()
            if place["dtype"] not in _DTYPES
        }
        if odd:
            shown = listed([f"{name} ({dtype})" for name, dtype in sorted(odd.items())])
            raise UserError(
                f"{folder}: tensors of types that are not read: {shown}; allowed: "
                f"{', '.join(_DTYPES)}"
            )
        self.shapes = {name: tuple(place["shape"]) for name, (_, place) in self._places.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, float32."""
        file, place = self._places[name]
        return np.memmap(
            file,
            dtype=_DTYPES[place["dtype"]],
            mode="r",
            offset=place["from"],
            shape=self.shapes[name],
        ).astype(np.float32)


def _read_index(folder: Path) -> dict[str, str]:
    """Returns the file that holds each tensor."""
    path = folder / INDEX
    if not path.is_file():
        pickled = sorted(
            file.name for end in ("bin", "pt", "pth") for file in folder.glob(f"*.{end}")
        )
        more = (
            f"; {listed(pickled)} may hold pickled weights, which run code when they are read: "
            "convert them to safetensors"
            if pickled
            else ""
        )
        raise UserError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}{more}")
    try:
        index = read_json(path)["weight_map"]
        names = {str(name): str(file) for name, file in index.items()}
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is not an index of safetensors files ({error})") from None
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: is not an index of safetensors files: its weight_map must be an object; "
            "it is damaged"
        ) from None
    if not names:
        raise UserError(f"{path}: names no tensors; it is damaged")
    for file in sorted({*names.values()}):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(
                f"{path}: names {file[:80]!r}, which is not a safetensors file beside it"
            )
        try:
            there = (folder / file).is_file()
        except (OSError, ValueError):  # not a possible file name
            there = False
        if not there:
            raise UserError(f"{path}: names {file[:80]!r}, which is not there")
    return names


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the type, shape and first byte of each tensor of a file, and checks the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):  # checks lengths, offsets and overlaps
            pass
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(_LENGTH), "little")
            header = parse_json(handle.read(length))
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{file}: is not a whole safetensors file ({said[:200]}); it is damaged or cut short"
        ) from None
    return {
        name: {**place, "from": _LENGTH + length + place["data_offsets"][0]}
        for name, place in header.items()
        if name != "__metadata__"
    }
