"""Decoding against scoring: how far log-probabilities of the same tokens are apart, by length.

python -m benchmarks.parity [--lengths 50 500 5000] [--width 96] [--depth 3] [--vocab 1024]

A model with random weights (those of its beginning times 1.5, so that its predictions are not
uniform) reads random tokens twice: one at a time through its cache, as text is generated, and all
in one pass, as text is scored. Both add the same numbers in another order. No time is measured.
"""

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.models import build
from calibtrain.models.decoding import decode, empty_cache
from calibtrain.readout import log_probabilities

_SCALE = 1.5
_CHUNK = 250  # tokens whose logits are held at once


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--kinds", nargs="+", default=["transformer", "lstm"])
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for kind in given.kinds:
        decoded, scored = read_twice(kind, given, max(given.lengths))
        apart = np.abs(decoded - scored)
        for length in sorted(given.lengths):
            row = {
                "kind": kind,
                "tokens": length,
                "mean_difference": float(apart[:length].mean()),
                "largest_difference": float(apart[:length].max()),
                "mean_log_probability": float(scored[:length].mean()),
            }
            print(json.dumps({**row, "device": jax.devices()[0].device_kind}), flush=True)


def read_twice(kind: str, given: argparse.Namespace, length: int) -> tuple[Any, Any]:
    """Returns the log-probability of each token, by decoding and by one pass, in nats."""
    sizes = {"width": given.width, "depth": given.depth, "heads": given.heads}
    network = build(ModelConfig(kind=kind, **sizes), given.vocab)
    params = jax.jit(network.init)(jax.random.key(given.seed))
    params = jax.tree.map(lambda x: _SCALE * x, params)
    ids = np.random.default_rng(given.seed).integers(0, given.vocab, length + 1).astype(np.int32)
    tokens, labels = jnp.asarray(ids[:-1]), jnp.asarray(ids[1:])

    def picked(hidden: Any, columns: Any, labels: Any) -> Any:
        x = log_probabilities(
            hidden, columns, temperature=None, soft_cap=network.config.logit_soft_cap
        )
        return jnp.take_along_axis(x, labels[:, None], axis=-1)[:, 0]

    @jax.jit
    def decoded(params: Any) -> Any:
        columns = network.unembedding(params)

        def step(cache: Any, pair: Any) -> Any:
            token, label = pair
            hidden, _, cache = decode(network, params, cache, token[None])
            return cache, picked(hidden, columns, label[None])[0]

        return jax.lax.scan(step, empty_cache(network, params, 1, length), (tokens, labels))[1]

    @jax.jit
    def scored(params: Any) -> Any:
        hidden, columns, _ = network.apply(params, tokens[None], jnp.zeros_like(tokens[None]))
        return hidden[0], columns

    hidden, columns = scored(params)
    pick = jax.jit(picked)
    whole = [
        pick(hidden[first : first + _CHUNK], columns, labels[first : first + _CHUNK])
        for first in range(0, length, _CHUNK)
    ]
    both = decoded(params), jnp.concatenate(whole)
    return tuple(np.asarray(each, np.float64) for each in both)


if __name__ == "__main__":
    main()
