"""A member that reads a text which others write: as its own tokenizer writes it, token by token.

As the text grows, its last tokens may change. States after the last few tokens are kept, so that a
member goes back by as many and reads on from there, whatever its network is.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.generation.decoder import bucket
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.states import TokenStates
from calibtrain.generation.windows import window_start
from calibtrain.models import Network, Params
from calibtrain.readout import log_probabilities

ROWS = 8
"""States that are kept: how many tokens, at most, a member goes back without beginning anew."""


class TextReader:
    """The next-token distribution of a member after any text that mostly goes on from the last one.

    Attributes:
        passes: tokens that were read one by one, and texts that were begun anew.
    """

    def __init__(self, model: LanguageModel, states: TokenStates):
        """Args:
        model: what reads.
        states: of it, with `ROWS` rows, and probabilities of the whole vocabulary.
        """
        self._model, self._states = model, states
        self._ids: list[int] = []
        self._logs: dict[int, Float[np.ndarray, " vocab"]] = {}  # by the number of tokens before
        self.passes = 0

    def after(self, text: bytes) -> Float[np.ndarray, " vocab"]:
        """Returns the log-probabilities of the next token after a text, in nats.

        Raises:
            UserError: for a text that the vocabulary cannot spell.
        """
        ids = self._model.prompt_ids(text)
        ids = ids[window_start(len(ids) - 1, self._model.context) :].tolist()
        common = _common(self._ids, ids)
        self._logs = {count: logs for count, logs in self._logs.items() if count <= common}
        known = max(self._logs, default=0)
        if not known:
            (found,) = self._states.start([np.array(ids)], np.array([len(ids) % ROWS]))
            self._logs[len(ids)] = logarithms(found)
            self.passes += 1
        for count in range(known + 1, len(ids) + 1) if known else ():
            (found,) = self._states.extend(
                np.array([(count - 1) % ROWS]), np.array([count % ROWS]), np.array([ids[count - 1]])
            )
            self._logs[count] = logarithms(found)
            self._logs.pop(count - ROWS, None)  # its row was written over
            self._states.keep(np.array(sorted(each % ROWS for each in self._logs)))
            self.passes += 1
        self._ids = ids
        return self._logs[len(ids)]


def logarithms(probabilities: Float[np.ndarray, " vocab"]) -> Float[np.ndarray, " vocab"]:
    """Natural logarithms in float64; minus infinity for 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probabilities, np.float64))


def last_distributions(
    network: Network, params: Params, ids: Int[np.ndarray, " tokens"], count: int
) -> Float[np.ndarray, "count vocab"]:
    """Returns next-token log-probabilities after the last `count` tokens, by one parallel pass."""
    tokens = np.zeros((1, bucket(len(ids))), np.int32)
    tokens[0, : len(ids)] = ids
    size = 1 << (count - 1).bit_length()
    places = np.maximum(np.arange(len(ids) - size, len(ids)), 0)
    found = _program(network)(params, tokens, places)
    return np.asarray(found, np.float64)[-count:]


@functools.lru_cache(maxsize=8)
def _program(network: Network) -> Callable[..., Array]:
    soft_cap = network.config.logit_soft_cap

    @jax.jit
    def read(
        params: Params, tokens: Int[Array, "1 time"], places: Int[Array, " places"]
    ) -> Float[Array, "places vocab"]:
        hidden, columns, own = network.apply(params, tokens, jnp.zeros_like(tokens))
        temperature = None if own is None else own[0][places]
        return log_probabilities(
            hidden[0][places], columns, temperature=temperature, soft_cap=soft_cap
        )

    return read


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with alike.

    Example:
        >>> _common([1, 2, 3], [1, 2, 4, 5])
        2
    """
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
