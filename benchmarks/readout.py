"""The readout alone, forward and backward: ours, with every statistic, and with whole logits.

python -m benchmarks.readout [--vocab 1024 8192 32768] [--tokens 4096] [--width 256]
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import REPEATS, in_rounds, report
from calibtrain.readout import FIELDS, TokenStats, additive_loss, readout

WHOLE = "whole logits"

Loss = Callable[..., Any]
"""Maps (hidden states, table, labels) to the summed nll, and what comes with it."""


def fused(fields: tuple[str, ...] = ("nll",), chunk: int | None = None) -> Loss:
    """The loss as training computes it."""

    def nll(stats: TokenStats) -> Any:
        return stats.nll

    def loss(hidden: Any, table: Any, labels: Any) -> Any:
        weights = jnp.ones(labels.shape)
        return additive_loss(hidden, table.T, labels, weights, nll, fields=fields, chunk=chunk)

    return loss


def twice(hidden: Any, table: Any, labels: Any) -> Any:
    """The loss with its logits computed again in the backward pass."""
    stats = readout(hidden, table.T, labels, fields=("nll",))
    return jnp.sum(stats.nll), stats


def whole(hidden: Any, table: Any, labels: Any) -> Any:
    """The loss from all logits at once."""
    logits = jnp.matmul(hidden, table.T.astype(hidden.dtype), preferred_element_type=jnp.float32)
    target = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.sum(jax.nn.logsumexp(logits, axis=-1) - target), None


def compare(
    losses: Mapping[str, Loss], tokens: int, width: int, vocab: int, repeats: int
) -> list[dict[str, Any]]:
    """Measures losses with their gradients, and returns the lines that are printed."""
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(tokens, width)), dtype)
    table = jnp.asarray(rng.normal(size=(vocab, width)) * width**-0.5, jnp.float32)
    labels = jnp.asarray(rng.integers(0, vocab, tokens))
    runs, temporary = {}, {}
    for name, loss in losses.items():
        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        compiled = gradient.lower(hidden, table, labels).compile()
        temporary[name] = compiled.memory_analysis().temp_size_in_bytes
        runs[name] = lambda c=compiled: jax.block_until_ready(c(hidden, table, labels))
    seconds = in_rounds(runs, repeats)
    return [
        report(
            "readout",
            name,
            times,
            tokens=tokens,
            flops=6.0 * tokens * width * vocab,
            peer=seconds[WHOLE],
            peer_name=WHOLE,
            temporary_bytes=temporary[name],
            vocab=vocab,
            width=width,
        )
        for name, times in seconds.items()
    ]


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readout", description=__doc__)
    parser.add_argument("--vocab", type=int, nargs="+", default=[1024, 8192, 32768])
    parser.add_argument("--tokens", type=int, default=4096 if on_cpu else 16_384)
    parser.add_argument("--width", type=int, default=256 if on_cpu else 768)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    losses = {
        "additive_loss": fused(),
        "additive_loss, all statistics": fused(FIELDS),
        "readout": twice,
        WHOLE: whole,
    }
    for vocab in given.vocab:
        compare(losses, given.tokens, given.width, vocab, given.repeats)


if __name__ == "__main__":
    main()
