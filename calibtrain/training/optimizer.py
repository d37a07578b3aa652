"""AdamW with warm-up, a learning-rate schedule and weight decay of matrices."""

from typing import Any

import jax
import optax

from calibtrain.config import Config, OptimizerConfig
from calibtrain.models import ADAPTER, TEMPERATURE


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, for a run of so many steps.

    Warm-up is linear from 0; `cosine` falls to final_fraction of the peak, `wsd` (warm-up, stable,
    decay) stays at the peak and falls linearly to it over the last decay_fraction of the run.
    """
    peak = config.learning_rate
    warmup = max(1, round(config.warmup_fraction * steps))
    rising = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    after = max(1, steps - warmup)
    if config.schedule == "cosine":
        falling = optax.cosine_decay_schedule(peak, after, alpha=config.final_fraction)
        return optax.join_schedules([rising, falling], [warmup])
    if config.schedule == "constant":
        return optax.join_schedules([rising, optax.constant_schedule(peak)], [warmup])
    decay = max(1, round(config.decay_fraction * steps))
    stable = optax.constant_schedule(peak)
    falling = optax.linear_schedule(peak, peak * config.final_fraction, decay)
    return optax.join_schedules([rising, stable, falling], [warmup, max(warmup, steps - decay)])


def decay_mask(params: Any, *, embeddings: bool, head: bool = False) -> Any:
    """Returns True for each parameter that is decayed: all matrices but, unless asked for, the
    vocabulary's tables and those of a temperature head. Norms and biases are never decayed."""

    def decayed(path: tuple[Any, ...], leaf: Any) -> bool:
        names = {str(getattr(key, "key", key)) for key in path}
        if TEMPERATURE in names and not head:
            return False
        return leaf.ndim >= 2 and (embeddings or "vocabulary" not in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(
    config: OptimizerConfig, steps: int, *, decay_head: bool = False, only: str | None = None
) -> optax.GradientTransformation:
    """Returns gradient clipping followed by AdamW (Loshchilov & Hutter 2019).

    Args:
        config: its settings.
        steps: of the run.
        decay_head: whether a temperature head is decayed.
        only: name of the part of the parameters that is trained; None means all. The rest has no
            moments.
    """
    adamw = optax.adamw(
        learning_rate_schedule(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=lambda params: decay_mask(params, embeddings=config.decay_embeddings, head=decay_head),
    )
    if config.clip_norm is not None:
        adamw = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    if only is None:
        return adamw

    def trained(params: Any) -> Any:
        return {
            name: jax.tree.map(lambda leaf, ours=name == only: ours, part)
            for name, part in params.items()
        }

    def left(params: Any) -> Any:
        return jax.tree.map(lambda ours: not ours, trained(params))

    return optax.chain(optax.masked(optax.set_to_zero(), left), optax.masked(adamw, trained))


def optimizer_of(config: Config, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a run of so many steps; it trains only adapters if there are any."""
    adapted = config.finetune is not None and config.finetune.lora is not None
    return make_optimizer(
        config.optimizer,
        steps,
        decay_head=config.temperature.decay,
        only=ADAPTER if adapted else None,
    )
