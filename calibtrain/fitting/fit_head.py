"""A head of any kind fitted to a frozen model's states: AdamW, a cosine, an early stop.

It starts from the best temperature for all tokens, and what does not make that better is not kept.
A step reads some rows of the text and the logits of at most so many of their tokens. For a head
that gives temperatures nothing is sent back through the logits: a token's loss is a function of its
own log T, whose derivative is a number (of the nll it is H - nll), and the compiler drops the
products that only the frozen parts would need.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from calibtrain.fitting.descent import adamw, make_step
from calibtrain.fitting.fit_global import fit_global
from calibtrain.fitting.frozen import Frozen, at_tokens, mean_over
from calibtrain.fitting.states import Block, States
from calibtrain.models import Head, Params
from calibtrain.readout import TokenStats, additive_loss
from calibtrain.temperature.bounded import bounded_log_temperature
from calibtrain.temperature.pointwise import Global, Pointwise
from calibtrain.temperature.token_head import TokenHead

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

LEARNING_RATES = {
    "global": 1e-2,
    "vector": 1e-2,
    "position": 1e-2,
    "linear": 1e-2,
    "mlp": 3e-3,
    "adaptive": 2e-3,
    "thermometer": 1e-3,
}
"""Peaks by kind, for models of the size that is trained here."""


class TokenLoss(Protocol):
    """As those of `calibtrain.losses` are."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Of `TokenStats`, what it reads."""

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """The loss of each token."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a head is fitted.

    Attributes:
        steps: of AdamW.
        tokens: whose logits a step reads.
        learning_rate: peak; none: that of the kind.
        weight_decay: of matrices.
        held_out: share of the documents on which the loss decides when to stop.
        evaluations: how often it is looked at.
        patience: evaluations without a better one after which to stop.
        seed: of the head's first parameters and the order of the rows.
    """

    steps: int = 500
    tokens: int = 2048
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    held_out: float = 0.1
    evaluations: int = 20
    patience: int = 6
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head's parameters, and how they were found.

    Attributes:
        params: of the head.
        nll_before: of all the text, without the head, in nats a token.
        nll_after: with it.
        steps: taken, of those that were asked for.
        held_out: tokens on which the best parameters were chosen; 0: none were held out.
        seconds: in all.
    """

    params: Params
    nll_before: float
    nll_after: float
    steps: int
    held_out: int
    seconds: float


def fit_head(
    head: Head,
    frozen: Frozen,
    states: States,
    loss: TokenLoss,
    recipe: Recipe | None = None,
    *,
    proper: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FittedHead:
    """Fit a head.

    Args:
        head: of the model.
        frozen: the model's end.
        states: of the text.
        loss: what is minimised.
        recipe: how.
        proper: whether the loss is the nll, each token weighing the same: then the temperature
            to start from is exact; else it is fitted by gradients, too.
        progress: told steps taken, and of how many.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    score = frozen.scorer(head, tuple(dict.fromkeys(("nll", *loss.fields))))
    fresh = jax.jit(head.init)(jax.random.key(recipe.seed))
    if proper:
        start, before, at_start = _from_exact(head, fresh, frozen, states, score)
    else:
        start = _from_gradients(head, fresh, frozen, states, loss, recipe, progress)
        before = mean_over(frozen.scorer(None, ("nll",)), None, states)
        at_start = mean_over(score, start, states, loss.per_token)
    training, held = hold_out(states, recipe)
    rows = None if held is None else _some(held, 2**15, recipe.seed)

    def of_held_out(params: Params) -> float:
        return 0.0 if held is None else mean_over(score, params, held, loss.per_token, rows)

    optimizer = make_optimizer(head.name, recipe)
    step = make_step(mean_loss(head, frozen, loss), optimizer)
    carry = (start, optimizer.init(start))
    best, least, worse, taken = start, of_held_out(start), 0, 0
    due = max(1, recipe.steps // recipe.evaluations)
    for number, block in enumerate(_batches(training, recipe), 1):
        carry = step(carry, frozen.unembedding, block)
        taken = number
        progress(number, recipe.steps)
        if held is not None and (number % due == 0 or number == recipe.steps):
            found = of_held_out(carry[0])
            worse = 0 if found < least else worse + 1
            if found < least:
                best, least = carry[0], found
            if worse == recipe.patience:
                break
    if held is None:
        best = carry[0]
    at_end = mean_over(score, best, states, loss.per_token)
    if not at_end < at_start:
        best, at_end = start, at_start
    after = at_end if proper else mean_over(score, best, states)
    held_out = 0 if held is None or rows is None else int(held.counted[rows].sum())
    return FittedHead(best, before, after, taken, held_out, time.monotonic() - began)


def _from_exact(
    head: Head, fresh: Params, frozen: Frozen, states: States, score: Any
) -> tuple[Params, float, float]:
    """Parameters of the temperature with the lowest nll; the nll without them, and with them."""
    lowest, highest = head.reach
    found = fit_global(frozen, states, lowest=lowest, highest=highest)
    if found.temperature == 1.0:
        return fresh, found.nll_before, found.nll_before
    start = head.at(fresh, found.temperature)
    nll = mean_over(score, start, states)
    # to rounding the same, except where the head does not quite give that temperature
    same = math.isclose(nll, found.nll_after, rel_tol=1e-6)
    nll = found.nll_after if same else nll
    if not nll < found.nll_before:
        return fresh, found.nll_before, found.nll_before
    return start, found.nll_before, nll


def _from_gradients(
    head: Head,
    fresh: Params,
    frozen: Frozen,
    states: States,
    loss: TokenLoss,
    recipe: Recipe,
    progress: Callable[[int, int], None],
) -> Params:
    """Parameters of the temperature that a global head finds for a loss, in as many steps."""
    if head.name == "global":
        return fresh
    limit = head.reach[1]
    alone = TokenHead("global", Pointwise(Global(limit)))
    own = dataclasses.replace(recipe, learning_rate=None)
    found = fit_head(alone, frozen, states, loss, own, proper=False, progress=progress)
    return head.at(fresh, math.exp(float(bounded_log_temperature(found.params["raw"], limit))))


def make_optimizer(kind: str, recipe: Recipe) -> optax.GradientTransformation:
    """AdamW with a short warm-up and a cosine to 0."""
    peak = recipe.learning_rate or LEARNING_RATES[kind]
    warm_up = max(1, recipe.steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, max(2, recipe.steps))
    return adamw(schedule, recipe.weight_decay)


def mean_loss(
    head: Head, frozen: Frozen, loss: TokenLoss
) -> Callable[[Params, Array, Block], Array]:
    """(parameters, unembedding, block) -> the mean loss of the block's tokens."""
    fields = tuple(dict.fromkeys(("nll", *loss.fields)))

    def of_block(params: Params, unembedding: Array, block: Block) -> Array:
        hidden, columns, temperature = at_tokens(head, params, unembedding, block)
        total, _ = additive_loss(
            hidden,
            columns,
            jnp.asarray(block.labels),
            jnp.asarray(block.weights),
            loss.per_token,
            temperature=temperature,
            vocab_size=frozen.vocab_size,
            soft_cap=frozen.soft_cap,
            fields=fields,
            chunk=len(block.index),  # one chunk, so that what is not needed falls out
        )
        return total / jnp.sum(block.weights)

    return of_block


def hold_out(states: States, recipe: Recipe) -> tuple[States, States | None]:
    """The text to fit on, and that of the documents which are held out; None of too few."""
    documents = np.unique(states.documents[states.counted])
    count = round(recipe.held_out * len(documents))
    if count == 0:
        return states, None
    held = np.random.default_rng(recipe.seed).permutation(documents)[:count]
    return states.only(np.setdiff1d(documents, held)), states.only(held)


def _some(states: States, tokens: int, seed: int) -> Int[np.ndarray, " rows"]:
    """Rows of about so many tokens, drawn at random, in their order."""
    rows = np.flatnonzero(states.counted.any(axis=1))
    order = np.random.default_rng([seed, 1]).permutation(rows)
    enough = int(np.searchsorted(np.cumsum(states.counted[order].sum(axis=1)), tokens)) + 1
    return np.sort(order[:enough])


def _batches(states: States, recipe: Recipe) -> Any:
    """A block a step: rows in a new order each time they have all been read."""
    rows = np.flatnonzero(states.counted.any(axis=1))
    size = min(recipe.tokens, states.tokens)
    at_once = min(len(rows), max(1, round(size / states.counted[rows].sum(axis=1).mean())))
    rng = np.random.default_rng([recipe.seed, 2])
    order = rng.permutation(rows)
    for _ in range(recipe.steps):
        if len(order) < at_once:
            order = np.concatenate([order, rng.permutation(rows)])
        some, order = order[:at_once], order[at_once:]
        yield states.block(some, size)
