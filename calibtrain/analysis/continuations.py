"""Continuations: documents cut after a prefix, and the tokens of what follows with their entropies.

A model goes on from the same prefixes as the documents themselves do, so that what it generates and
what people wrote are compared position by position. All lengths are in bytes, which compare between
vocabularies.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.analysis.blocks import first_bytes
from calibtrain.data.corpora.documents import Document
from calibtrain.data.tokenizers.tokenizer import utf8_bytes
from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText
from calibtrain.generation.given import trace_of_ids
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.traces import SOURCES, TokenTrace

_GENERATED = SOURCES.index("generated")


@dataclasses.dataclass(frozen=True)
class Continuation:
    """The beginning of a document, and how it goes on.

    Attributes:
        document: its name.
        prefix: its first characters.
        text: all others.
    """

    document: str
    prefix: str
    text: str


def choose_continuations(
    documents: Iterable[Document], *, count: int, prefix: int, reference: int, seed: int = 0
) -> list[Continuation]:
    """Returns documents that go on for at least `reference` bytes after `prefix` bytes.

    A prefix that would end inside a character ends before it.

    Args:
        documents: what is chosen from.
        count: how many are drawn, at most.
        prefix: bytes of the prefix, at most; 0 begins with the document.
        reference: bytes that a document holds after its prefix, at least.
        seed: of the draw, which depends on the documents alone and not on a vocabulary.

    Raises:
        UserError: where fewer than two documents are long enough.

    Example:
        >>> texts = [Document("a", "In the beginning"), Document("b", "In the end")]
        >>> [each.text for each in choose_continuations(texts, count=2, prefix=7, reference=3)]
        ['beginning', 'end']
    """
    found, longest = [], 0
    for document in documents:
        data = utf8_bytes(document.text)
        longest = max(longest, len(data))
        start = first_bytes(document.text, prefix)
        if len(data) - len(start.encode()) >= reference:
            found.append(Continuation(document.id, start, document.text[len(start) :]))
    if len(found) < 2:
        raise UserError(
            f"--reference: {reference} bytes after a prefix of {prefix} are in {len(found)} of the "
            f"documents, and at least two are needed (the longest has {longest:,} bytes); lower "
            "--reference or --prefix"
        )
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[index] for index in sorted(order.tolist())]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The tokens of one continuation.

    Attributes:
        offsets: bytes of the continuation before each token.
        bytes: that each stands for.
        information: -log of its probability, in nats.
        entropy: of the distribution that it was predicted with, in nats.
        ended: whether the continuation ended by itself.
    """

    offsets: Int[np.ndarray, " tokens"]
    bytes: Int[np.ndarray, " tokens"]
    information: Float[np.ndarray, " tokens"]
    entropy: Float[np.ndarray, " tokens"]
    ended: bool = False

    @property
    def information_bits(self) -> float:
        """Of all tokens together."""
        return float(self.information.sum()) / math.log(2)

    @property
    def entropy_bits(self) -> float:
        """Of all steps together."""
        return float(self.entropy.sum()) / math.log(2)


def given_tokens(
    model: LanguageModel, continuations: Sequence[Continuation], reach: int
) -> list[Scored]:
    """Returns the tokens of what documents say after their prefixes, as the model predicts them.

    A document is spelled as a whole; the tokens are those that begin after the prefix and before
    `reach` bytes of what follows. One that begins inside the prefix is not counted.

    Args:
        model: what predicts.
        continuations: the documents.
        reach: bytes after the prefix.
    """
    texts, starts = [], []
    for each in continuations:
        start = len(utf8_bytes(each.prefix))
        # more text than is scored, so that the last word is spelled as in the document
        more = first_bytes(each.text, reach + 256)
        ids = model.prompt_ids(each.prefix + more)
        offsets = np.cumsum(model.tokenizer.byte_lengths[ids]) - model.tokenizer.byte_lengths[ids]
        texts.append(ids[: int(np.searchsorted(offsets, start + reach, side="left"))])
        starts.append(start)
    return [
        _part(trace, np.cumsum(trace.byte_lengths) - trace.byte_lengths - start)
        for trace, start in zip(trace_of_ids(model, texts), starts, strict=True)
    ]


def generated_tokens(texts: Sequence[GeneratedText], *, drawn: bool = False) -> list[Scored]:
    """Returns the tokens that were generated.

    Args:
        texts: what was generated.
        drawn: whether samplers changed the distribution. Information and entropy are then both
            -log of the probability that a token was drawn with, whose mean is the entropy; else
            they are those of the model.
    """
    found = []
    for text in texts:
        own = np.flatnonzero(text.trace.source == _GENERATED)
        lengths = text.trace.byte_lengths[own]
        information = -text.trace.log_probability[own].astype(np.float64)
        entropy = text.trace.entropy[own].astype(np.float64)
        if drawn:
            information = -text.trace.sampling_log_probability[own].astype(np.float64)
            entropy = information
        ended = text.finish_reason == "end"
        found.append(Scored(np.cumsum(lengths) - lengths, lengths, information, entropy, ended))
    return found


def _part(trace: TokenTrace, offsets: Int[np.ndarray, " tokens"]) -> Scored:
    """Returns the tokens of a trace from offset 0 on."""
    own = offsets >= 0
    return Scored(
        offsets[own],
        trace.byte_lengths[own],
        -trace.log_probability[own].astype(np.float64),
        trace.entropy[own].astype(np.float64),
    )
