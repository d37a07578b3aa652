"""Selective ensembling: one member writes alone, and the others join where they disagree with it.

The first member drafts some tokens. Each of the others reads the draft in one parallel pass, as its
own tokenizer writes it. A drafted token is kept as it is

- where joining is not *safe*: some member's token goes across the place where it begins, so that
  the member has no distribution there;
- or where there is *consensus*: every other member's most probable token agrees with it (one is a
  beginning of the other), or their mean probability of it is above `consensus`.

At the first other token the members are joined (`union.join`), the rest of the draft is dropped,
and the first member goes on from there.

References:
    Yun et al. (2025), When to Ensemble: Identifying Token-Level Points for Stable and Fast LLM
        Ensembling (SAFE). Its sharpening of joint distributions is left out.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from calibtrain.ensembles.members import Member
from calibtrain.ensembles.proposals import END_SYMBOL
from calibtrain.ensembles.text_reader import TextReader
from calibtrain.ensembles.union import Joined, Union, Vocabulary, join
from calibtrain.generation.windows import window_start


@dataclasses.dataclass(frozen=True)
class Selective:
    """When members join.

    Attributes:
        draft: tokens that the first member writes before the others look.
        consensus: mean probability of the other members above which a token is kept.
        top: tokens of each member that are united where they join.
        weights: of each member there, above 0; None means equal ones.

    Raises:
        ValueError: for a value that is not allowed, in one line that names it.
    """

    draft: int = 5
    consensus: float = 0.5
    top: int = 10
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.draft < 1:
            raise ValueError(f"draft: {self.draft!r}: must be at least 1")
        if not (math.isfinite(self.consensus) and 0 <= self.consensus <= 1):
            raise ValueError(f"consensus: {self.consensus!r}: must be a number from 0 to 1")
        Union(self.top, self.weights)

    @property
    def union(self) -> Union:
        """How members are joined."""
        return Union(self.top, self.weights)


class Kept(NamedTuple):
    """A string that goes on a text, and why.

    Attributes:
        string: of symbols.
        log_probability: under the first member, or the joint distribution, in nats.
        opinions: of each other member, its most probable string and the probability that it gave
            to this one; None where it has no distribution there.
        joined: the distributions over the union; None where the first member wrote it alone.
    """

    string: str
    log_probability: float
    opinions: tuple[tuple[str, float] | None, ...]
    joined: Joined | None = None


class _Drafted(NamedTuple):
    """A token that the first member wrote, and its distribution there."""

    string: str
    place: int
    logs: Float[np.ndarray, " vocab"]
    log_probability: float


def go_on(
    members: Sequence[Member],
    reader: TextReader,
    vocabularies: Sequence[Vocabulary],
    settings: Selective,
    text: bytes,
    room: int,
) -> list[Kept]:
    """Returns the strings that go on a text, at least one where one fits, up to the first join.

    Args:
        members: of the ensemble; the first one drafts.
        reader: of the first member.
        vocabularies: of the members.
        settings: when they join.
        text: the prompt and what follows it.
        room: bytes that may be added by drafting.
    """
    draft = _draft(reader, vocabularies[0], settings.draft, text, room)
    written = b"".join(_bytes(each.string) for each in draft)
    others = [_distributions(member, text + written, len(text)) for member in members[1:]]
    found: list[Kept] = []
    for each in draft:
        at = [own.get(each.place) for own in others]
        opinions = tuple(
            None if own is None else _opinion(vocabulary, own, each.string)
            for vocabulary, own in zip(vocabularies[1:], at, strict=True)
        )
        known = [opinion for opinion in opinions if opinion is not None]
        safe = len(known) == len(opinions)
        if not safe or _agree(known, each.string, settings.consensus):
            found.append(Kept(each.string, each.log_probability, opinions))
            continue
        logs = [each.logs, *(own for own in at if own is not None)]
        weights = settings.union.of(len(members))
        joined = join(vocabularies, logs, weights, settings.top)
        log_probability = math.log(joined.probability[joined.best])
        found.append(Kept(joined.strings[joined.best], log_probability, opinions, joined))
        break
    return found


def _draft(
    reader: TextReader, vocabulary: Vocabulary, count: int, text: bytes, room: int
) -> list[_Drafted]:
    """The most probable tokens of the first member, one after another, as far as they fit."""
    found: list[_Drafted] = []
    while len(found) < count:
        logs = reader.after(text)
        (string,) = vocabulary.most_probable(logs, 1)
        found.append(_Drafted(string, len(text), logs, vocabulary.log_probability(string, logs)))
        room -= len(_bytes(string))
        if string == END_SYMBOL or room <= 0:
            break
        text += _bytes(string)
    return found


def _distributions(
    member: Member, text: bytes, first: int
) -> dict[int, Float[np.ndarray, " vocab"]]:
    """A member's distributions where its own tokens of a text end, by place, from `first` on."""
    ids = member.model.prompt_ids(text)
    ends = np.cumsum(member.model.tokenizer.byte_lengths[ids])
    start = window_start(len(ids) - 1, member.model.context)
    ids, ends = ids[start:], ends[start:]
    count = int((ends >= first).sum())
    found = member.last_distributions(ids, count)
    return dict(zip(ends[-count:].tolist(), found, strict=True))


def _opinion(
    vocabulary: Vocabulary, logs: Float[np.ndarray, " vocab"], string: str
) -> tuple[str, float]:
    """A member's most probable string, and the probability that it gives to another one."""
    (best,) = vocabulary.most_probable(logs, 1)
    return best, math.exp(vocabulary.log_probability(string, logs))


def _agree(opinions: Sequence[tuple[str, float]], string: str, consensus: float) -> bool:
    """Whether other members would write a string too.

    Example:
        >>> _agree([(" the", 0.2)], " th", 0.5), _agree([(" a", 0.2)], " th", 0.5)
        (True, False)
    """
    alike = [best.startswith(string) or string.startswith(best) for best, _ in opinions]
    mean = sum(probability for _, probability in opinions) / max(1, len(opinions))
    return all(alike) or mean > consensus


def _bytes(string: str) -> bytes:
    return string.removesuffix(END_SYMBOL).encode("latin-1")
