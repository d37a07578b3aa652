"""Low-rank adapters (LoRA; Hu et al., ICLR 2022): a matrix W becomes W + alpha / rank * A B.

B starts at 0, so that nothing changes at first. The sum is made before the layers run: they are the
very same, and so are their speed and their caches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.config import LoRAConfig

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Which matrices are adapted, and how.

    Attributes:
        config: rank, alpha and the names of the linear maps.
    """

    config: LoRAConfig

    def init(self, key: Array, body: Params) -> Params:
        """Fresh adapters {path: {a, b}} for a model's parameters: A is drawn, B is 0."""
        found = {}
        for number, (path, kernel) in enumerate(sorted(self._kernels(body).items())):
            draw = jax.random.normal(
                jax.random.fold_in(key, number), (kernel.shape[0], self.config.rank), jnp.float32
            )
            zeros = jnp.zeros((self.config.rank, kernel.shape[1]), jnp.float32)
            found[path] = {"a": draw * kernel.shape[0] ** -0.5, "b": zeros}
        return found

    def merged(self, body: Params, adapters: Params) -> Params:
        """The model's parameters with the adapters in them."""
        scale = self.config.alpha / self.config.rank

        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            own = adapters.get(_name(path))
            return leaf if own is None else leaf + scale * (own["a"] @ own["b"])

        return jax.tree_util.tree_map_with_path(one, body)

    def _kernels(self, body: Params) -> dict[str, Any]:
        return {
            _name(path): leaf for path, leaf in _matrices(body) if _map_of(path) in self.config.maps
        }


def linear_maps(body: Params) -> tuple[str, ...]:
    """The names of the linear maps among a model's parameters (or their shapes): each once."""
    return tuple(dict.fromkeys(_map_of(path) for path, _ in _matrices(body)))


def _matrices(body: Params) -> list[tuple[tuple[Any, ...], Any]]:
    """Path and leaf of every linear map."""
    leaves = jax.tree_util.tree_leaves_with_path(body)
    return [(path, leaf) for path, leaf in leaves if len(path) > 1 and _part(path[-1]) == "kernel"]


def _map_of(path: tuple[Any, ...]) -> str:
    return _part(path[-2])


def _part(key: Any) -> str:
    return str(getattr(key, "key", key))


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(_part(key) for key in path)
