"""Texts of the methods that choose a string at each step: the union of tokens, selective joins.

Both are greedy. Members read what is chosen as their own tokenizers write it (`text_reader`).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from calibtrain.data.corpora.documents import END
from calibtrain.ensembles.members import Member, information_of, prompt_bytes
from calibtrain.ensembles.proposals import END_SYMBOL
from calibtrain.ensembles.selective import Kept, Selective, go_on
from calibtrain.ensembles.text_reader import ROWS, TextReader
from calibtrain.ensembles.texts import EnsembleText, Proposal, Step, checked_limit
from calibtrain.ensembles.union import Union, Vocabulary, join
from calibtrain.generation.beam_texts import BYTES
from calibtrain.generation.growing_text import begun


def greedy_texts(
    members: Sequence[Member],
    prompts: Sequence[str | bytes],
    method: Union | Selective,
    *,
    max_bytes: int | None = None,
    explain: bool = False,
    informed: bool = True,
) -> list[EnsembleText]:
    """Returns the text of each prompt.

    `information_bits` is -log2 of the product of what was chosen: under the average over the union,
    or where a member wrote alone, under that member. A member's is that of the bytes, over
    tokenisations.

    Args:
        members: of the ensemble; of `Selective`, the first one drafts.
        prompts: texts, or bytes, which may end inside a character. An empty one begins a document.
        method: how strings are chosen.
        max_bytes: most bytes of a text; None means `beam_texts.BYTES`. A string that would exceed
            it ends the text without it.
        explain: whether texts say how they came about.
        informed: whether texts say what information each member gives to them, for which all
            members read them byte by byte.

    Raises:
        UserError: for a number that is not allowed, or a prompt that a member cannot spell.
        ValueError: for weights that are not one a member.
    """
    most = checked_limit(max_bytes, BYTES)
    (method if isinstance(method, Union) else method.union).of(len(members))  # checks them
    vocabularies = [Vocabulary(member) for member in members]
    found = [
        _text(members, vocabularies, prompt, method, most, explain=explain) for prompt in prompts
    ]
    if not informed or not found:
        return found
    bits = information_of(
        members,
        [prompt_bytes(prompt) for prompt in prompts],
        [[*text.data, *([END] if text.finish_reason == "end" else [])] for text in found],
    )
    names = [member.name for member in members]
    return [
        dataclasses.replace(text, members=dict(zip(names, own.tolist(), strict=True)))
        for text, own in zip(found, bits.T, strict=True)
    ]


def _text(
    members: Sequence[Member],
    vocabularies: Sequence[Vocabulary],
    prompt: str | bytes,
    method: Union | Selective,
    most: int,
    *,
    explain: bool,
) -> EnsembleText:
    start, data, nats, reason = prompt_bytes(prompt), b"", 0.0, ""
    steps: list[Step] = []
    readers = [TextReader(member.model, member.states(ROWS)) for member in members]
    names = [member.name for member in members]
    union = method if isinstance(method, Union) else method.union
    weights = union.of(len(members)).tolist()
    while not reason:
        text, room = start + data, most - len(data)
        if isinstance(method, Union):
            found = [_united(readers, vocabularies, method, text)]
        else:
            found = go_on(members, readers[0], vocabularies, method, text, room)
        for each in found:
            ended = each.string == END_SYMBOL
            added = b"" if ended else each.string.encode("latin-1")
            if len(data) + len(added) > most:
                reason = "length"
                break
            if explain:
                proposals = tuple(_proposals(each, names, weights))
                steps.append(Step(len(data), added, ended, proposals))
            nats -= each.log_probability
            data += added
            if ended or len(data) == most:
                reason = "end" if ended else "length"
                break
    return EnsembleText(
        text=(begun(start[-4:]) + data).decode(errors="replace"),
        data=data,
        finish_reason=reason,
        prompt=prompt,
        information_bits=nats / math.log(2),
        members={},
        steps=steps,
    )


def _united(
    readers: Sequence[TextReader],
    vocabularies: Sequence[Vocabulary],
    method: Union,
    text: bytes,
) -> Kept:
    """The most probable string of the union after a text."""
    logs = [reader.after(text) for reader in readers]
    joined = join(vocabularies, logs, method.of(len(readers)), method.top)
    best = joined.best
    return Kept(joined.strings[best], math.log(joined.probability[best]), (), joined)


def _proposals(kept: Kept, names: Sequence[str], weights: Sequence[float]) -> Iterator[Proposal]:
    """What each member proposed where a string was chosen."""
    joined = kept.joined
    if joined is not None:
        place = joined.strings.index(kept.string)
        for name, each, weight in zip(names, joined.each, weights, strict=True):
            best = joined.strings[int(each.argmax())]
            yield Proposal(name, _bytes(best), float(each[place]), weight)
        return
    yield Proposal(names[0], _bytes(kept.string), math.exp(kept.log_probability), 1.0)
    for name, opinion in zip(names[1:], kept.opinions, strict=True):
        if opinion is None:  # its own token goes across the place
            yield Proposal(name, b"", math.nan, 0.0, stalled=True)
        else:
            yield Proposal(name, _bytes(opinion[0]), opinion[1], 0.0)


def _bytes(string: str) -> bytes:
    return string.removesuffix(END_SYMBOL).encode("latin-1")
