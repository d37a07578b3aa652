"""Does training wait for its input? And how fast is text tokenised, on one core and on all?

python -m benchmarks.data [--corpus kjv] [--paths FILE ...] [--vocab 1024] [--kind unigram bpe]

The step runs as in training: one step behind, its batches read ahead from the token store by
Grain. A turn is several times as many steps as are read ahead, so that it cannot live on what was
read while others had theirs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from benchmarks.measure import REPEATS, in_rounds, report
from benchmarks.step import lower
from calibtrain.config import CorpusConfig, ModelConfig, TokenizerConfig
from calibtrain.data.batches.stream import Batch, TextStream, TrainingBatches

if TYPE_CHECKING:
    from calibtrain.data.corpora.corpus import Corpus
    from calibtrain.data.tokenizers.tokenizer import Tokenizer

CACHED = "one batch, kept"


def measure_tokenising(corpus: "Corpus", tokenizer: "Tokenizer", repeats: int) -> None:
    """Write a store of the training split, on one core and on all that this process may use."""
    from calibtrain.data.batches.store import write_store
    from calibtrain.data.tokenizers.encoder import available_cores

    documents = corpus.documents("train")
    runs: dict[int, Callable[[], Any]] = {}
    pins = hasattr(os, "sched_setaffinity")  # else there is no keeping to one core
    for cores in sorted({1, available_cores()} if pins else {available_cores()}):

        def write(cores: int = cores) -> None:
            with tempfile.TemporaryDirectory() as folder, kept_to(cores):
                write_store(Path(folder), documents, tokenizer)

        runs[cores] = write
    seconds = in_rounds({str(cores): run for cores, run in runs.items()}, repeats)
    for cores in runs:
        report(
            "data",
            "tokenising",
            seconds[str(cores)],
            size=corpus.provenance.splits["train"].bytes,
            peer=seconds.get("1"),
            peer_name="1 core",
            cores=cores,
            corpus=corpus.provenance.name,
            documents=len(documents),
            tokenizer=tokenizer.manifest.kind,
            vocab=tokenizer.vocab_size,
        )


@contextmanager
def kept_to(cores: int) -> Iterator[None]:
    """Keep this thread, and those it starts, to so many cores."""
    if cores == len(os.sched_getaffinity(0)):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure_reading(
    batches: TrainingBatches, config: ModelConfig, vocab: int, steps: int, repeats: int
) -> None:
    """Turns of steps with batches that are read, with one that is kept, and reading alone."""
    kept = jax.tree.map(jnp.asarray, batches[0])
    lowered, initial = lower(config, vocab, kept)
    compiled = lowered.compile()

    def turn(source: Iterable[Batch]) -> Callable[[], None]:
        held = [initial()]
        stream = iter(source)

        def run() -> None:
            lagging = None
            for _ in range(steps):
                held[0], metrics = compiled(held[0], next(stream))
                if lagging is not None:
                    float(lagging["loss"])
                lagging = metrics
            jax.block_until_ready(held[0])

        return run

    def reading() -> Callable[[], None]:
        stream = batches.iterate(0)
        return lambda: [next(stream) for _ in range(steps)] and None

    runs = {
        CACHED: turn(repeat(kept)),
        "batches read ahead": turn(batches.iterate(0)),
        "reading alone": reading(),
    }
    seconds = in_rounds(runs, repeats)
    for name, times in seconds.items():
        report(
            "data",
            name,
            times,
            tokens=batches.slots_per_step * steps,
            peer=seconds[CACHED],
            peer_name=CACHED,
            steps=steps,
            rows=batches.rows,
            context=batches.context,
            width=config.width,
            depth=config.depth,
            vocab=vocab,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--corpus", default="kjv")
    parser.add_argument("--paths", nargs="*", default=[], help="of --corpus files")
    parser.add_argument("--kind", nargs="+", default=["unigram", "bpe"])
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="a turn")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    try:
        import grain  # noqa: F401

        from calibtrain.data.batches.store import open_store
        from calibtrain.data.corpora.corpus import cache_directory, open_corpus
        from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
    except ModuleNotFoundError as error:
        sys.exit(
            f"benchmarks.data: reads text, and what calibtrain needs for it is missing: {error}"
        )
    cache = cache_directory()
    corpus = open_corpus(CorpusConfig(name=given.corpus, paths=tuple(given.paths)), cache)
    model = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    for index, kind in enumerate(given.kind):
        settings = TokenizerConfig(kind=kind, vocab_size=given.vocab)
        tokenizer = obtain_tokenizer(settings, corpus, cache)
        measure_tokenising(corpus, tokenizer, given.repeats)
        if index == 0:
            stream = TextStream(open_store(corpus, "train", tokenizer, cache), seed=0)
            batches = TrainingBatches(
                stream, rows=given.rows, context=given.context, total_slots=10**12
            )
            measure_reading(batches, model, tokenizer.vocab_size, given.steps, given.repeats)


if __name__ == "__main__":
    main()
