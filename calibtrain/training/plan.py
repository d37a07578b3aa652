"""Everything about a run that can be known before it starts: data, model, budget, cadences."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calibtrain.config import Config, config_hash
from calibtrain.data.batches.examples import ExampleBatches
from calibtrain.data.batches.store import Observer, TokenStore, ignore, open_store
from calibtrain.data.batches.stream import TextStream, TrainingBatches
from calibtrain.data.corpora.corpus import Corpus, open_corpus
from calibtrain.data.corpora.sources import check_fields
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.errors import UserError
from calibtrain.models import Network, Params
from calibtrain.models.size import ParameterCount, count_parameters, training_flops
from calibtrain.runs.checkpoint import MOST_STEPS, Identity
from calibtrain.training.networks import network_of
from calibtrain.training.objective import Objective, objective_of

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Budget:
    """The length of a run in every currency.

    Attributes:
        steps: optimizer steps.
        tokens: slots (tokens and document ends) that are trained on.
        bytes: bytes of text behind them.
        flops: analytic training FLOPs.
    """

    steps: int
    tokens: int
    bytes: int
    flops: float


class Due(NamedTuple):
    """What follows a step: a line of training metrics, an evaluation, a checkpoint."""

    logs: bool
    evaluates: bool
    saves: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run, resolved.

    Attributes:
        start: the parameters that it goes on from; none: they are drawn by its seed.
        facts: what run.json says of it beside what every run has.
    """

    config: Config
    corpus: Corpus
    tokenizer: Tokenizer
    store: TokenStore
    context: int
    batches: TrainingBatches | ExampleBatches
    network: Network
    parameters: ParameterCount
    budget: Budget
    start: Callable[[], Params] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """What its checkpoints belong to."""
        return Identity(
            config=config_hash(self.config),
            tokenizer=self.tokenizer.hash,
            corpus=self.corpus.provenance.content_hash,
        )

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return objective_of(
            self.config,
            self.tokenizer.vocab_size,
            steps_per_epoch=self.batches.steps_per_epoch,
            steps=self.budget.steps,
        )

    def due(self, step: int) -> Due:
        """What happens once so many steps are trained."""
        evaluation, checkpoints = self.config.evaluation, self.config.checkpoints
        return Due(
            logs=self.is_due(step, 1, self.config.log_every),
            evaluates=self.is_due(step, evaluation.times, evaluation.every),
            saves=self.is_due(step, checkpoints.times, checkpoints.every),
        )

    def is_due(self, step: int, times: int, every: int | None) -> bool:
        """Whether something that happens `times` a run (or `every` so many steps) does so now."""
        steps = self.budget.steps
        if step == steps:
            return True
        if every is not None:
            return step % every == 0
        # evenly spaced: step is ceil(k * steps / times) for some k
        k = step * times // steps
        return k >= 1 and math.ceil(k * steps / times) == step

    def due_steps(self, upto: int, times: int, every: int | None) -> list[int]:
        """The steps up to one at which `is_due` says so."""
        steps = self.budget.steps
        if every is not None:
            due = range(every, upto + 1, every)
        elif times >= steps:
            due = range(1, upto + 1)
        else:
            spaced = {math.ceil(k * steps / times) for k in range(1, times + 1)}
            return sorted(step for step in spaced | {steps} if step <= upto)
        return sorted({*due, steps} if upto >= steps else due)

    def progress_at(self, step: int) -> tuple[int, int]:
        """Tokens and bytes of text trained on after so many steps."""
        return self.batches.progress(step)


def context_tokens(config: Config, bytes_per_token: float) -> int:
    """The context in tokens; one given in bytes is divided by the mean bytes a token."""
    if config.context.tokens is not None:
        return config.context.tokens
    assert config.context.bytes is not None
    return max(8, round(config.context.bytes / bytes_per_token))


def context_seen(config: Config, counts: np.ndarray, byte_lengths: np.ndarray) -> int:
    """The same, from how often each entry is a target in the text and the bytes it stands for."""
    return context_tokens(config, float(counts @ byte_lengths) / float(counts.sum()))


def make_plan(config: Config, cache: Path, observer: Observer = ignore) -> Plan:
    """Prepare the data of a run and work out what it will do. Writes to the cache only.

    Raises:
        UserError: for a corpus, tokenizer or budget that cannot be had.
    """
    return make_plans([config], cache, observer)[0]


def make_plans(configs: Sequence[Config], cache: Path, observer: Observer = ignore) -> list[Plan]:
    """The plans of runs that differ in their seed alone: they share all but the order of the text.

    Raises:
        UserError: for a corpus, tokenizer or budget that cannot be had.
    """
    config = configs[0]
    if config.finetune is not None:
        raise UserError(
            f"finetune: starts from {config.finetune.run}, not from scratch; its command is "
            "calibtrain finetune CONFIG"
        )
    check_fields(config.corpus)
    corpus = open_corpus(config.corpus, cache)
    tokenizer = obtain_tokenizer(config.tokenizer, corpus, cache)
    told: list[Mapping[str, Any]] = []  # later: where the plan fails, its error is all that is said
    store = open_store(corpus, "train", tokenizer, cache, told.append)
    context = context_tokens(config, store.bytes_per_token)
    network = network_of(config, tokenizer.vocab_size)
    parameters = count_parameters(config.model, tokenizer.vocab_size)
    plans = []
    for config in configs:
        batches, budget = _text(config, corpus, tokenizer, store, context)
        plans.append(
            Plan(
                config=config,
                corpus=corpus,
                tokenizer=tokenizer,
                store=store,
                context=context,
                batches=batches,
                network=network,
                parameters=parameters,
                budget=budget,
            )
        )
    for event in told:
        observer(event)
    steps = plans[0].budget.steps
    for index, term in enumerate(config.loss):
        if term.from_step >= steps:
            _log.warning(
                "note: loss.%d.from_step: %d is past the end of a run of %d steps: %s never counts",
                index,
                term.from_step,
                steps,
                term.kind,
            )
    return plans


def _text(
    config: Config, corpus: Corpus, tokenizer: Tokenizer, store: TokenStore, context: int
) -> tuple[TrainingBatches, Budget]:
    """What a seed decides: the order of the text, and so where a budget in bytes ends."""
    stream = TextStream(store, config.seed)
    if stream.slots_per_epoch < context:
        raise UserError(
            f"context: {context} tokens are more than the training split of "
            f"{corpus.provenance.name} has ({stream.slots_per_epoch}); use a smaller context or "
            "a larger corpus"
        )
    cost = training_flops(config.model, tokenizer.vocab_size, context)
    slots = _budget_slots(config, stream, context, cost)
    steps = -(-slots // (config.batch.rows * context))
    if steps > MOST_STEPS:
        raise UserError(
            f"budget: {config.budget.model_dump(exclude_none=True)} is {steps:,} steps, and at "
            f"most {MOST_STEPS:,} are allowed; use a smaller budget, or more batch.rows or context"
        )
    batches = TrainingBatches(stream, rows=config.batch.rows, context=context, total_slots=slots)
    budget = Budget(steps=steps, tokens=slots, bytes=stream.bytes_before(slots), flops=cost * slots)
    return batches, budget


def _budget_slots(config: Config, stream: TextStream, context: int, cost: float) -> int:
    budget = config.budget
    if budget.steps is not None:
        return budget.steps * config.batch.rows * context
    if budget.bytes is not None:
        return stream.slots_for_bytes(budget.bytes)
    if budget.tokens is not None:
        return budget.tokens
    assert budget.flops is not None
    return max(1, round(budget.flops / cost))
