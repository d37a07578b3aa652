"""A fitted head as files: RUN/temperature/NAME/ holds parameters.npz and, written last, head.json.

Parameters are plain float32 arrays by their path (no pickle); head.json says what the head is, what
it was fitted on, and the checksum of the parameters. A folder without it is unfinished.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calibtrain.config import HEADS, TemperatureConfig, validate
from calibtrain.errors import UserError
from calibtrain.models import Params, TemperatureHead
from calibtrain.storage.disk import make_folder, write_whole
from calibtrain.storage.documents import sealed, unsealed
from calibtrain.storage.json_text import read_json
from calibtrain.storage.places import reached

ABOUT, PARAMETERS = "head.json", "parameters.npz"
_NUMBER = (int, float)
_KEYS: dict[str, Any] = {
    "parameters": int,
    "parameters_sha256": str,
    "fitted_on": dict,
    "checkpoint": dict,
    "nll_before": _NUMBER,
    "nll_after": _NUMBER,
    "seconds": _NUMBER,
}
"""What head.json says at least, and of which kind that is."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._+-]{0,59}")


@dataclasses.dataclass(frozen=True)
class SavedHead:
    """A head that was fitted to a run.

    Attributes:
        name: by which it is known.
        config: its kind and settings.
        about: what head.json says.
        folder: where its files are.
    """

    name: str
    config: TemperatureConfig
    about: Mapping[str, Any]
    folder: Path

    def read_params(self, head: TemperatureHead) -> Params:
        """Its parameters, of the structure and shapes of a head.

        Raises:
            UserError: where they are damaged, or of another head.
        """
        path = self.folder / PARAMETERS
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.about["parameters_sha256"]:
                raise ValueError("its checksum is another one")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {name: np.array(arrays[name]) for name in arrays.files}
            shapes = _flat(jax.eval_shape(head.init, jax.random.key(0)))
            for name, leaf in shapes.items():
                if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
                    raise ValueError(f"{name} is of another shape")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: is damaged ({error}); remove {self.folder}, fit again"
            ) from None
        structure = jax.tree.structure(jax.eval_shape(head.init, jax.random.key(0)))
        return jax.tree.unflatten(structure, [found[name] for name in shapes])


def check_name(name: str) -> str:
    """The name, fit for a folder, a file name and a signature.

    Raises:
        UserError: for another one.
    """
    number = re.fullmatch(r"(nan|inf(inity)?)", name, re.IGNORECASE)  # a temperature in signatures
    if _NAME.fullmatch(name) and not number:
        return name
    raise UserError(
        f"--name: {name!r} is not allowed; a letter, then at most 59 letters, digits and . _ + -"
    )


def require_free(folder: Path, name: str) -> None:
    """Raise a UserError where a head of that name is there."""
    with reached(folder):
        there = (folder / name / ABOUT).is_file()
    if there:
        raise UserError(
            f"--name: {name} is there already ({folder / name}); take another name, or --replace"
        )


def write_head(
    folder: Path,
    name: str,
    config: TemperatureConfig,
    params: Params,
    about: Mapping[str, Any],
) -> SavedHead:
    """Write a head, in the place of one of that name.

    Args:
        folder: of the run's heads.
        name: by which it will be known.
        config: its kind and settings.
        params: its parameters.
        about: what it was fitted on, and how.
    """
    own = folder / name
    make_folder(own)
    with reached(own):
        (own / ABOUT).unlink(missing_ok=True)  # first: what follows is not whole until it is back
    buffer = io.BytesIO()
    flat = {path: np.asarray(leaf) for path, leaf in _flat(params).items()}
    np.savez(buffer, **flat)  # type: ignore[arg-type]
    write_whole(own / PARAMETERS, buffer.getvalue())
    whole = {
        "format": 1,
        "name": name,
        "temperature": config.model_dump(mode="json"),
        "parameters": sum(leaf.size for leaf in flat.values()),
        "parameters_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        **about,
    }
    write_whole(own / ABOUT, json.dumps(sealed(whole), indent=1, allow_nan=False) + "\n")
    return SavedHead(name, config, whole, own)


def read_head(folder: Path, name: str) -> SavedHead:
    """A head of a run.

    Raises:
        UserError: where there is none of that name, or it is damaged.
    """
    path = folder / name / ABOUT
    with reached(folder):
        there = bool(_NAME.fullmatch(name)) and path.is_file()
    if not there:
        found = ", ".join(head_names(folder)) or "none yet"
        raise UserError(
            f"--temperature: {name!r} is no head fitted to this run; there are: {found} "
            "(calibtrain temperature fit)"
        )
    try:
        about = unsealed(read_json(path))
        config: Any = validate(HEADS[about["temperature"]["kind"]], about["temperature"])
        if about["format"] != 1 or about["name"] != name:
            raise ValueError("it is no head of that name")
        for key, kind in _KEYS.items():
            if not isinstance(about[key], kind):
                raise ValueError(f"{key} is {about[key]!r:.40}")
        for key in ("corpus", "split"):
            if not isinstance(about["fitted_on"][key], str):
                raise ValueError(f"fitted_on.{key} is {about['fitted_on'][key]!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path}: is damaged ({error}); remove {path.parent}, fit again") from None
    return SavedHead(name, config, about, path.parent)


def head_names(folder: Path) -> list[str]:
    """The names of a run's heads that were written to their end."""
    with reached(folder):
        return sorted(path.parent.name for path in folder.glob(f"*/{ABOUT}"))


def unfinished_names(folder: Path) -> list[str]:
    """The names of heads of which there is a folder, and nothing in it that says what they are."""
    with reached(folder):
        inside = list(folder.iterdir()) if folder.is_dir() else []
        found = {path.name for path in inside if path.is_dir()}
    return sorted(found - set(head_names(folder)))


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
