"""States that share the tokens of their text are those that each keep a cache of their own."""

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig
from calibtrain.generation.shared_states import SharedStates
from calibtrain.generation.states import DecodingStates
from calibtrain.models import build
from calibtrain.models.shared_decoding import can_share

LANES, SLOTS, CONTEXT = 4, 3, 8


@pytest.mark.long
@pytest.mark.parametrize("pools", [4, 2])
def test_a_random_walk_of_states_is_that_of_states_with_their_own_caches(pools: int) -> None:
    """States are extended, branch, move and are dropped, far beyond the context."""
    sizes = {"width": 16, "depth": 2, "heads": 4, "kv_heads": 2}
    network = build(ModelConfig(**sizes), 20)
    params = jax.jit(network.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: 3 * x, params)  # far from uniform
    assert can_share(network, params)
    events, rows = np.array([7, 0, 12, 3]), LANES * SLOTS
    own = DecodingStates(network, params, rows=rows, context=CONTEXT, events=events)
    shared = SharedStates(
        network, params, rows=rows, slots=SLOTS, pools=pools, context=CONTEXT, events=events
    )
    random = np.random.default_rng(0)
    for _ in range(2):  # the second text begins over the first one
        prefixes = [random.integers(0, 20, length) for length in random.integers(1, 8, pools)]
        at = np.arange(pools) * SLOTS
        np.testing.assert_allclose(
            shared.start(prefixes, at), own.start(prefixes, at), rtol=2e-4, atol=1e-6
        )
        live = at
        for _ in range(25):
            targets, sources = [], []
            for pool in range(pools):
                lanes = np.arange(pool, LANES, pools)
                mine = np.concatenate(
                    [np.arange(lane * SLOTS, (lane + 1) * SLOTS) for lane in lanes]
                )
                from_ = np.intersect1d(mine, live)
                chosen = random.choice(mine, random.integers(1, len(mine) + 1), replace=False)
                targets += chosen.tolist()
                sources += random.choice(from_, len(chosen)).tolist()
            new = np.array(sources), np.array(targets), random.integers(0, 20, len(targets))
            np.testing.assert_allclose(shared.extend(*new), own.extend(*new), rtol=2e-4, atol=1e-6)
            live = np.union1d(live, targets)
            by_pool = live // SLOTS % pools
            live = np.concatenate(
                [random.permutation(live[by_pool == pool])[:4] for pool in range(pools)]
            )
            shared.keep(live)
            twin = np.array([row for row in live if row + pools * SLOTS < rows][:1], np.int64)
            if pools < LANES and len(twin):  # into another lane of the same text
                shared.copy(twin, twin + pools * SLOTS)
                own.copy(twin, twin + pools * SLOTS)
                live = np.union1d(live, twin + pools * SLOTS)


def test_an_lstm_and_a_head_with_a_memory_do_not_share() -> None:
    lstm = build(ModelConfig(kind="lstm", width=16, depth=1), 20)
    assert not can_share(lstm, {})
