"""`calibtrain lookahead`: a head that predicts the entropy of the step after each token.

Real text shows it one candidate at each position: the token that the text says, and the entropy of
the model's next step. The head is fitted to those of validation text, and measured on test text;
there also within positions, between candidates that were all read, as a sampler compares them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from calibtrain.analysis.entropy_rate import Figure, figure
from calibtrain.analysis.lookahead_fit import Lookahead
from calibtrain.analysis.lookahead_table import read_lookahead
from calibtrain.analysis.memory_bound import eligible
from calibtrain.analysis.of_run import Opened, require
from calibtrain.errors import UserError
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead_head import (
    LookaheadHead,
    divided_by,
    head_file,
    write_head,
)
from calibtrain.generation.statistics import entropy_of
from calibtrain.models import Network
from calibtrain.readout import log_probabilities
from calibtrain.runs.latest_checkpoint import checkpoint_facts

FIT_SPLIT = "validation"
_ROWS = 8  # windows of a pass
_BATCH = 2048  # pairs of a step
_PRIOR = 4.0  # pairs of mean entropy that a token's bias begins with
_PEAK, _DECAY = 5e-3, 1e-3  # of AdamW


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a head is fitted and measured.

    Attributes:
        rank: numbers of the hidden state that each token weighs in its own way.
        steps: of AdamW.
        candidates: that are read at each position of test text.
        positions: of test text.
        seed: of the first parameters, the order of the pairs and the positions.
    """

    rank: int = 16
    steps: int = 300
    candidates: int = 32
    positions: int = 200
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for a number that is not allowed."""
        require("rank", self.rank, 1)
        require("steps", self.steps, 1)
        require("candidates", self.candidates, 2)
        require("positions", self.positions, 2)


class Pairs(NamedTuple):
    """What real text shows of the step after a token.

    Attributes:
        hidden: the state that the token was predicted from.
        tokens: that the text says there.
        entropies: of the step after it, in nats.
        documents: number of the text.
    """

    hidden: Float[np.ndarray, "pairs width"]
    tokens: Int[np.ndarray, " pairs"]
    entropies: Float[np.ndarray, " pairs"]
    documents: Int[np.ndarray, " pairs"]


def fit_lookahead_head(
    run: Opened,
    recipe: Recipe | None = None,
    *,
    name: str = "default",
    replace: bool = False,
    limit: int | None = None,
) -> tuple[dict[str, Any], Path | None]:
    """Returns what is said of a head that is fitted to a run, and the file that holds it.

    Args:
        run: the run.
        recipe: how it is fitted; None means the defaults.
        name: of the head.
        replace: whether a head of that name may be replaced.
        limit: about how many bytes of each split are read, in whole documents; None means all.

    Returns:
        checkpoint, temperature, pairs, the recipe, and of test text: `r_squared` over positions,
        `correlation`, and `within`: the correlation between candidates of one position, whose mean
        is taken out and which are weighed by their probability.

    Raises:
        UserError: for numbers that are not allowed, a name that is taken, and as `evaluate` does.
    """
    asked = recipe or Recipe()
    asked.check()
    if limit is not None:
        require("bytes", limit, 1)
    target = head_file(run.saved.run.path, name)
    if target.exists() and not replace:
        raise UserError(f"--name: {name} is there already ({target}); take another, or --replace")
    run.progress.stage(f"reading {FIT_SPLIT} text")
    fitted_on = read_pairs(run.model, _ids(run, FIT_SPLIT, limit))
    run.progress.stage("fitting")
    fitted = fit_pairs(fitted_on, run.model.network.vocab_size, asked)
    run.progress.stage("reading test text")
    texts = _ids(run, "test", limit)
    about = {
        "checkpoint": checkpoint_facts(run.saved.run, run.saved.config),
        **divided_by(run.saved.head),
        "fitted_on": FIT_SPLIT,
        "pairs": len(fitted_on.tokens),
        **dataclasses.asdict(asked),
        **agreement(fitted, read_pairs(run.model, texts)),
        "within": _within(run, fitted, texts, asked),
    }
    with run.saved.writing():
        write_head(target, fitted, about)
        return about, target
    return about, None


def _ids(run: Opened, split: str, limit: int | None) -> list[Int[np.ndarray, " tokens"]]:
    found, size = [], 0
    for document in run.saved.corpus(run.corpus).documents(split):
        if limit is not None and size >= limit:
            break
        found.append(run.model.prompt_ids(document.text))
        size += len(document.text.encode())
    return found


def read_pairs(model: LanguageModel, texts: Sequence[Int[np.ndarray, " tokens"]]) -> Pairs:
    """Returns the pairs of texts, read by windows of the context that do not overlap.

    Args:
        model: what predicts.
        texts: ids, the document start first.

    Raises:
        UserError: for texts without two tokens.
    """
    context = model.context
    windows = [
        (number, ids[start : start + context])
        for number, ids in enumerate(texts)
        for start in range(0, len(ids), context)
        if len(ids[start : start + context]) > 1
    ]
    if not windows:
        raise UserError("text: holds no two tokens in a row; a look-ahead head needs more")
    program = _program(model.network)
    parts = []
    for first in range(0, len(windows), _ROWS):
        some = windows[first : first + _ROWS]
        tokens = np.zeros((_ROWS, context), np.int32)
        for row, (_, ids) in enumerate(some):
            tokens[row, : len(ids)] = ids
        hidden, entropies = map(np.asarray, program(model.params, tokens))
        for row, (number, ids) in enumerate(some):
            count = len(ids) - 1
            after = entropies[row, 1 : count + 1]
            parts.append((hidden[row, :count], ids[1:], after, np.full(count, number)))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@functools.lru_cache(maxsize=4)
def _program(network: Network) -> Any:
    """Returns the program that reads windows: hidden states, and the entropy of each next step."""

    @jax.jit
    def read(params: Any, tokens: Array) -> tuple[Array, Array]:
        hidden, columns, own = network.apply(params, tokens, jnp.zeros_like(tokens))
        heat = jnp.ones(tokens.shape, jnp.float32) if own is None else own

        def one(row: tuple[Array, Array]) -> Array:
            states, heat = row
            x = log_probabilities(
                states,
                columns,
                temperature=None if own is None else heat,
                soft_cap=network.config.logit_soft_cap,
            )
            return entropy_of(x)

        return hidden, jax.lax.map(one, (hidden, heat))

    return read


def fit_pairs(pairs: Pairs, vocab: int, recipe: Recipe) -> LookaheadHead:
    """Returns the head of least squared error, by AdamW from the tokens' mean entropies."""
    mean, scale = pairs.entropies.mean(), float(pairs.hidden.std()) or 1.0
    counts = np.bincount(pairs.tokens, minlength=vocab)
    sums = np.bincount(pairs.tokens, pairs.entropies - mean, minlength=vocab)
    width = pairs.hidden.shape[1]
    keys = jax.random.split(jax.random.key(recipe.seed), 3)
    begin = LookaheadHead(
        jnp.float32(mean),
        jnp.asarray(sums / (counts + _PRIOR), jnp.float32),
        jnp.zeros(width),
        jax.random.normal(keys[0], (width, recipe.rank)) / width**0.5,
        0.1 * jax.random.normal(keys[1], (vocab, recipe.rank)),
    )
    inputs = jnp.asarray(pairs.hidden) / scale
    tokens, wanted = jnp.asarray(pairs.tokens), jnp.asarray(pairs.entropies)
    schedule = optax.cosine_decay_schedule(_PEAK, recipe.steps)
    optimizer = optax.adamw(schedule, weight_decay=_DECAY)

    def loss(head: LookaheadHead, some: Array) -> Array:
        error = _of_tokens(head, inputs[some], tokens[some]) - wanted[some]
        return jnp.mean(error**2)

    @jax.jit
    def run(head: LookaheadHead, keys: Array) -> LookaheadHead:
        def step(carry: Any, key: Array) -> Any:
            head, state = carry
            some = jax.random.randint(key, (_BATCH,), 0, len(pairs.tokens))
            updates, state = optimizer.update(jax.grad(loss)(head, some), state, head)
            return (optax.apply_updates(head, updates), state), None

        return jax.lax.scan(step, (head, optimizer.init(head)), keys)[0][0]

    found = run(begin, jax.random.split(keys[2], recipe.steps))
    return found._replace(linear=found.linear / scale, left=found.left / scale)


def _of_tokens(head: LookaheadHead, hidden: Array, tokens: Array) -> Array:
    """Returns the prediction for one token per row; `predicted_entropies` has all, cut at 0."""
    weighed = jnp.sum((hidden @ head.left) * head.right[tokens], axis=-1)
    return head.mean + hidden @ head.linear + head.bias[tokens] + weighed


def agreement(head: LookaheadHead, pairs: Pairs) -> dict[str, Figure | float | None]:
    """Returns how well a head predicts the pairs: `r_squared` with its interval over documents, and
    `correlation`."""
    predicted = np.asarray(_of_tokens(head, jnp.asarray(pairs.hidden), jnp.asarray(pairs.tokens)))
    error = (np.maximum(predicted, 0.0) - pairs.entropies) ** 2
    columns = (np.ones(len(error)), pairs.entropies, pairs.entropies**2, error)
    sums = np.stack([np.bincount(pairs.documents, column) for column in columns], axis=-1)
    return {
        "r_squared": figure(sums, lambda s: 1 - s[:, 3] / (s[:, 2] - s[:, 1] ** 2 / s[:, 0])),
        "correlation": float(np.corrcoef(predicted, pairs.entropies)[0, 1]),
    }


def _within(
    run: Opened,
    head: LookaheadHead,
    texts: Sequence[Int[np.ndarray, " tokens"]],
    asked: Recipe,
) -> float:
    """Returns the correlation between the candidates of a position, over positions."""
    places = eligible([1] * len(texts), list(map(len, texts)), 0, asked.positions, asked.seed)
    run.progress.stage("reading candidates")
    read, learned = (
        read_lookahead(model, texts, places, top=asked.candidates, progress=run.progress)
        for model in (run.model, dataclasses.replace(run.model, lookahead=head))
    )
    return correlation_within(read, learned)


def correlation_within(read: Lookahead, learned: Lookahead) -> float:
    """Returns the correlation of two look-aheads between candidates of the same position.

    The mean of each position is taken out, and candidates are weighed by their probability: that is
    what changes a distribution.
    """
    weights = np.exp(read.log_probability)
    a, b = (np.where(weights > 0, each.next_entropy, 0.0) for each in (read, learned))
    a, b = (x - (weights * x).sum(1, keepdims=True) for x in (a, b))
    return float((weights * a * b).sum() / np.sqrt((weights * a**2).sum() * (weights * b**2).sum()))
