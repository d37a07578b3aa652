"""What run.json says of a run: how far it is, what it trains on, its size, its software."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

import calibtrain
from calibtrain.config import config_hash
from calibtrain.runs.records import (
    BudgetRecord,
    CorpusRecord,
    MemoryRecord,
    ParametersRecord,
    RunRecord,
    TokenizerRecord,
)
from calibtrain.storage.documents import FORMAT
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
    """The record that run.json holds.

    Args:
        plan: the run.
        name: of its folder.
        memory: bytes, by what they are for.
        status: "running", "stopped", "failed" or "done".
        step: steps trained in all.
        seconds: spent training and evaluating, over all its starts.
        more: `error`, of a run that failed.
    """
    parameters = plan.parameters
    rows: dict[str, Any] = {}
    if plan.config.finetune is not None:
        rows["row_tokens"] = plan.batches.context
    return RunRecord(
        format=FORMAT,
        name=name,
        status=status,
        step=step,
        steps=plan.budget.steps,
        version=calibtrain.__version__,
        jax=jax.__version__,
        device=jax.devices()[0].device_kind,
        config_hash=config_hash(plan.config),
        corpus=CorpusRecord(**plan.corpus.provenance.to_dict()),
        tokenizer=TokenizerRecord(
            kind=plan.tokenizer.manifest.kind,
            vocab_size=plan.tokenizer.vocab_size,
            hash=plan.tokenizer.hash,
            bytes_per_token=plan.store.bytes_per_token,
        ),
        context_tokens=plan.context,
        **rows,
        parameters=ParametersRecord(**dataclasses.asdict(parameters), total=parameters.total),
        **_head(plan),
        **plan.facts,
        budget=BudgetRecord(**dataclasses.asdict(plan.budget)),
        memory=MemoryRecord(**memory),
        seconds=seconds,
        **more,
    )


def _head(plan: Plan) -> dict[str, Any]:
    """The temperature head, whose parameters are counted by themselves; nothing without one."""
    if plan.network.head is None:
        return {}
    shapes = jax.eval_shape(plan.network.head.init, jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    return {"temperature": {"kind": plan.network.head.name, "parameters": count}}
