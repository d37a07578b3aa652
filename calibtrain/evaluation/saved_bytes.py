"""`calibtrain evaluate --events byte`: a finished (or interrupted) run, scored on next bytes."""

from pathlib import Path

from calibtrain.config import config_hash
from calibtrain.data.corpus import open_corpus, parse_corpus
from calibtrain.data.disk import cache_directory
from calibtrain.data.store import open_store
from calibtrain.evaluation.bytes import Beam, ByteEvaluator, Progress
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.saved_run import load_state
from calibtrain.models import build
from calibtrain.training import checkpoint
from calibtrain.training.finite import ADVICE, NonFiniteError
from calibtrain.training.plan import context_tokens
from calibtrain.training.run import RunFolder


def evaluate_run_by_bytes(
    path: Path,
    *,
    corpus: str | None = None,
    split: str = "test",
    limit: int | None = None,
    beam: Beam | None = None,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a run's latest checkpoint on next bytes, and write the result into `evaluations/`.

    Args:
        path: the run folder.
        corpus: kjv, pydoc, markov, files:GLOB, tfds:NAME[/CONFIG]; default the run's own.
        split: train, validation or test.
        limit: bytes of text, about; none: the whole split.
        beam: how many tokenisations are followed; default 5 within 0.05 of the best.
        cache: where prepared data is kept.
        progress: called with symbols read, and of all; may raise to give up.

    Raises:
        UserError: for a folder that holds no run or no whole checkpoint, or that another process
            is writing; and for a corpus or split that cannot be had.
    """
    run, cache = RunFolder(path), cache or cache_directory()
    config = run.read_config()
    with run.locked():
        tokenizer = run.read_tokenizer()
        opened = open_corpus(
            config.corpus if corpus is None else parse_corpus(corpus, config.corpus), cache
        )
        store = open_store(opened, split, tokenizer, cache)
        step, state = load_state(run)
        counts = run.read_target_counts(tokenizer.vocab_size)
        bytes_per_token = float(counts @ tokenizer.byte_lengths) / float(counts.sum())
        evaluator = ByteEvaluator(
            build(config.model, tokenizer.vocab_size),
            tokenizer,
            context=context_tokens(config, bytes_per_token),
            bins=config.evaluation.bins,
            beam=beam,
        )
        about = {
            "corpus": opened.provenance.name,
            "split": split,
            "step": step,
            "corpus_hash": opened.provenance.content_hash,
            "tokenizer_hash": tokenizer.hash,
            "config_hash": config_hash(config),
            "vocab_size": tokenizer.vocab_size,
        }
        try:
            evaluation = evaluator.evaluate(
                state.params, store, about, limit=limit, progress=progress
            )
        except NonFiniteError as error:
            raise NonFiniteError(f"{path}: {error}. {ADVICE}") from None
        own = checkpoint.read_identity(run.checkpoints, step)
        evaluation.write(run.evaluations, own.corpus, config.evaluation.final_bytes)
    return evaluation
