"""A run before it starts: its data, model, budget, and what happens after which step."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from calibtrain.models.size import ParameterCount, count_parameters
from calibtrain.runs.checkpoint import Identity
from calibtrain.temperature import network_of
from calibtrain.training.budget import Budget, Due, budget_of, is_due
from calibtrain.training.objective import Objective
from calibtrain.training.terms import objective_of

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run, resolved.

    Attributes:
        config: its configuration.
        corpus: the text.
        tokenizer: its tokenizer.
        store: the tokens of the training split.
        context: in tokens.
        batches: the batch of each step.
        network: the model.
        parameters: how many it has, by role.
        budget: how long it trains.
        start: gives the parameters that it starts from; None means that its seed draws them.
        facts: what only run.json of this kind of run says.
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
        steps = self.budget.steps
        return Due(
            logs=is_due(step, steps, 1, self.config.log_every),
            evaluates=is_due(step, steps, evaluation.times, evaluation.every),
            saves=is_due(step, steps, checkpoints.times, checkpoints.every),
        )

    def progress_at(self, step: int) -> tuple[int, int]:
        """Returns tokens and bytes of text trained on after so many steps."""
        return self.batches.progress(step)


def make_plan(config: Config, cache: Path, observer: Observer = ignore) -> Plan:
    """Prepares the data of a run and works out what it will do. Writes to the cache only.

    Raises:
        UserError: for a corpus, tokenizer or budget that cannot be had.
    """
    return make_plans([config], cache, observer)[0]


def make_plans(configs: Sequence[Config], cache: Path, observer: Observer = ignore) -> list[Plan]:
    """Returns the plans of runs that differ in their seed alone, and so in the order of the text.

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
    context = config.context.in_tokens(store.bytes_per_token)
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
    """The batches of a seed, which orders the text, and where a budget then ends."""
    stream = TextStream(store, config.seed)
    if stream.slots_per_epoch < context:
        raise UserError(
            f"context: {context} tokens are more than the training split of "
            f"{corpus.provenance.name} has ({stream.slots_per_epoch}); use a smaller context or "
            "a larger corpus"
        )
    budget = budget_of(config, tokenizer.vocab_size, stream, context)
    rows, slots = config.batch.rows, budget.tokens
    return TrainingBatches(stream, rows=rows, context=context, total_slots=slots), budget
