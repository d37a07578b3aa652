"""Many texts, a row each, that are drawn from a model several tokens at a time on the device.

A program draws up to `steps` tokens of every row before the host looks at them, so that a small
model is not held up by the host. What a text draws depends on the seed, its number and its own
tokens: a row is read by itself, whatever the others hold.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead import entropies_after
from calibtrain.generation.samplers import Sampling, adjusted, draw
from calibtrain.generation.statistics import TokenStatistics, log_probabilities, token_statistics
from calibtrain.models.decoding import Cache, decode, empty_cache, prefill
from calibtrain.readout.token_stats import first_largest


class Rows(NamedTuple):
    """The state of the texts, on the device.

    Attributes:
        cache: of the tokens that each has read.
        pending: the token that each reads next.
        text: number of the text.
        drawn: how many tokens it has drawn.
        seen: the tokens that it holds; None where no sampler asks.
    """

    cache: Cache
    pending: Int[Any, " rows"]
    text: Int[Any, " rows"]
    drawn: Int[Any, " rows"]
    seen: Bool[Any, "rows vocab"] | None


class Drawn(NamedTuple):
    """Tokens that were drawn; -1 where a row had ended, or was to draw no more.

    Attributes:
        tokens: ids.
        sampling_log_probability: under what they were drawn from, in nats.
        temperature: that the head divided the logits by; 1 without one.
        statistics: under the model, before samplers.
    """

    tokens: Int[Any, "steps rows"]
    sampling_log_probability: Any
    temperature: Any
    statistics: TokenStatistics


class Decoder:
    """Rows of texts, started with `place` and drawn by `advance`."""

    def __init__(
        self,
        model: LanguageModel,
        sampling: Sampling,
        *,
        rows: int,
        length: int,
        seed: int,
        steps: int,
    ):
        """Args:
        model: what is drawn from.
        sampling: how.
        rows: texts side by side.
        length: tokens that a row can read before it has to be placed anew.
        seed: of the request.
        steps: tokens that are drawn at once, at most.
        """
        network, self._params = model.network, model.params
        self.rows, self.length, self.steps = rows, length, steps
        columns = jnp.asarray(network.unembedding(self._params))
        self._fixed = (columns, jnp.asarray(model.drawable), jax.random.key(seed))
        end, soft_cap = model.tokenizer.eos_id, network.config.logit_soft_cap
        vocab = network.vocab_size
        keeps_seen = sampling.repetition_penalty != 1.0

        def step(params: Any, fixed: tuple[Array, ...], state: Rows, live: Array) -> Any:
            columns, drawable, key = fixed
            hidden, own, cache = decode(network, params, state.cache, state.pending, live)
            x = log_probabilities(hidden, columns, own, soft_cap)
            after = None
            if sampling.lookahead != 0.0:
                after = entropies_after(
                    network, params, columns, cache, x, drawable, sampling.lookahead_top
                )
            y = adjusted(x, sampling, seen=state.seen, drawable=drawable, next_entropy=after)
            if sampling.greedy:
                token = first_largest(y)[1].astype(jnp.int32)
            else:
                keys = jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(key, i), n))
                point = jax.vmap(jax.random.uniform)(keys(state.text, state.drawn))
                token = draw(y, point)
            chosen = jnp.take_along_axis(y, token[:, None], axis=-1)[:, 0]
            heat = jnp.ones(token.shape, jnp.float32) if own is None else own
            found = Drawn(jnp.where(live, token, -1), chosen, heat, token_statistics(x, token))
            seen = state.seen
            if seen is not None:
                seen = seen | (live[:, None] & (jnp.arange(vocab) == token[:, None]))
            pending = jnp.where(live, token, state.pending)
            drawn = state.drawn + live.astype(jnp.int32)
            return Rows(cache, pending, state.text, drawn, seen), found

        def advance(
            params: Any, fixed: tuple[Array, ...], state: Rows, room: Array
        ) -> tuple[Rows, Drawn]:
            shapes = jax.eval_shape(lambda: step(params, fixed, state, room > 0)[1])
            found = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)
            found = found._replace(tokens=found.tokens - 1)

            def going(carry: Any) -> Any:
                time, _, _, room = carry
                return (time < steps) & jnp.any(time < room)

            def go(carry: Any) -> Any:
                time, state, found, room = carry
                state, new = step(params, fixed, state, time < room)
                found = jax.tree.map(lambda all, one: all.at[time].set(one), found, new)
                room = jnp.where(new.tokens == end, 0, room)
                return time + 1, state, found, room

            _, state, found, _ = jax.lax.while_loop(going, go, (0, state, found, room))
            return state, found

        def start(params: Any, tokens: Array, counts: Array) -> Cache:
            read = prefill(network, params, tokens, jnp.maximum(counts, 1), length)[2]
            nothing = empty_cache(network, params, tokens.shape[0], length)

            def choose(one: Array, none: Array) -> Array:
                return jnp.where((counts > 0).reshape(-1, *[1] * (one.ndim - 1)), one, none)

            return jax.tree.map(choose, read, nothing)

        def put(state: Rows, new: Rows, at: Array) -> Rows:
            return jax.tree.map(lambda all, some: all.at[at].set(some, mode="drop"), state, new)

        self._advance = jax.jit(advance, donate_argnums=2)
        self._start, self._put = jax.jit(start), jax.jit(put, donate_argnums=0)
        zeros = np.zeros(rows, np.int32)
        seen = jnp.zeros((rows, vocab), bool) if keeps_seen else None
        self._state = jax.tree.map(
            jnp.asarray,
            Rows(empty_cache(network, self._params, rows, length), zeros, zeros, zeros, seen),
        )

    def place(
        self,
        rows: Sequence[int],
        tokens: Sequence[Int[np.ndarray, " tokens"]],
        texts: Sequence[int],
        drawn: Sequence[int],
        seen: Sequence[Int[np.ndarray, " tokens"]],
    ) -> None:
        """Puts texts into rows.

        Args:
            rows: where each is put.
            tokens: what the model sees of each, at least one token.
            texts: their numbers.
            drawn: how many tokens each has drawn.
            seen: all tokens of each.
        """
        count = 1 if len(rows) == 1 else self.rows
        longest = max(len(each) for each in tokens) - 1
        padded = np.zeros((count, max(1, 1 << max(0, longest - 1).bit_length())), np.int32)
        counts, at = np.zeros(count, np.int32), np.full(count, self.rows, np.int32)
        numbers = np.zeros((3, count), np.int32)
        held = None
        if self._state.seen is not None:
            held = np.zeros((count, self._state.seen.shape[1]), bool)
        for place, row in enumerate(rows):
            ids = tokens[place]
            padded[place, : len(ids) - 1], counts[place], at[place] = ids[:-1], len(ids) - 1, row
            numbers[:, place] = ids[-1], texts[place], drawn[place]
            if held is not None:
                held[place, seen[place]] = True
        padded = padded[:, : self.length]
        cache = self._start(self._params, padded, counts)
        pending, text, count_drawn = numbers
        new = Rows(cache, pending, text, count_drawn, held)
        self._state = self._put(self._state, new, at)

    def advance(self, room: Int[np.ndarray, " rows"]) -> Drawn:
        """Draws tokens: of each row at most so many, at most `steps`, and none after its end."""
        self._state, found = self._advance(
            self._params, self._fixed, self._state, np.asarray(room, np.int32)
        )
        return jax.tree.map(np.asarray, found)
