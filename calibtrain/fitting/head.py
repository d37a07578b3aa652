"""A head of any kind fitted to a frozen model's hidden states: AdamW, a cosine, an early stop.

A fit starts from the best single temperature, and parameters that are no better are not kept. Each
step reads some rows of the text and computes the logits of a limited number of their tokens. For a
head that gives temperatures no gradient flows through the logits: a token's loss is a function of
its own log T, whose derivative is one number (H - nll for the nll), and the compiler drops the
products that only the frozen parts would need.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.hidden_states import HiddenBatch, HiddenStates
from calibtrain.fitting.output_layer import OutputLayer, Score, mean_over, output_at_tokens
from calibtrain.models import Params, TemperatureHead
from calibtrain.readout import TokenStats, additive_loss
from calibtrain.temperature.affine import AffineHead
from calibtrain.temperature.bounded import bounded_log_temperature
from calibtrain.temperature.pointwise import Global, Pointwise
from calibtrain.temperature.token_head import TokenHead

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

LEARNING_RATES = {
    "global": 1e-2,
    "vector": 1e-2,
    "matrix": 3e-2,
    "low_rank_matrix": 1e-2,
    "position": 1e-2,
    "linear": 1e-2,
    "mlp": 3e-3,
    "adaptive": 2e-3,
    "thermometer": 1e-3,
}
"""Peak learning rates by kind, for models of the sizes that are trained here."""

MeanLoss = Callable[[Params, Array, HiddenBatch], Array]
"""(parameters of a head, unembedding, batch) -> the mean loss of the batch's tokens."""


class TokenLoss(Protocol):
    """A loss that is one number per token, as in `calibtrain.losses`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The statistics that the loss reads."""

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a head is fitted.

    Attributes:
        steps: number of steps of AdamW.
        tokens: number of tokens whose logits a step reads.
        learning_rate: its peak; None takes that of the kind, from `LEARNING_RATES`.
        weight_decay: applied to matrices only.
        held_out: share of the documents on which the loss decides when to stop.
        evaluations: how many times the loss of held-out documents is computed.
        patience: the fit stops after so many evaluations without a better one.
        seed: seeds the head's first parameters and the order of the rows.
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
        params: parameters of the head.
        nll_before: mean nll of the whole text without the head, in nats per token.
        nll_after: mean nll with it.
        steps: number of steps that were taken, at most those asked for.
        held_out: number of tokens on which the best parameters were chosen; 0 if none were.
        seconds: how long it took in all.
    """

    params: Params
    nll_before: float
    nll_after: float
    steps: int
    held_out: int
    seconds: float


def fit_head(
    head: TemperatureHead,
    output_layer: OutputLayer,
    states: HiddenStates,
    loss: TokenLoss,
    recipe: Recipe | None = None,
    *,
    proper: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FittedHead:
    """Returns a head's parameters, fitted to hidden states.

    Args:
        head: the kind of head.
        output_layer: the frozen model's.
        states: hidden states of the text.
        loss: is minimised.
        recipe: how; None means `Recipe()`.
        proper: whether the loss is the nll with equal weights. If so, the temperature to start from
            is exact; else it is fitted by gradients, too.
        progress: is told the number of steps taken, and of all.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    score = output_layer.scorer(head, tuple(dict.fromkeys(("nll", *loss.fields))))
    fresh = jax.jit(head.init)(jax.random.key(recipe.seed))
    if proper:
        start, before, at_start = _start_from_exact(head, fresh, output_layer, states, score)
    else:
        start = _start_from_gradients(head, fresh, output_layer, states, loss, recipe, progress)
        before = mean_over(output_layer.scorer(None, ("nll",)), None, states)
        at_start = mean_over(score, start, states, loss.per_token)
    training, held = hold_out(states, recipe)
    rows = None if held is None else _random_rows(held, 2**15, recipe.seed)

    def of_held_out(params: Params) -> float:
        return 0.0 if held is None else mean_over(score, params, held, loss.per_token, rows)

    optimizer = make_optimizer(head.name, recipe)
    step = make_step(mean_loss(head, output_layer, loss), optimizer)
    carry = (start, optimizer.init(start))
    best, least, worse, taken = start, of_held_out(start), 0, 0
    due = max(1, recipe.steps // recipe.evaluations)
    for number, batch in enumerate(_batches(training, recipe), 1):
        carry = step(carry, output_layer.unembedding, batch)
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


def _start_from_exact(
    head: TemperatureHead,
    fresh: Params,
    output_layer: OutputLayer,
    states: HiddenStates,
    score: Score,
) -> tuple[Params, float, float]:
    """Parameters of the temperature with the lowest nll; the nll without them, and with them."""
    lowest, highest = head.reach
    found = fit_global_temperature(output_layer, states, lowest=lowest, highest=highest)
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


def _start_from_gradients(
    head: TemperatureHead,
    fresh: Params,
    output_layer: OutputLayer,
    states: HiddenStates,
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
    found = fit_head(alone, output_layer, states, loss, own, proper=False, progress=progress)
    return head.at(fresh, math.exp(float(bounded_log_temperature(found.params["raw"], limit))))


def make_optimizer(kind: str, recipe: Recipe) -> optax.GradientTransformation:
    """Returns AdamW with a short warm-up and a cosine to 0."""
    peak = recipe.learning_rate or LEARNING_RATES[kind]
    warm_up = max(1, recipe.steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, max(2, recipe.steps))
    return adamw(schedule, recipe.weight_decay)


def adamw(learning_rate: optax.ScalarOrSchedule, decay: float) -> optax.GradientTransformation:
    """Returns AdamW whose weight decay applies to matrices only."""
    return optax.adamw(
        learning_rate,
        weight_decay=decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params),
    )


def make_step(
    loss: MeanLoss, optimizer: optax.GradientTransformation
) -> Callable[[Any, Array, HiddenBatch], Any]:
    """Returns a compiled step: (carry, unembedding, batch) -> carry.

    The carry holds the head's parameters and the optimizer's state.
    """

    def step(carry: Any, unembedding: Array, batch: HiddenBatch) -> Any:
        params, state = carry
        gradient = jax.grad(loss)(params, unembedding, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def mean_loss(head: TemperatureHead, output_layer: OutputLayer, loss: TokenLoss) -> MeanLoss:
    """Returns the loss of a batch under a head, to be differentiated by the head's parameters."""
    fields = tuple(dict.fromkeys(("nll", *loss.fields)))

    def of_batch(params: Params, unembedding: Array, batch: HiddenBatch) -> Array:
        hidden, columns, temperature = output_at_tokens(head, params, unembedding, batch)
        total, _ = additive_loss(
            hidden,
            columns,
            jnp.asarray(batch.labels),
            jnp.asarray(batch.weights),
            loss.per_token,
            temperature=temperature,
            vocab_size=output_layer.vocab_size,
            soft_cap=output_layer.soft_cap,
            fields=fields,
            chunk=len(batch.index),  # one chunk, so that the compiler can drop what is not needed
        )
        mean = total / jnp.sum(batch.weights)
        return mean + head.penalty(params) if isinstance(head, AffineHead) else mean

    return of_batch


def hold_out(states: HiddenStates, recipe: Recipe) -> tuple[HiddenStates, HiddenStates | None]:
    """Returns the text to fit on, and that of held-out documents: None if there are too few."""
    documents = np.unique(states.documents[states.counted])
    count = round(recipe.held_out * len(documents))
    if count == 0:
        return states, None
    held = np.random.default_rng(recipe.seed).permutation(documents)[:count]
    return states.only(np.setdiff1d(documents, held)), states.only(held)


def _random_rows(states: HiddenStates, tokens: int, seed: int) -> Int[np.ndarray, " rows"]:
    """Rows that hold about so many tokens, drawn at random, in the order of the text."""
    rows = states.rows_that_count()
    order = np.random.default_rng([seed, 1]).permutation(rows)
    enough = int(np.searchsorted(np.cumsum(states.counted[order].sum(axis=1)), tokens)) + 1
    return np.sort(order[:enough])


def _batches(states: HiddenStates, recipe: Recipe) -> Iterator[HiddenBatch]:
    """One batch per step, with rows in a new order each time that all have been read."""
    rows = states.rows_that_count()
    size = min(recipe.tokens, states.tokens)
    at_once = min(len(rows), max(1, round(size / states.counted[rows].sum(axis=1).mean())))
    rng = np.random.default_rng([recipe.seed, 2])
    order = rng.permutation(rows)
    for _ in range(recipe.steps):
        if len(order) < at_once:
            order = np.concatenate([order, rng.permutation(rows)])
        some, order = order[:at_once], order[at_once:]
        yield states.batch(some, size)
