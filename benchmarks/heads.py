"""Seconds to fit a temperature head to states that are at hand: one temperature, linear, MLP.

python -m benchmarks.heads [--tokens 1000000] [--width 128] [--vocab 512 4096] [--heads global ...]
"""

import argparse
from typing import Any

import jax
import numpy as np

from benchmarks.measure import CLOCKS, in_rounds, report
from calibtrain.config import HEADS, ModelConfig
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.head import fit_head
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer
from calibtrain.losses import CrossEntropy
from calibtrain.temperature import make_head


def example(tokens: int, context: int, width: int, vocab: int) -> tuple[HiddenStates, OutputLayer]:
    """Hidden states of a model that is over-confident by a factor that its states tell."""
    rng = np.random.default_rng(0)
    shape = (max(2, tokens // context), context)
    unembedding = rng.normal(size=(width, vocab)).astype(np.float32) * width**-0.5 * 3
    hidden = rng.normal(size=(*shape, width)).astype(np.float32)
    draw = jax.jit(
        lambda key, states: jax.random.categorical(key, states @ unembedding).astype("int32")
    )
    key = jax.random.key(0)
    labels = np.stack([draw(jax.random.fold_in(key, i), row) for i, row in enumerate(hidden)])
    hidden *= np.exp(0.3 + 0.3 * np.tanh(hidden[..., :1]))
    segments = np.zeros(shape, np.int32)
    documents = segments + np.arange(shape[0], dtype=np.int32)[:, None]
    states = HiddenStates(hidden, labels, segments, np.ones(shape, bool), documents)
    return states, OutputLayer(jax.numpy.asarray(unembedding), vocab)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--context", type=int, default=250)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocab", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--heads", nargs="+", default=["global", "linear", "mlp"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    given = parser.parse_args()
    model = ModelConfig(width=given.width, depth=1, heads=4 if given.width % 8 == 0 else 1)
    for vocab in given.vocab:
        states, output_layer = example(given.tokens, given.context, given.width, vocab)
        for kind in given.heads:
            found: list[Any] = []

            def fit(kind: str = kind, found: list[Any] = found) -> None:
                if kind == "global":
                    found.append(fit_global_temperature(output_layer, states))  # noqa: B023
                    return
                head = make_head(HEADS[kind](), model, vocab)  # noqa: B023
                assert head is not None
                found.append(fit_head(head, output_layer, states, CrossEntropy()))  # noqa: B023

            seconds = in_rounds({kind: fit}, given.repeats, given.clock, warm_up=0)[kind]
            last = found[-1]
            passes = {"passes": last.passes} if kind == "global" else {"steps": last.steps}
            report(
                "heads",
                kind,
                seconds,
                tokens=states.tokens,
                vocab=vocab,
                width=given.width,
                clock=given.clock,
                nll_before=round(last.nll_before, 6),
                nll_after=round(last.nll_after, 6),
                **passes,
            )


if __name__ == "__main__":
    main()
