"""Many texts, a row each, that are drawn from a model several tokens at a time on the device.

A program draws up to `steps` tokens of every row before the host looks at them, so that a small
model is not held up by the host. What a text draws depends on the seed, its number and its own
tokens: a row is read by itself, whatever the others hold.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from calibtrain.config import MeshConfig
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead import entropies_after
from calibtrain.generation.lookahead_head import LookaheadHead, learned_entropies_after
from calibtrain.generation.samplers import Sampling, adjusted, draw
from calibtrain.generation.statistics import (
    TokenStatistics,
    statistics_of_states,
    token_statistics,
)
from calibtrain.models import Network, Params
from calibtrain.models.decoding import Cache, decode, empty_cache, read
from calibtrain.parallel.mesh import ROWS, Layout, make_layout
from calibtrain.readout import first_largest, log_probabilities


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


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the programs of a decoder depend on, besides the number of rows.

    Attributes:
        network: the model.
        sampling: how tokens are chosen.
        end: the entry that ends a text.
        steps: tokens that are drawn at once, at most.
        length: tokens that a row can read before it has to be placed anew.
    """

    network: Network
    sampling: Sampling
    end: int
    steps: int
    length: int


class Fixed(NamedTuple):
    """What stays the same from token to token, on the device.

    Attributes:
        params: of the model.
        columns: its unembedding.
        drawable: the entries that can be drawn.
        key: of the request.
        lookahead: predicts the entropy after each token, where the sampling asks for a head.
    """

    params: Params
    columns: Float[Any, "width vocab"]
    drawable: Bool[Any, " vocab"]
    key: Any
    lookahead: LookaheadHead | None = None


def next_tokens(
    plan: Plan, fixed: Fixed, state: Rows, live: Bool[Array, " rows"]
) -> tuple[Rows, Drawn]:
    """Reads the pending token of each live row, and draws the next."""
    network, sampling = plan.network, plan.sampling
    hidden, own, cache = decode(network, fixed.params, state.cache, state.pending, live)
    x = log_probabilities(
        hidden, fixed.columns, temperature=own, soft_cap=network.config.logit_soft_cap
    )
    after, top = None, sampling.lookahead_top
    if fixed.lookahead is not None:
        after = learned_entropies_after(fixed.lookahead, hidden, x, fixed.drawable, top)
    elif sampling.lookahead != 0.0:
        after = entropies_after(network, fixed.params, fixed.columns, cache, x, fixed.drawable, top)
    y = adjusted(x, sampling, seen=state.seen, drawable=fixed.drawable, next_entropy=after)
    if sampling.greedy:
        token = first_largest(y)[1].astype(jnp.int32)
    else:
        token = draw(y, _points(fixed.key, state.text, state.drawn))
    chosen = jnp.take_along_axis(y, token[:, None], axis=-1)[:, 0]
    heat = jnp.ones(token.shape, jnp.float32) if own is None else own
    found = Drawn(jnp.where(live, token, -1), chosen, heat, token_statistics(x, token))
    seen = state.seen
    if seen is not None:
        seen = seen | (live[:, None] & (jnp.arange(seen.shape[1]) == token[:, None]))
    pending = jnp.where(live, token, state.pending)
    return Rows(cache, pending, state.text, state.drawn + live.astype(jnp.int32), seen), found


def _points(key: Any, text: Int[Array, " rows"], drawn: Int[Array, " rows"]) -> Array:
    """Returns a uniform number for each row, from the request's key, its text and its step."""

    def one(text: Array, drawn: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, text), drawn))

    return jax.vmap(one)(text, drawn)


@functools.lru_cache(maxsize=16)
def _programs(plan: Plan, layout: Layout | None) -> tuple[Any, Any, Any]:
    """Returns the compiled programs of a plan: to start rows, to put them, and to draw.

    With a layout, every device draws its own rows, at its own pace.
    """
    network, length, steps = plan.network, plan.length, plan.steps

    def start(fixed: Fixed, tokens: Array, labels: Array, counts: Array, scored: bool) -> Any:
        hidden, heat, cache = read(network, fixed.params, tokens, counts, length)
        if not scored:
            return cache, None
        return cache, statistics_of_states(
            hidden, fixed.columns, heat, labels, soft_cap=network.config.logit_soft_cap
        )

    def put(
        state: Rows, cache: Cache, pending: Array, text: Array, drawn: Array, seen: Any, into: Array
    ) -> Rows:
        # Chosen row by row: a CPU takes several times as long to scatter into a large cache.
        new = Rows(cache, pending, text, drawn, seen)

        def choose(old: Array, new: Array) -> Array:
            return jnp.where(into.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, state, new)

    def advance(fixed: Fixed, state: Rows, room: Array) -> tuple[Rows, Drawn]:
        shapes = jax.eval_shape(lambda: next_tokens(plan, fixed, state, room > 0)[1])
        found = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), shapes)
        found = found._replace(tokens=found.tokens - 1)

        def going(carry: Any) -> Any:
            time, _, _, room = carry
            return (time < steps) & jnp.any(time < room)

        def go(carry: Any) -> Any:
            time, state, found, room = carry
            state, new = next_tokens(plan, fixed, state, time < room)
            found = jax.tree.map(lambda all, one: all.at[time].set(one), found, new)
            return time + 1, state, found, jnp.where(new.tokens == plan.end, 0, room)

        _, state, found, _ = jax.lax.while_loop(going, go, (0, state, found, room))
        return state, found

    start_program = jax.jit(start, static_argnames="scored")
    if layout is None:
        return start_program, jax.jit(put, donate_argnums=0), jax.jit(advance, donate_argnums=1)
    shared = layout.on_each_device(advance, (P(), P(ROWS), P(ROWS)), (P(ROWS), P(None, ROWS)))
    return (
        start_program,
        jax.jit(put, donate_argnums=0, out_shardings=layout.rows),
        jax.jit(shared, donate_argnums=1),
    )


_empty = jax.jit(empty_cache, static_argnums=(0, 2, 3))


def bucket(count: int) -> int:
    """Returns the size that so many tokens are padded to: few sizes, as each is a program."""
    return max(8, 1 << max(0, count - 1).bit_length())


def _shared_out(rows: int) -> Layout | None:
    """Returns a layout of rows over the devices here; None where one device has them all."""
    devices = len(jax.local_devices())
    if devices == 1 or rows == 1:
        return None
    return make_layout(MeshConfig(), -(-rows // devices) * devices)


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
        rows: texts side by side; rounded up to what the devices here share evenly.
        length: tokens that a row can read before it has to be placed anew.
        seed: of the request.
        steps: tokens that are drawn at once, at most.
        """
        network, vocab = model.network, model.network.vocab_size
        plan = Plan(network, sampling, model.tokenizer.eos_id, steps, length)
        layout = _shared_out(rows)
        if layout is not None:
            rows = -(-rows // layout.row_shares) * layout.row_shares
        elif jax.default_backend() == "cpu" and model.columns.dtype == jnp.bfloat16:
            rows = max(rows, 2)  # XLA multiplies a single row in bfloat16 15 times more slowly
        self.rows, self.length = rows, length
        self._start, self._put, self._advance = _programs(plan, layout)
        drawable, key = jnp.asarray(model.drawable), jax.random.key(seed)
        head = model.lookahead if sampling.lookahead_head is not None else None
        if sampling.lookahead_head is not None and head is None:
            raise ValueError(
                f"lookahead_head: the model holds none; read {sampling.lookahead_head!r} with "
                "lookahead_head.read_head"
            )
        self._fixed = Fixed(model.params, model.columns, drawable, key, head)
        cache = _empty(network, model.params, rows, length)
        # arrays of their own, so that they can be donated
        pending, text, drawn = (jnp.zeros((rows,), jnp.int32) for _ in range(3))
        penalised = sampling.repetition_penalty != 1.0
        seen = jnp.zeros((rows, vocab), bool) if penalised else None
        self._state = Rows(cache, pending, text, drawn, seen)
        if layout is not None:
            self._fixed = jax.device_put(self._fixed, layout.everywhere)
            self._state = jax.device_put(self._state, layout.rows)

    def place(
        self,
        rows: Sequence[int],
        tokens: Sequence[Int[np.ndarray, " tokens"]],
        texts: Sequence[int],
        drawn: Sequence[int],
        seen: Sequence[Int[np.ndarray, " tokens"]],
        scored: Sequence[bool],
    ) -> list[tuple[TokenStatistics, Float[np.ndarray, " tokens"]] | None]:
        """Puts texts into rows.

        Args:
            rows: where each is put.
            tokens: what the model sees of each, at least one token.
            texts: their numbers.
            drawn: how many tokens each has drawn.
            seen: all tokens of each.
            scored: whether its tokens are to be scored while they are read.

        Returns:
            Of each text that is scored, the statistics of what the model sees of it but for the
            first token, and the temperature of each; None of the others.
        """
        # One text is read at a time, by a program that depends on its own length alone, so that
        # its state is the same whatever it is placed with; texts that are the same are read once.
        alike: dict[tuple[bytes, bool], list[int]] = {}
        for place, (ids, asked) in enumerate(zip(tokens, scored, strict=True)):
            alike.setdefault((np.asarray(ids, np.int32).tobytes(), asked), []).append(place)
        found: list[Any] = [None] * len(tokens)
        for (_, asked), places in alike.items():
            ids = tokens[places[0]]
            count = len(ids) - 1
            padded = np.zeros((2, 1, min(self.length, bucket(count))), np.int32)
            padded[0, 0, :count], padded[1, 0, :count] = ids[:-1], ids[1:]
            counts = np.array([count], np.int32)
            cache, said = self._start(self._fixed, *padded, counts, scored=asked)
            into = np.zeros(self.rows, bool)
            numbers = np.zeros((3, self.rows), np.int32)
            held = None
            if self._state.seen is not None:
                held = np.zeros((self.rows, self._state.seen.shape[1]), bool)
            for place in places:
                row = rows[place]
                into[row] = True
                numbers[:, row] = tokens[place][-1], texts[place], drawn[place]
                if held is not None:
                    held[row, seen[place]] = True
                found[place] = said, count
            self._state = self._put(self._state, cache, *numbers, held, into)
        return [_first(*each) for each in found]

    def advance(self, room: Int[np.ndarray, " rows"]) -> Drawn:
        """Draws tokens: of each row at most so many, at most `steps`, and none after its end.

        Returns at once, while the device draws; `fetched` waits for the tokens.
        """
        self._state, found = self._advance(self._fixed, self._state, np.asarray(room, np.int32))
        return found


def _first(said: Any, count: int) -> Any:
    """Returns what is said of the first tokens of the only row, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[0, :count], said)


def fetched(drawn: Drawn) -> Drawn:
    """Returns tokens that were drawn, as NumPy arrays; waits until they are there."""
    return jax.device_get(drawn)
