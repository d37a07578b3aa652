"""Reads our parameters from the tensors of a file: none missing, none left over, all finite."""

from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol

import jax
import numpy as np

from calibtrain.errors import UserError
from calibtrain.models import Network, Params
from calibtrain.models.huggingface.names import UNEMBEDDING, is_turned, names_of, parameter_paths

_SHOWN = 4  # names in a message


class Tensors(Protocol):
    """Tensors by name.

    Attributes:
        source: name of the file or folder in messages.
        naming: the convention of the names.
        shapes: shapes of all tensors in the file.
    """

    @property
    def source(self) -> str: ...
    @property
    def naming(self) -> Literal["huggingface", "gguf"]: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, float32."""


def read_parameters(
    network: Network,
    tensors: Tensors,
    spare: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Params:
    """Returns the parameters of a network.

    Args:
        network: a transformer.
        tensors: the tensors of a file or folder.
        spare: names of redundant tensors, which need not be read.
        progress: is told the number of tensors read, and of all.

    Raises:
        UserError: for tensors that are missing, left over, of another shape, or not finite; it
            names them.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    wanted = {}
    for path, leaf in parameter_paths(shapes):
        shape = leaf.shape[::-1] if is_turned(path) else leaf.shape
        wanted[getattr(names_of(path), tensors.naming)] = path, shape
    unembedding = getattr(UNEMBEDDING, tensors.naming)
    tied_twice = network.config.tied and unembedding in tensors.shapes
    found = {*tensors.shapes} - {*spare} - ({unembedding} if tied_twice else set())
    for what, names in (
        ("lacks", [name for name in wanted if name not in found]),
        ("holds, beyond what this architecture has,", sorted(found - {*wanted})),
    ):
        if names:
            raise UserError(f"{tensors.source}: {what} {listed(names)}")
    wrong = [
        f"{name} {list(tensors.shapes[name])} (wanted {list(shape)})"
        for name, (_, shape) in wanted.items()
        if tensors.shapes[name] != tuple(shape)
    ]
    if wrong:
        raise UserError(f"{tensors.source}: shapes do not fit its configuration: {listed(wrong)}")
    leaves = []
    for name, (path, _) in wanted.items():
        array = _finite(tensors, name)
        leaves.append(np.ascontiguousarray(array.T) if is_turned(path) else array)
        progress(len(leaves), len(wanted))
    if tied_twice and not np.array_equal(leaves[_embedding_at(wanted)], tensors.read(unembedding)):
        raise UserError(
            f"{tensors.source}: {unembedding} is another table than the embedding, yet its "
            "configuration says that they are tied"
        )
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def listed(names: Collection[str]) -> str:
    """Returns the first few names, and how many more there are."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _embedding_at(wanted: Mapping[str, tuple[tuple[str | int, ...], tuple[int, ...]]]) -> int:
    return [path for path, _ in wanted.values()].index(("vocabulary", "embedding"))


def _finite(tensors: Tensors, name: str) -> np.ndarray:
    array = tensors.read(name)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise UserError(
            f"{tensors.source}: {name} holds {bad:,} values that are not finite numbers, of "
            f"{array.size:,}: the file is damaged, or the model had diverged"
        )
    return array
