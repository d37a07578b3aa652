"""Arrays in large pages are the arrays that were given."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calibtrain.generation.large_pages import in_large_pages


def test_numbers_types_and_shapes_are_kept() -> None:
    arrays = {
        "odd": jnp.arange(33, dtype=jnp.float32).reshape(3, 11),
        "half": jnp.linspace(-1, 1, 7).astype(jnp.bfloat16),
        "truth": jnp.array([True, False, True]),
        "scalar": jnp.float32(2.5),
        "nothing": jnp.zeros((0, 4)),
        "none": None,
    }
    moved = in_large_pages(arrays)
    assert jax.tree.structure(moved) == jax.tree.structure(arrays)
    for name, array in arrays.items():
        if array is not None:
            assert moved[name].dtype == array.dtype
            assert moved[name].shape == array.shape
            np.testing.assert_array_equal(np.asarray(moved[name]), np.asarray(array))


def test_a_program_that_reuses_its_argument_changes_no_other_array() -> None:
    first, second = in_large_pages([jnp.zeros(1 << 20), jnp.ones(1 << 20)])
    changed = jax.jit(lambda x: x + 5, donate_argnums=0)(first)
    assert float(changed.sum()) == 5 * (1 << 20)
    assert float(second.sum()) == 1 << 20


def test_arrays_lie_side_by_side() -> None:
    first, second = in_large_pages([jnp.zeros(1 << 20), jnp.ones(1 << 20)])
    distance = second.unsafe_buffer_pointer() - first.unsafe_buffer_pointer()
    assert distance == first.nbytes


def test_an_array_that_nobody_keeps_is_dropped_once_it_is_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory holds what is moved, and one array more, and not all of them twice."""
    put, most = jax.device_put, 0

    def puts(array: np.ndarray, **options: Any) -> jax.Array:
        nonlocal most
        moved = put(array, **options)
        most = max(most, sum(each.nbytes for each in jax.live_arrays()) - before)
        return moved

    monkeypatch.setattr(jax, "device_put", puts)
    before = sum(each.nbytes for each in jax.live_arrays())
    moved = in_large_pages([jnp.full(1 << 18, number, jnp.float32) for number in range(8)])
    assert [float(each[0]) for each in moved] == list(range(8))
    assert most == 9 << 20
