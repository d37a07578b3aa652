"""What run.json says of a run that is trained: how far it is, what it trains on, its size."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from calibtrain.runs.records import RunRecord
from calibtrain.runs.summary import summarise_run
from calibtrain.training.plan import Plan


def describe_run(
    plan: Plan,
    name: str,
    memory: Mapping[str, int],
    status: str,
    step: int,
    seconds: float,
    **more: Any,
) -> RunRecord:
    """Returns the record that run.json holds.

    Args:
        plan: the run.
        name: of its folder.
        memory: bytes, by what they are for.
        status: running, stopped, failed or done.
        step: steps trained in all.
        seconds: spent training and evaluating, over all its starts.
        more: `error`, of a run that failed.
    """
    if plan.config.finetune is not None:
        more["row_tokens"] = plan.batches.context
    if plan.network.head is not None:  # its parameters are counted by themselves
        shapes = jax.eval_shape(plan.network.head.init, jax.random.key(0))
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        more["temperature"] = {"kind": plan.network.head.name, "parameters": count}
    return summarise_run(
        name=name,
        status=status,
        step=step,
        config=plan.config,
        corpus=plan.corpus,
        tokenizer=plan.tokenizer,
        bytes_per_token=plan.store.bytes_per_token,
        context=plan.context,
        parameters=plan.parameters,
        budget=dataclasses.asdict(plan.budget),
        memory=memory,
        seconds=seconds,
        **plan.facts,
        **more,
    )
