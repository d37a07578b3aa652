"""What metrics cost an evaluation: every figure and stratum beside nll alone, over the same text.

python -m benchmarks.evaluation [--vocab 4096] [--width 256] [--depth 6] [--bytes 200000] ...

Needs all of calibtrain, unlike most benchmarks. Intervals are computed once an evaluation, whatever
its size, and are a line of their own.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measure import REPEATS, in_rounds, report
from calibtrain.config import CorpusConfig, ModelConfig, TokenizerConfig
from calibtrain.data.batches.store import frequency_deciles, open_store
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.models import build
from calibtrain.readout import readout
from calibtrain.storage.disk import cache_directory


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--corpus", default="kjv")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--bytes", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    cache = Path(cache_directory())
    corpus = open_corpus(CorpusConfig(name=given.corpus), cache)
    tokenizer = obtain_tokenizer(TokenizerConfig(vocab_size=given.vocab), corpus, cache)
    store = open_store(corpus, "test", tokenizer, cache)
    groups = corpus.groups("test")
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    network = build(config, tokenizer.vocab_size)
    params = jax.jit(network.init)(jax.random.key(0))
    evaluator = TokenEvaluator(
        network,
        frequency_deciles(store.counts),
        rows=given.rows,
        context=given.context,
        bins=15,
    )
    windows = EvaluationWindows(store, rows=given.rows, context=given.context, limit=given.bytes)

    @jax.jit
    def nll(params: Any, tokens: Any, segments: Any, labels: Any, weights: Any) -> Any:
        hidden, unembedding, _ = network.apply(params, tokens, segments)
        stats = readout(hidden, unembedding, labels, vocab_size=network.vocab_size, fields=("nll",))
        return jnp.sum(stats.nll * weights)

    def alone() -> float:
        total, pending = 0.0, None
        for index in range(len(windows)):
            batch = windows[index]
            found = nll(params, batch.tokens, batch.segments, batch.labels, batch.weights)
            total += float(pending) if pending is not None else 0.0
            pending = found
        return total + float(pending)

    def summed() -> Any:
        about = {"corpus": given.corpus, "split": "test", "step": 0}
        return evaluator.sums(params, store, about, limit=given.bytes, groups=groups)

    sums = summed()
    runs = {
        "nll alone": alone,
        "every metric": summed,
        "intervals": lambda: compute_results(sums),
    }
    seconds = in_rounds(runs, given.repeats)
    ratios = [b / a for a, b in zip(seconds["nll alone"], seconds["every metric"], strict=True)]
    for name, times in seconds.items():
        facts: dict[str, Any] = {"bytes": windows.bytes, "vocab": tokenizer.vocab_size}
        if name == "every metric":
            facts["times_nll_alone"] = round(statistics.median(ratios), 4)
        report(
            "evaluation",
            name,
            times,
            tokens=None if name == "intervals" else int(sums.blocks[:, 0].sum()),
            width=given.width,
            depth=given.depth,
            rows=given.rows,
            context=given.context,
            **facts,
        )


if __name__ == "__main__":
    main()
