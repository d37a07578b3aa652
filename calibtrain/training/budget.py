"""How long a run is, in every currency, and at which of its steps something is due."""

import dataclasses
import math
from typing import NamedTuple

from calibtrain.config import Config
from calibtrain.data.batches.stream import TextStream
from calibtrain.errors import UserError
from calibtrain.models.size import training_flops
from calibtrain.runs.checkpoint import MOST_STEPS


@dataclasses.dataclass(frozen=True)
class Budget:
    """The length of a run in every currency.

    Attributes:
        steps: optimizer steps.
        tokens: slots (tokens and document ends) that are trained on.
        bytes: bytes of text behind them.
        flops: analytic training FLOPs.
    """

    steps: int
    tokens: int
    bytes: int
    flops: float


def budget_of(config: Config, vocab_size: int, stream: TextStream, context: int) -> Budget:
    """Returns the budget of a configuration on a text.

    Args:
        config: of the run.
        vocab_size: of its model.
        stream: the training text, in the order of the run's seed.
        context: in tokens.

    Raises:
        UserError: for more steps than can be counted.
    """
    cost = training_flops(config.model, vocab_size, context)
    slots = _slots(config, stream, context, cost)
    steps = -(-slots // (config.batch.rows * context))
    if steps > MOST_STEPS:
        raise UserError(
            f"budget: {config.budget.model_dump(exclude_none=True)} is {steps:,} steps, and at "
            f"most {MOST_STEPS:,} are allowed; use a smaller budget, or more batch.rows or context"
        )
    return Budget(steps=steps, tokens=slots, bytes=stream.bytes_before(slots), flops=cost * slots)


def _slots(config: Config, stream: TextStream, context: int, cost: float) -> int:
    """Slots that a budget in any currency pays for."""
    budget = config.budget
    if budget.steps is not None:
        return budget.steps * config.batch.rows * context
    if budget.bytes is not None:
        return stream.slots_for_bytes(budget.bytes)
    if budget.tokens is not None:
        return budget.tokens
    assert budget.flops is not None
    return max(1, round(budget.flops / cost))


class Due(NamedTuple):
    """What follows a step: a line of training metrics, an evaluation, a checkpoint."""

    logs: bool
    evaluates: bool
    saves: bool


def is_due(step: int, steps: int, times: int, every: int | None) -> bool:
    """Whether something that happens `times` a run, or `every` so many steps, happens at a step.

    Args:
        step: steps trained so far.
        steps: of the run; everything happens at its end.
        times: how often in the run, evenly spaced.
        every: steps between two times; None means `times` a run.
    """
    if step == steps:
        return True
    if every is not None:
        return step % every == 0
    # evenly spaced: step is ceil(k * steps / times) for some k
    k = step * times // steps
    return k >= 1 and math.ceil(k * steps / times) == step


def due_steps(upto: int, steps: int, times: int, every: int | None) -> list[int]:
    """Returns the steps up to one at which something is due; arguments as for `is_due`."""
    if every is not None:
        due = range(every, upto + 1, every)
    elif times >= steps:
        due = range(1, upto + 1)
    else:
        spaced = {math.ceil(k * steps / times) for k in range(1, times + 1)}
        return sorted(step for step in spaced | {steps} if step <= upto)
    return sorted({*due, steps} if upto >= steps else due)
