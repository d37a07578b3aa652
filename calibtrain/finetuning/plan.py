"""Everything about a fine-tuning that can be known before it starts."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from calibtrain.config import Config
from calibtrain.data.batches.examples import (
    Answer,
    AnswerWindows,
    ExampleBatches,
    split_examples,
    tokenise,
)
from calibtrain.data.batches.store import Observer, ignore, open_store
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.errors import UserError
from calibtrain.finetuning.examples import examples_of
from calibtrain.models import ADAPTER, Network, Params
from calibtrain.models.size import count_parameters, training_flops
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import latest_step, load_merged_params
from calibtrain.runs.loading import context_seen
from calibtrain.runs.own_text import trained_on
from calibtrain.scoring.answers import AnswerScorer
from calibtrain.storage.places import place
from calibtrain.temperature import network_of
from calibtrain.training.budget import Budget
from calibtrain.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Examples that are not trained on.

    Attributes:
        answers: all of them, an example's side by side.
        reference: log-probability of each under the model before, in nats (dpo).
        windows: the answers whose calibration is measured: the responses, or the chosen.
    """

    answers: list[Answer]
    reference: Float[np.ndarray, " answers"] | None
    windows: AnswerWindows


@dataclasses.dataclass(frozen=True)
class FinetuningPlan(Plan):
    """A fine-tuning, resolved.

    Attributes:
        held_out: what it is evaluated on beside its corpus.
    """

    held_out: HeldOut | None = None


def make_finetuning_plans(
    configs: Sequence[Config], cache: Path, observer: Observer = ignore
) -> list[Plan]:
    """Returns the plans of fine-tunings that differ in their seed alone: the order of examples.

    Raises:
        UserError: for answers that do not fit, a run that is not there.
    """
    config = configs[0]
    settings = config.finetune
    assert settings is not None
    base = RunFolder(place(settings.run))
    corpus = open_corpus(config.corpus, cache)
    before, now = trained_on(base, latest_step(base)), corpus.provenance.content_hash
    if before not in (None, now) and not base.is_imported:
        raise UserError(
            f"finetune.run: {settings.run} was trained on another text (content hash {before}) "
            f"than its corpus {corpus.provenance.name} holds now ({now}), so that its calibration "
            "would be measured on text that may have been trained on; restore the text"
        )
    tokenizer = base.read_tokenizer()
    store = open_store(corpus, "train", tokenizer, cache, observer)
    store = dataclasses.replace(store, counts=base.read_target_counts(tokenizer.vocab_size))
    context = context_seen(config, store.counts, tokenizer.byte_lengths)
    examples, digest = examples_of(settings)
    each = len(examples[0].answers)
    if settings.examples not in (None, digest):  # since the configuration was resolved
        raise UserError(
            f"finetune.paths: {', '.join(settings.paths)}: changed while the run was prepared; run "
            "this again once nothing writes to them"
        )
    parts = split_examples(examples, settings.validation_fraction)
    answers, inner, cut = tokenise([*parts[0], *parts[1]], tokenizer, settings.context, context)
    observer({"event": "examples", "train": len(parts[0]), "held_out": len(parts[1]), "cut": cut})
    count = len(parts[0]) * each
    training, held_out = answers[:count], answers[count:]

    def start() -> Params:
        return load_merged_params(base)[1]

    references: list[Any] = [None, None]
    if settings.objective == "dpo":
        model = network_of(config.model_copy(update={"finetune": None}), tokenizer.vocab_size)
        scorer = AnswerScorer(model, rows=config.batch.rows, context=inner)
        params = start()
        references = [scorer.log_probabilities(params, part) for part in (training, held_out)]
    network = network_of(config, tokenizer.vocab_size)
    trained = _trained_parameters(network)
    if not trained["parameters"]:
        raise UserError(
            f"finetune.lora.maps: {', '.join(settings.lora.maps if settings.lora else ())} name no "
            "linear map of the model, so that nothing would be trained; leave maps out, for all"
        )
    cost = training_flops(config.model, tokenizer.vocab_size, inner)
    windows = AnswerWindows(
        held_out[::each],
        [example.name for example in parts[1]],
        tokenizer.byte_lengths,
        rows=config.evaluation.rows,
        context=inner,
    )
    facts = {"trained": trained, "started_from": checkpoint_of(base)}

    def plan(config: Config) -> FinetuningPlan:
        batches = ExampleBatches(
            training,
            rows=config.batch.rows,
            context=inner,
            seed=config.seed,
            answers=each,
            reference=references[0],
        )
        assert config.budget.steps is not None
        steps = config.budget.steps
        tokens, raw = batches.progress(steps)
        slots = steps * batches.slots_per_step
        return FinetuningPlan(
            config=config,
            corpus=corpus,
            tokenizer=tokenizer,
            store=store,
            context=context,
            batches=batches,
            network=network,
            parameters=count_parameters(config.model, tokenizer.vocab_size),
            budget=Budget(steps=steps, tokens=tokens, bytes=raw, flops=cost * slots),
            start=start,
            facts=facts,
            held_out=HeldOut(held_out, references[1], windows),
        )

    return [plan(config) for config in configs]


def _trained_parameters(network: Network) -> dict[str, Any]:
    """What a fine-tuning trains: how many parameters, and which linear maps have an adapter."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    trained = shapes if network.adapter is None else shapes[ADAPTER]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    if network.adapter is None:
        return {"parameters": count}
    there = {path.split(".")[-2] for path in trained}
    return {"parameters": count, "maps": [m for m in network.adapter.config.maps if m in there]}


def checkpoint_of(base: RunFolder) -> dict[str, Any]:
    """The checkpoint that a fine-tuning starts from: its step, and the SHA-256 of its checksums."""
    step = latest_step(base)
    return {"step": step, "sha256": checkpoint.fingerprint(base.checkpoints, step)}
