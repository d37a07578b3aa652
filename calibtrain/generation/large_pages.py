"""Arrays side by side in one block of memory, which the system can map by large pages."""

from typing import TypeVar

import jax
import numpy as np

_PAGE = 2 << 20
_ALIGNED = 64  # bytes, so that JAX takes an array where it lies

Tree = TypeVar("Tree")


def in_large_pages(arrays: Tree) -> Tree:
    """Returns arrays with the same numbers, on a CPU side by side in one block.

    A decoder of one text reads every weight for every token, and waits for memory. NumPy asks Linux
    to map a block of 4 MiB and more by pages of 2 MiB, so that fewer addresses have to be looked
    up. The arrays that are given are not changed; each is dropped here once it is moved, so that
    memory does not hold all of them twice where the caller keeps none. An array that is kept keeps
    the whole block. Elsewhere than on a CPU the arrays are returned.

    Args:
        arrays: a pytree of arrays on one device.

    Example:
        >>> import jax.numpy as jnp
        >>> weights = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
        >>> in_large_pages(weights)["kernel"].shape
        (3, 2)
    """
    if jax.default_backend() != "cpu":
        return arrays
    leaves, tree = jax.tree.flatten(arrays)
    del arrays
    sizes = [-(-leaf.nbytes // _ALIGNED) * _ALIGNED for leaf in leaves]
    block = np.empty(sum(sizes) + _PAGE, np.uint8)
    at = -block.ctypes.data % _PAGE
    moved = []
    leaves.reverse()
    for size in sizes:
        leaf = leaves.pop()
        own = block[at : at + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
        own[...] = leaf
        moved.append(jax.device_put(own, may_alias=True))
        at += size
    return jax.tree.unflatten(tree, moved)
