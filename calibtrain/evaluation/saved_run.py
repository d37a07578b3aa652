"""Evaluate a run on any corpus, when it is done or while it rests: `calibtrain evaluate`."""

from collections.abc import Callable
from pathlib import Path

import jax

from calibtrain.config import Config, MeshConfig, config_hash
from calibtrain.data.corpus import open_corpus, parse_corpus
from calibtrain.data.disk import cache_directory
from calibtrain.data.store import frequency_deciles, open_store
from calibtrain.errors import UserError
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.tokens import TokenEvaluator
from calibtrain.models import build
from calibtrain.parallel.mesh import Layout, make_layout
from calibtrain.places import place
from calibtrain.training import checkpoint
from calibtrain.training.finite import ADVICE, NonFiniteError
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.plan import context_tokens
from calibtrain.training.run import RunFolder
from calibtrain.training.state import TrainState, initial_state


def evaluate_run(
    path: Path,
    *,
    corpus: str | None = None,
    split: str = "test",
    limit: int | None = None,
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate a run's latest checkpoint, and write the result into its `evaluations/`.

    All devices here share the work, whichever the run was trained on.

    Args:
        path: the run folder.
        corpus: kjv, pydoc, markov, files:GLOB, tfds:NAME[/CONFIG]; default the run's own.
        split: train, validation or test.
        limit: bytes of text, about; none: the whole split.
        cache: where prepared data is kept.
        check: called between batches; may raise to give up.

    Raises:
        UserError: for a folder that holds no run or no whole checkpoint, or that another process
            is writing; and for a corpus or split that cannot be had.
    """
    run = RunFolder(place(path))
    config = run.read_config()
    with run.locked():
        try:
            return _evaluate(run, config, corpus, split, limit, cache or cache_directory(), check)
        except NonFiniteError as error:
            raise NonFiniteError(f"{path}: {error}. {ADVICE}") from None


def _evaluate(
    run: RunFolder,
    config: Config,
    corpus: str | None,
    split: str,
    limit: int | None,
    cache: Path,
    check: Callable[[], None],
) -> Evaluation:
    tokenizer = run.read_tokenizer()
    settings = config.corpus if corpus is None else parse_corpus(corpus, config.corpus)
    opened = open_corpus(settings, cache)
    store = open_store(opened, split, tokenizer, cache)
    layout = _all_devices(config.evaluation.rows)
    step, state = load_state(run, layout)
    own = checkpoint.read_identity(run.checkpoints, step)
    counts = run.read_target_counts(tokenizer.vocab_size)
    bytes_per_token = float(counts @ tokenizer.byte_lengths) / float(counts.sum())
    network = build(config.model, tokenizer.vocab_size)
    evaluator = TokenEvaluator(
        network,
        frequency_deciles(counts),
        rows=config.evaluation.rows,
        context=context_tokens(config, bytes_per_token),
        bins=config.evaluation.bins,
        layout=layout,
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
    evaluation = evaluator.evaluate(state.params, store, about, limit=limit, check=check)
    evaluation.write(run.evaluations, own.corpus, config.evaluation.final_bytes)
    return evaluation


def _all_devices(rows: int) -> Layout:
    """Every device here, each with an equal share of at least so many rows."""
    count = jax.device_count()
    return make_layout(MeshConfig(), -(-rows // count) * count)


def load_state(run: RunFolder, layout: Layout | None = None) -> tuple[int, TrainState]:
    """The latest checkpoint of a run, and its step.

    Args:
        run: the folder.
        layout: of the devices that are to hold it; none: one device.

    Raises:
        UserError: where there is none, or it is damaged or belongs to another run.
    """
    config = run.read_config()
    tokenizer = run.read_tokenizer()
    saved = checkpoint.steps_saved(run.checkpoints)
    if not saved:
        raise UserError(f"{run.path}: has no checkpoint yet; train it first: calibtrain train")
    network = build(config.model, tokenizer.vocab_size)
    optimizer = make_optimizer(config.optimizer, steps=1)  # only the shape of its state matters
    shapes = jax.eval_shape(lambda: initial_state(network, optimizer, config.seed))
    if layout is not None and layout.devices > 1:
        shapes = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            layout.state_shardings(shapes),
        )
    identity = checkpoint.Identity(config_hash(config), tokenizer.hash, corpus=None)
    return saved[-1], checkpoint.restore(run.checkpoints, saved[-1], shapes, identity)
