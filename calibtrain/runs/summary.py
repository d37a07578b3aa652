"""What run.json says of a run, of whatever origin: made of the things that the run consists of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

import calibtrain
from calibtrain.config import Config, config_hash
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.models.size import ParameterCount
from calibtrain.runs.records import (
    BudgetRecord,
    CorpusRecord,
    MemoryRecord,
    ParametersRecord,
    RunRecord,
    TokenizerRecord,
)
from calibtrain.storage.documents import FORMAT


def summarise_run(
    *,
    name: str,
    status: str,
    step: int,
    config: Config,
    corpus: Corpus,
    tokenizer: Tokenizer,
    bytes_per_token: float,
    context: int,
    parameters: ParameterCount,
    budget: Mapping[str, Any],
    memory: Mapping[str, int],
    seconds: float,
    **more: Any,
) -> RunRecord:
    """Returns the record of a run as it is now, on the device and with the software at hand.

    Args:
        name: of its folder.
        status: running, stopped, failed, done or imported.
        step: steps trained in all.
        config: its configuration.
        corpus: what it is trained on.
        tokenizer: its tokenizer.
        bytes_per_token: mean raw bytes of a token of the training text.
        context: tokens that the model sees back.
        parameters: how many there are, by part.
        budget: steps, tokens, bytes and FLOPs of the whole of it.
        memory: bytes, by what they are for.
        seconds: spent training and evaluating, over all its starts.
        more: what not every run has, by the fields of `RunRecord`.
    """
    found = dict(
        format=FORMAT,
        name=name,
        status=status,
        step=step,
        steps=budget["steps"],
        version=calibtrain.__version__,
        jax=jax.__version__,
        device=jax.devices()[0].device_kind,
        config_hash=config_hash(config),
        corpus=CorpusRecord(**corpus.provenance.to_dict()),
        tokenizer=TokenizerRecord(
            kind=tokenizer.manifest.kind,
            vocab_size=tokenizer.vocab_size,
            hash=tokenizer.hash,
            bytes_per_token=bytes_per_token,
        ),
        context_tokens=context,
        parameters=ParametersRecord(**dataclasses.asdict(parameters), total=parameters.total),
        budget=BudgetRecord(**budget),
        memory=MemoryRecord(**memory),
        seconds=seconds,
        **more,
    )
    order = list(RunRecord.model_fields)
    return RunRecord(**{key: found[key] for key in sorted(found, key=order.index)})
