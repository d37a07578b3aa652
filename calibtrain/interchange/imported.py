"""Imports a model as a run folder that every command but `train` accepts.

The run has one checkpoint, of step 0, with parameters and no optimizer state. Its corpus is the one
to evaluate on: results by token frequency count tokens in that corpus's training split, which the
model may never have seen.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from calibtrain.config import Config, config_hash, validate
from calibtrain.data.batches.store import TokenStore, open_store
from calibtrain.data.corpora.corpus import Corpus, open_corpus
from calibtrain.data.corpora.named import Columns, own_corpus, parse_corpus, settings_are_options
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError
from calibtrain.interchange.pretrained import Pretrained, open_pretrained, require_utf8
from calibtrain.models import Params, build
from calibtrain.models.size import count_parameters
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import IMPORTED, RunFolder
from calibtrain.runs.records import RunRecord
from calibtrain.runs.summary import summarise_run
from calibtrain.storage.disk import cache_directory
from calibtrain.storage.places import absolute, in_bucket, place
from calibtrain.training.state import RUNNING, TrainState

CONTEXT = 2048
"""Upper bound of the default context in tokens, as attention takes quadratic time."""
_ROWS = 4  # windows per batch of an evaluation: imported models tend to be large


def import_model(
    path: Path,
    run: Path,
    *,
    corpus: str | None = None,
    context: int | None = None,
    start: str | None = None,
    end: str | None = None,
    columns: Columns | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stage: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Makes a run of a Hugging Face folder or a GGUF file, whole or not at all.

    Args:
        path: the folder or file.
        run: folder of the run, which must not exist.
        corpus: the run's own corpus, as the command line names it; None means kjv.
        context: context in tokens; None means the model's own, at most 2048.
        start: the added token that starts a document; None means the one in the model's
            configuration.
        end: the added token that ends a document; None means the one in the model's configuration.
        columns: the fields of the corpus that are read; None means its text, without groups.
        cache: folder of prepared data.
        say: called with messages on what happens.
        progress: is told how many tensors are read, and of how many.
        stage: is told in words what is begun.

    Returns:
        The content of run.json.

    Raises:
        UserError: for a model that cannot be read or needs features that calibtrain does not have,
            a corpus that its tokenizer does not give back, and a run folder that exists.
    """
    for named in (path, run):
        require_utf8(named)
    folder = RunFolder(place(run))
    if in_bucket(folder.path):
        raise UserError(f"{run}: import into a folder of a disk, and copy it to the bucket")
    if folder.exists:
        raise UserError(f"{run}: holds a run already; choose another --run")
    model = open_pretrained(path, start=start, end=end)
    config = _configuration(model, corpus, context, columns)
    cache = cache or cache_directory()
    with settings_are_options():
        text = open_corpus(config.corpus, cache)
    say(f"{model.architecture.name}: tokenising {text.provenance.name}")
    store = open_store(text, "train", model.tokenizer.tokenizer, cache)
    provenance = text.provenance
    tokens = int(store.slots.sum()) - len(store)  # without the ends of documents
    tokenizer = model.tokenizer.counted(
        provenance.name, provenance.content_hash, store.bytes / max(1, tokens)
    )
    say(f"reading {model.format}")
    stage("tensors read")
    params = model.parameters(build(config.model, tokenizer.vocab_size), progress)
    name = absolute(folder.path).name
    summary = _describe(model, config, text, tokenizer, store, name)

    def fill(inside: Path) -> None:
        made = RunFolder(inside)
        tokenizer.save(made.tokenizer)
        made.write_target_counts(store.counts)
        identity = checkpoint.Identity(config_hash(config), tokenizer.hash, provenance.content_hash)
        checkpoint.save(made.checkpoints, 0, untrained(params), identity)
        made.write_summary(summary)

    say(f"writing {folder.path}")
    stage("writing")
    folder.create(config, fill)
    return summary.document()


def untrained(params: Params) -> TrainState:
    """Returns a training state of parameters alone, without an optimizer's moments."""
    zeros = {name: jnp.zeros((), jnp.float32) for name in RUNNING}
    return TrainState(jnp.zeros((), jnp.int32), params, (), zeros)


def _configuration(
    model: Pretrained, corpus: str | None, context: int | None, columns: Columns | None
) -> Config:
    own = Config()
    longest = model.architecture.context
    if context is not None and context > longest:
        raise UserError(f"--context: {context} tokens; the model was made for at most {longest}")
    manifest = model.tokenizer.tokenizer.manifest
    if corpus is None:
        named = own_corpus(own.corpus, columns)
    else:
        named = parse_corpus(corpus, own.corpus, columns)
    tree = {
        "corpus": named.model_dump(mode="json"),
        "tokenizer": {"kind": manifest.kind, "vocab_size": manifest.vocab_size},
        "context": {"tokens": min(CONTEXT, longest) if context is None else context},
        "model": model.architecture.model.model_dump(mode="json"),
        "budget": {"steps": 1},  # required, but this run is never trained
        "evaluation": {"rows": _ROWS},
    }
    return validate(Config, tree, str(model.path))


def _describe(
    model: Pretrained,
    config: Config,
    corpus: Corpus,
    tokenizer: Tokenizer,
    store: TokenStore,
    name: str,
) -> RunRecord:
    """Returns the record for run.json: that of a trained run, and the model's origin."""
    parameters = count_parameters(config.model, tokenizer.vocab_size)
    context = config.context.tokens
    assert context is not None  # `_configuration` gives it in tokens
    frame = {key: tokenizer.manifest.specials[key] for key in ("bos", "eos")}
    return summarise_run(
        name=name,
        status=IMPORTED,
        step=0,
        config=config,
        corpus=corpus,
        tokenizer=tokenizer,
        bytes_per_token=store.bytes_per_token,
        context=context,
        parameters=parameters,
        budget={"steps": 0, "tokens": 0, "bytes": 0, "flops": 0.0},
        memory={"parameters": parameters.total * 4},
        seconds=0.0,
        imported={
            "from": model.path.name,
            "format": model.format,
            "architecture": model.architecture.name,
            "context": model.architecture.context,
            "sha256": model.checksums(),
            "frame": frame,
            "notes": list(model.notes),
            **model.about,
        },
    )
