"""Texts from a beam: prompts in, the hypotheses of each as texts with their information out."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.generation.beam import BeamSearch, Hypothesis, Limits, search
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.shared_states import SharedStates
from calibtrain.generation.states import DecodingStates, TokenStates
from calibtrain.models.shared_decoding import can_share

ROWS = 128
"""Hypotheses that are searched side by side, at most, by default."""
BYTES = 200
"""Most bytes of a text where no limit is given."""


@dataclasses.dataclass(frozen=True)
class BeamText:
    """A hypothesis of a beam as a text.

    Attributes:
        text: the characters after the prompt.
        finish_reason: end (the model ended it) or length.
        prompt: as it was given.
        prompt_tokens: its ids, the document start included.
        prompt_tokens_seen: how many of them the model saw.
        tokens: of the text, its end included.
        bytes: that they stand for.
        information_bits: -log2 of their probability under the model.
        entropy_bits: the sum of the entropies of their distributions.
        score: nats, by which the beam ranks its hypotheses (`BeamSearch.length_normalization`).
        group: the group of the beam that found it.
        hypothesis: its tokens, with what is known of each.
    """

    text: str
    finish_reason: str
    prompt: str | bytes = dataclasses.field(repr=False)
    prompt_tokens: int
    prompt_tokens_seen: int
    tokens: int
    bytes: int
    information_bits: float
    entropy_bits: float
    score: float
    group: int
    hypothesis: Hypothesis = dataclasses.field(repr=False)


def beam_texts(
    model: LanguageModel,
    prompts: Sequence[str | bytes],
    search_by: BeamSearch | None = None,
    *,
    max_tokens: int | None = None,
    max_bytes: int | None = None,
    rows: int | None = None,
) -> list[list[BeamText]]:
    """Returns the hypotheses of each prompt, the best first.

    The model sees the last `context` tokens of a prompt and what follows it; when these are more
    than its context, the oldest are forgotten one by one.

    Args:
        model: what is searched.
        prompts: texts, or bytes, which may end inside a character. An empty one begins a document.
        search_by: how; None means `BeamSearch()`. A width of 1 is greedy decoding.
        max_tokens: most tokens of a text, its end included.
        max_bytes: most bytes of a text; `BYTES` where neither limit is given.
        rows: hypotheses that are searched side by side, of as many prompts as have room. It changes
            speed and memory, but no result.

    Raises:
        ValueError: for a number that is not allowed.
        UserError: for a prompt that the vocabulary cannot spell.
    """
    settings = search_by or BeamSearch()
    if rows is not None and rows < 1:
        raise ValueError(f"rows: {rows!r}: must be at least 1")
    if max_tokens is None and max_bytes is None:
        max_bytes = BYTES
    limits, tokenizer = Limits(max_tokens, max_bytes), model.tokenizer
    starts = [model.prompt_ids(prompt) for prompt in prompts]
    seen = [ids[-model.context :] for ids in starts]
    at_once = min(max(1, (rows or ROWS) // settings.width), max(1, len(prompts)))
    states = states_for(model, at_once, settings.width)
    found: list[list[Hypothesis]] = []
    for first in range(0, len(prompts), at_once):
        found += search(
            states,
            seen[first : first + at_once],
            tokenizer.byte_lengths,
            tokenizer.eos_id,
            settings,
            limits,
        )
    return [
        [_text(tokenizer, prompt, start, len(part), each) for each in hypotheses]
        for prompt, start, part, hypotheses in zip(prompts, starts, seen, found, strict=True)
    ]


def states_for(model: LanguageModel, prompts: int, width: int) -> TokenStates:
    """Returns states of a model for the beams of some prompts: `width` rows for each."""
    network, params, context, rows = model.network, model.params, model.context, prompts * width
    if not can_share(network, params):
        return DecodingStates(network, params, rows=rows, context=context)
    return SharedStates(
        network,
        params,
        rows=rows,
        slots=width,
        pools=prompts,
        context=context,
        events=np.arange(network.vocab_size),
    )


def _text(
    tokenizer: Tokenizer,
    prompt: str | bytes,
    start: Int[np.ndarray, " tokens"],
    seen: int,
    found: Hypothesis,
) -> BeamText:
    data = tokenizer.decode(found.tokens)
    return BeamText(
        text=data.decode(errors="replace"),
        finish_reason=found.finish_reason,
        prompt=prompt,
        prompt_tokens=len(start),
        prompt_tokens_seen=seen,
        tokens=len(found.tokens),
        bytes=len(data),
        information_bits=-found.log_probability / math.log(2),
        entropy_bits=math.fsum(found.entropies) / math.log(2),
        score=found.score,
        group=found.group,
        hypothesis=found,
    )
