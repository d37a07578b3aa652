"""Decoding states: however a sequence is reached, its probabilities are those of a full pass."""

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig
from calibtrain.generation.states import DecodingStates
from calibtrain.models import Network, Params, build

CONTEXT = 16
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def model(request: pytest.FixtureRequest) -> tuple[Network, Params]:
    network = build(ModelConfig(kind=request.param, width=16, depth=1, heads=2), 20)
    params = jax.jit(network.init)(jax.random.key(0))
    return network, jax.tree.map(lambda x: 3 * x, params)  # far from uniform


def full_pass(model: tuple[Network, Params], sequences: list[list[int]]) -> np.ndarray:
    """The next-token probabilities after each sequence, from all of its tokens at once."""
    network, params = model
    tokens = np.zeros((4, CONTEXT), np.int32)  # what follows a token does not change it
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
    hidden, unembedding, _ = jax.jit(network.apply)(params, tokens, np.zeros_like(tokens))
    last = hidden[np.arange(len(sequences)), [len(sequence) - 1 for sequence in sequences]]
    return np.asarray(jax.nn.softmax(last @ unembedding[:, : network.vocab_size]))


def test_states_that_are_started_extended_and_copied_are_those_of_a_full_pass(
    model: tuple[Network, Params],
) -> None:
    states = DecodingStates(*model, rows=4, context=CONTEXT)
    sequences = {0: [1, 5, 7], 3: [2]}
    found = states.start([np.array(tokens) for tokens in sequences.values()], np.array([0, 3]))
    np.testing.assert_allclose(found, full_pass(model, list(sequences.values())), **CLOSE)

    # row 3 goes on in its own place; row 0 branches into row 1, and is overwritten by row 3's
    states.copy(np.array([0]), np.array([2]))
    found = states.extend(np.array([0, 3, 3]), np.array([1, 3, 0]), np.array([9, 4, 11]))
    after = [[1, 5, 7, 9], [2, 4], [2, 11]]
    np.testing.assert_allclose(found, full_pass(model, after), **CLOSE)

    found = states.extend(np.array([2, 0]), np.array([2, 1]), np.array([3, 6]))
    after = [[1, 5, 7, 3], [2, 11, 6]]
    np.testing.assert_allclose(found, full_pass(model, after), **CLOSE)


def test_states_are_reordered_and_shortened(model: tuple[Network, Params]) -> None:
    states = DecodingStates(*model, rows=2, context=CONTEXT)
    states.start([np.array([1, 5, 7]), np.array([2])], np.array([0, 1]))
    states.reorder(np.array([1, 0]))
    found = states.extend(np.array([0, 1]), np.array([0, 1]), np.array([4, 9]))
    np.testing.assert_allclose(found, full_pass(model, [[2, 4], [1, 5, 7, 9]]), **CLOSE)
    if model[0].config.kind == "lstm":
        with pytest.raises(ValueError, match="only the cache of a transformer"):
            states.truncate(np.array([1]), np.array([2]))
        return
    states.truncate(np.array([1]), np.array([2]))
    found = states.extend(np.array([0, 1]), np.array([0, 1]), np.array([3, 6]))
    np.testing.assert_allclose(found, full_pass(model, [[2, 4, 3], [1, 5, 6]]), **CLOSE)


def test_entries_that_are_no_events_share_out_their_probability(
    model: tuple[Network, Params],
) -> None:
    events = np.array([7, 0, 12])
    states = DecodingStates(*model, rows=1, context=CONTEXT, events=events)
    (found,) = states.start([np.array([1, 2])], np.array([0]))
    whole = full_pass(model, [[1, 2]])[0, events]
    np.testing.assert_allclose(found, whole / whole.sum(), **CLOSE)
