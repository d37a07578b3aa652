"""Candidate strings scored by their bytes, over all tokenisations: one event in every model."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.corpora.documents import END
from calibtrain.generation.byte_beam import STOP
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.next_byte import Beam, NextByte

LANES = 32
LEAD = 24
"""Bytes of a prompt that are read through the beam, at least: a token that the tokenizer writes at
the end of a prompt may be one that the text does not have where it goes on."""


class ReadsBytes(Protocol):
    """What predicts the next byte of texts side by side (`NextByte`)."""

    lanes: int

    def start(self, prefixes: Sequence[Int[np.ndarray, " tokens"]], /) -> None: ...
    def predict(self) -> Float[np.ndarray, "lanes 257"]: ...
    def read(self, symbols: Int[np.ndarray, " lanes"], /) -> Float[np.ndarray, " lanes"]: ...


def candidate_byte_log_probabilities(
    model: LanguageModel,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    *,
    end: bool = False,
    beam: Beam | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Float[np.ndarray, " candidates"]], int]:
    """Returns log p(candidate | prompt) of the candidates of each prompt, in nats, by bytes.

    The sum over tokenisations is that of a beam, over the candidate and at least the last `LEAD`
    bytes of its prompt; the prompt's tokens before are those that the tokenizer writes.

    Args:
        model: what is asked.
        prompts: what comes before the candidates.
        candidates: of each prompt; white space before an answer belongs to it.
        end: whether the end of the text after the candidate counts.
        beam: how many tokenisations are followed; None means the default of byte events.
        progress: is told how many candidates are scored, and of how many.

    Returns:
        The log-probabilities, and the number of candidates whose prompt was cut.
    """
    trie = ByteTrie.of(model.tokenizer.piece_bytes, model.tokenizer.eos_id)
    total = sum(map(len, candidates))
    reader = NextByte.of(
        model.network,
        model.params,
        trie,
        lanes=min(LANES, total),
        context=model.context,
        follow=beam,
    )
    starts, leads, cut = [], [], 0
    for prompt, own in zip(prompts, candidates, strict=True):
        ids = model.prompt_ids(prompt)
        held = np.cumsum(model.tokenizer.byte_lengths[ids[:0:-1]])  # of the last tokens
        lead = min(len(held), int(np.searchsorted(held, LEAD)) + 1)
        start = ids[: len(ids) - lead]
        read = b"".join(model.tokenizer.piece_bytes[i] for i in ids[len(start) :])
        cut += len(own) * (len(start) > model.context)
        starts.append(start[-model.context :])
        leads.append(read)
    scored = score_bytes(
        reader,
        [start for start, own in zip(starts, candidates, strict=True) for _ in own],
        [lead for lead, own in zip(leads, candidates, strict=True) for _ in own],
        [text.encode() for own in candidates for text in own],
        end=end,
        progress=progress,
    )
    ends = np.cumsum([len(own) for own in candidates])[:-1]
    return np.split(scored, ends), cut


def score_bytes(
    reader: ReadsBytes,
    starts: Sequence[Int[np.ndarray, " tokens"]],
    leads: Sequence[bytes],
    texts: Sequence[bytes],
    *,
    end: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, " texts"]:
    """Returns log p(text | start and lead) of each text, in nats.

    Args:
        reader: predicts and reads.
        starts: the tokens that come before, at least one.
        leads: the bytes after these that are read and not scored.
        texts: bytes that are scored.
        end: whether the end of the text counts.
        progress: is told how many texts are scored, and of how many.
    """
    found = np.zeros(len(texts))
    # texts of one length side by side, so that no lane waits for another
    order = sorted(range(len(texts)), key=lambda i: (len(leads[i]) + len(texts[i]), i))
    for first in range(0, len(order), reader.lanes):
        some = order[first : first + reader.lanes]
        symbols = [[*leads[i], *texts[i], *([END] if end else [])] for i in some]
        reader.start([starts[i] for i in some])
        for place in range(max(map(len, symbols))):
            probability = reader.predict()
            now = np.full(reader.lanes, STOP)
            for lane, (i, own) in enumerate(zip(some, symbols, strict=True)):
                if place >= len(own):
                    continue
                now[lane] = own[place]
                if place >= len(leads[i]):
                    with np.errstate(divide="ignore"):  # a byte that cannot be
                        found[i] += np.log(probability[lane, own[place]])
            reader.read(now)
        progress(min(first + reader.lanes, len(order)), len(order))
    return found
