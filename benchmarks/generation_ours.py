"""What `benchmarks.generation` measures of calibtrain, in a process of its own.

Started with a run folder, or with `quickstart` for a model of that size with random weights, and
the type that weights are kept in. It answers lines of JSON as `generation_peers` does; `what` says
which of the figures of `FIGURES` is asked for.
"""

import argparse
import csv
import functools
import heapq
import inspect
import io
import json
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from calibtrain.analysis.band import Band, band_of_traces
from calibtrain.analysis.watch import RATE, Watch
from calibtrain.cli.trace_view import LiveTrace
from calibtrain.config import CorpusConfig, ModelConfig, TokenizerConfig
from calibtrain.data.batches.windows import WindowBatch
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.evaluation.token_scores import VALUES, token_scorer
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.generate import GeneratedText, generate
from calibtrain.generation.given import trace_of
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.next_byte import NextByte
from calibtrain.models import build
from calibtrain.models.decoding import prefill
from calibtrain.readout import readout
from calibtrain.runs.loading import opened
from calibtrain.runs.traces import TokenTrace
from calibtrain.scoring.scorer import Scorer, network_output
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import cache_directory

PROMPT = "The quick brown fox"
PREFILL = 512


def quickstart() -> LanguageModel:
    """A model of the size of configs/quickstart.yaml, of V = 1,024, with random weights."""
    cache = Path(cache_directory())
    use_compiled_programs(cache)
    corpus = open_corpus(CorpusConfig(name="kjv"), cache)
    tokenizer = obtain_tokenizer(TokenizerConfig(vocab_size=1024), corpus, cache)
    network = build(ModelConfig(width=96, depth=3, heads=3), tokenizer.vocab_size)
    return LanguageModel(network, jax.jit(network.init)(jax.random.key(0)), tokenizer, context=256)


def of_run(path: Path) -> LanguageModel:
    """The model of a run."""
    with opened(path) as saved:
        use_compiled_programs(saved.cache)
        return LanguageModel.of(saved)


class Figures:
    """The figures; each is a method that returns how much was done: tokens, passes or bytes."""

    def __init__(self, model: LanguageModel):
        self.model = model
        self.said: dict[str, Any] = {}
        self._band: Band | None = None
        self._next_byte: dict[int, NextByte] = {}
        self._programs: dict[str, Callable[[], Any]] = {}

    def decode(self, rows: int, tokens: int) -> int:
        """Tokens of samples of one prompt, side by side, traced as `calibtrain generate` does."""
        return sum(text.tokens for text in self._draw(rows, tokens))

    def _draw(self, rows: int, tokens: int, **more: Any) -> list[GeneratedText]:
        return generate(
            self.model,
            [PROMPT],
            samples=rows,
            rows=rows,
            max_tokens=tokens,
            loop_stop=False,
            **more,
        )

    def trace(self, rows: int, tokens: int) -> int:
        """Draws the same tokens, with the alarms, band and view of `calibtrain trace`."""
        if self._band is None:
            self._band = band_of_traces([text.trace for text in self._draw(32, min(tokens, 192))])
        watch = Watch(self._band, max(RATE, self._band.least_rate))
        console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
        begun = False
        with LiveTrace(console) as view:
            view.band(self._band)

            def follow(number: int, trace: TokenTrace, first: int) -> None:
                nonlocal begun
                first, begun = (first if begun else 0), True
                view.rows(trace, first, watch.read(trace, first))

            texts = self._draw(rows, tokens, on_trace=follow)
        return sum(text.tokens for text in texts)

    def prefill(self, rows: int, tokens: int) -> int:
        """Reads tokens into a cache in one pass."""
        network, params = self.model.network, self.model.params
        if "prefill" not in self._programs:
            program = jax.jit(lambda p, t, n: prefill(network, p, t, n, PREFILL))
            ids, counts = self._ids(), np.array([PREFILL], np.int32)
            self._programs["prefill"] = lambda: program(params, ids, counts)
        jax.block_until_ready(self._programs["prefill"]())
        return 1

    def scoring(self, rows: int, tokens: int) -> int:
        """Scores as many tokens in one pass, as an evaluation does for its nll."""
        network, params = self.model.network, self.model.params
        if "scoring" not in self._programs:

            def score(params: Any, ids: Any) -> Any:
                hidden, unembedding, _ = network.apply(params, ids, np.zeros_like(ids))
                labels = np.roll(ids, -1, axis=1)
                vocab = network.vocab_size
                return readout(hidden, unembedding, labels, vocab_size=vocab, fields=("nll",)).nll

            ids = self._ids()
            program = jax.jit(lambda params: score(params, ids))
            self._programs["scoring"] = lambda: program(params)
        jax.block_until_ready(self._programs["scoring"]())
        return 1

    def windows(self, rows: int, tokens: int) -> int:
        """Scores windows as an evaluation does, and writes down the mean -log p."""
        make = functools.partial(token_scorer, layout=None, chunk=None)
        return self._windows("windows", rows, tokens, make)

    def windows_nll(self, rows: int, tokens: int) -> int:
        """Scores windows for the -log p of each token alone, and writes down their mean."""
        return self._windows(
            "windows_nll",
            rows,
            tokens,
            lambda network: Scorer(
                network_output(network),
                **network.reading,
                fields=("nll",),
                result=lambda stats, batch: {VALUES: stats.nll[..., None]},
            ),
        )

    def _windows(self, name: str, rows: int, tokens: int, make: Callable[[Any], Scorer]) -> int:
        if name not in self._programs:
            scorer = make(self.model.network)
            ids = self._ids(rows, tokens)
            zeros = np.zeros_like(ids)
            labels, weights = np.roll(ids, -1, axis=1), np.ones(ids.shape, np.float32)
            batch = WindowBatch(ids, labels, zeros, weights, documents=zeros, before=zeros)
            self._programs[name] = lambda: scorer(self.model.params, batch)
        values = np.asarray(self._programs[name]()[VALUES])
        self.said = {"nll": float(values[..., 0].mean(dtype=np.float64))}
        return rows * tokens

    def _ids(self, rows: int = 1, tokens: int = PREFILL) -> np.ndarray:
        vocab = self.model.network.vocab_size
        return np.random.default_rng(0).integers(0, vocab, (rows, tokens)).astype(np.int32)

    def bytes(self, rows: int, tokens: int) -> int:
        """Bytes whose distribution is found, texts side by side, all tokenisations followed."""
        model = self.model
        if rows not in self._next_byte:
            trie = ByteTrie.of(model.tokenizer.piece_bytes, model.tokenizer.eos_id)
            self._next_byte[rows] = NextByte.of(
                model.network, model.params, trie, lanes=rows, context=model.context
            )
        next_byte = self._next_byte[rows]
        text = (b"In the beginning God created the heaven and the earth. " * 8)[:tokens]
        next_byte.start([model.prompt_ids(PROMPT)] * rows)
        for byte in text:
            next_byte.predict()
            next_byte.read(np.full(rows, byte))
        return rows * len(text)

    def nats(self, rows: int, tokens: int) -> int:
        """Writes down -log p of the tokens of a text that the model was not trained on."""
        text = "\n".join(inspect.getdoc(module) or "" for module in (argparse, heapq, typing, csv))
        (trace,) = trace_of(self.model, [text])
        self.said = {"nats": [-float(each) for each in trace.log_probability]}
        return len(trace)


FIGURES = ("decode", "trace", "prefill", "scoring", "windows", "windows_nll", "bytes", "nats")


def main() -> None:
    name, weights = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr
    model = quickstart() if name == "quickstart" else of_run(Path(name))
    if weights != "float32":
        model = model.with_weights(weights)
    figures = Figures(model)
    ids = [int(index) for index in model.prompt_ids(PROMPT)]
    said = {"ready": f"jax {jax.__version__}, weights {weights}", "prompt": ids}
    print(json.dumps(said), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began, worked = time.perf_counter(), time.process_time()
        figures.said = {}
        count = getattr(figures, asked["what"])(asked["rows"], asked["tokens"])
        took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
        print(json.dumps({**took, "tokens": count, **figures.said}), file=out, flush=True)


if __name__ == "__main__":
    main()
