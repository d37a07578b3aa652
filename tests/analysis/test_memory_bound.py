"""The memory of chains whose memory is known."""

import doctest

import numpy as np

from calibtrain.analysis import memory_bound as module
from calibtrain.analysis.memory_bound import eligible, memory_bound


def test_the_bound_is_the_mutual_information_of_a_known_source() -> None:
    """What the word two back says of the next one is known for a chain of order 2."""
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(3, 0.4), size=(3, 3))  # P(w | two back, one back)
    pairs = np.full((3, 3), 1 / 9)
    for _ in range(2000):
        pairs = np.einsum("ab,abc->bc", pairs, law)
    one = np.einsum("ab,abc->bc", pairs, law) / pairs.sum(0)[:, None]  # P(w | one back)
    known = float(np.einsum("ab,abc,abc->", pairs, law, np.log(law / one[None])))
    assert known > 0.1
    texts, steps = 200, 100
    state = rng.choice(9, p=pairs.ravel(), size=texts)
    a, b = state // 3, state % 3
    whole, limited = [], []
    for _ in range(steps):
        edges = np.cumsum(law[a, b], axis=1)[:, :-1]
        c = (rng.random(texts)[:, None] > edges).sum(1)
        whole.append(np.log(law[a, b, c]))
        limited.append(np.log(one[b, c]))
        a, b = b, c
    found = memory_bound(
        np.ravel(whole),
        np.ravel(limited),
        np.full(texts * steps, 2),
        np.tile(np.arange(texts), steps),
    )
    nats, bits = found["nats_per_token"], found["bits_per_byte"]
    assert nats["lower"] < known < nats["upper"]
    assert nats["upper"] - nats["lower"] < 0.1 * known + 0.05
    assert np.isclose(bits["estimate"], nats["estimate"] / 2 / np.log(2))


def test_positions_have_the_whole_history_that_is_tried() -> None:
    found = eligible([3, 10], [20, 12], history=8, count=100, seed=0)
    assert found == [(0, slot) for slot in range(8, 20)] + [(1, 10), (1, 11)]
    assert len(eligible([3, 10], [20, 12], history=8, count=5, seed=0)) == 5


def test_the_examples_are_right() -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
