"""Compiles the two programs of a run, training step and evaluation, and measures their memory."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from calibtrain.compilation.target import Target
from calibtrain.compilation.traffic import traffic
from calibtrain.config import ModelConfig
from calibtrain.data.batches.store import frequency_deciles
from calibtrain.errors import UserError
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.models.attention import choose
from calibtrain.models.size import forward_flops, training_flops
from calibtrain.models.stack import choose_layers
from calibtrain.parallel.mesh import make_layout
from calibtrain.readout.chunks import default_chunk
from calibtrain.temperature import network_of
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.plan import Plan
from calibtrain.training.program import lower_step, state_shapes


def compile_ahead(plan: Plan, target: Target) -> dict[str, Any]:
    """Compiles a run's training step and its evaluation for devices that are not here.

    Returns:
        The choices made for the devices; and for each program, `training` and `evaluation`: bytes
        per device by purpose, beside the device's memory; FLOPs per device by the compiler's count
        (None where it gives none) and by ours; bytes of each kind of collective.

    Raises:
        UserError: where the devices or rows cannot be divided as asked, or the compiler refuses.
    """
    config, vocab = plan.config, plan.tokenizer.vocab_size
    replicas = config.train.replicas
    layout = make_layout(
        config.mesh, config.batch.rows, config.batch.cuts, target.devices(), replicas=replicas
    )
    model = resolve(config.model, plan.context, target)
    network = network_of(config.model_copy(update={"model": model}), vocab)
    chunk = default_chunk(vocab, target.platform)

    optimizer = optimizer_of(config, plan.budget.steps)
    stacked = replicas if replicas > 1 else None
    step, states = _lower(
        "training step",
        target,
        lambda: lower_step(plan, network, optimizer, layout, replicas=stacked, chunk=chunk),
    )
    training = _measure(_compile("training step", target, step), target)
    training["rows"] = config.batch.rows
    slots = replicas * config.batch.rows * plan.context / layout.devices
    training["flops"]["analytic"] = training_flops(model, vocab, plan.context) * slots

    evaluator = TokenEvaluator(
        network,
        frequency_deciles(plan.store.counts),
        rows=config.evaluation.rows,
        context=plan.context,
        bins=config.evaluation.bins,
        layout=layout,
        chunk=chunk,
    )
    params = state_shapes(network, optimizer, layout).params
    program = _lower("evaluation", target, lambda: evaluator.lower(params))
    compiled = _compile("evaluation", target, program)
    # while a run evaluates, the optimizer's state (and that of replicas) stays in memory
    held = _device_bytes(states.opt_state if stacked is None else states)
    evaluation = _measure(compiled, target, held=held)
    evaluation["rows"] = evaluator.rows
    slots = evaluator.rows * plan.context / layout.devices
    evaluation["flops"]["analytic"] = forward_flops(model, vocab, plan.context) * slots

    transformer = model.kind == "transformer"
    return {
        "topology": target.name,
        "slices": target.slices,
        "devices": layout.devices,
        "replicas": replicas,
        "mesh": dict(layout.mesh.shape),
        "attention": model.attention if transformer else None,
        "layers": model.layers,
        "remat": model.remat,
        "compute": model.compute,
        "vocab_size": vocab,
        "context": plan.context,
        "device_memory": target.memory,
        "not_counted": "cuDNN's workspace" if transformer and model.attention == "cudnn" else None,
        "training": training,
        "evaluation": evaluation,
        "fits": training["fits"] and evaluation["fits"],
    }


def resolve(model: ModelConfig, context: int, target: Target) -> ModelConfig:
    """Returns a model with every `auto` replaced by the choice for the target."""
    compute = "bfloat16" if model.compute == "auto" else model.compute
    attention, layers = model.attention, model.layers
    if attention == "auto":
        size = model.size_of_head
        capability = None if target.capability is None else float(target.capability)
        attention = choose(target.platform, jnp.dtype(compute), size, context, capability)  # type: ignore[assignment]
    if layers == "auto":
        layers = choose_layers(target.platform, model.depth, model.remat)  # type: ignore[assignment]
    return model.model_copy(update={"compute": compute, "attention": attention, "layers": layers})


_REFUSALS = (jax.errors.JaxRuntimeError, RuntimeError, ValueError, NotImplementedError)


def _lower(what: str, target: Target, lower: Any) -> Any:
    try:
        return lower()
    except _REFUSALS as error:
        raise _refused(what, target, error) from None


def _compile(what: str, target: Target, lowered: Any) -> Any:
    try:
        return lowered.compile()
    except _REFUSALS as error:
        raise _refused(what, target, error) from None


def _refused(what: str, target: Target, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:400]
    return UserError(f"{target.name}: the compiler refuses the {what}: {reason}")


def _measure(compiled: Any, target: Target, held: int = 0) -> dict[str, Any]:
    """Returns what a compiled program needs, beside `held` bytes that it does not use."""
    memory: Any = compiled.memory_analysis()
    found = {
        "arguments": int(memory.argument_size_in_bytes),
        "outputs": int(memory.output_size_in_bytes),
        "aliased": int(memory.alias_size_in_bytes),
        "temporaries": int(memory.temp_size_in_bytes),
        "held": held,
    }
    needed = sum(found.values()) - 2 * found["aliased"]
    cost: Any = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "memory": {**found, "needed": needed, "usable": target.usable},
        "fits": needed <= target.usable,
        "flops": {"compiler": (cost or {}).get("flops")},
        "collectives": traffic(compiled.as_text()),
    }


def _device_bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
