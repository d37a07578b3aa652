"""What an ensemble decoded: a text with its information, and byte by byte who proposed what."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.data.corpora.documents import END
from calibtrain.errors import UserError
from calibtrain.storage.byte_pieces import spelled_bytes

BYTES = 1000
"""Most bytes of a text where no limit is given."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a member did where a text went on.

    Attributes:
        member: its name.
        proposed: the bytes that it proposed; b"" stands for the end of the text, and for nothing
            where it is stalled.
        probability: that it gave to the byte that was chosen, or to its own token where tokens are
            proposed; NaN where it is stalled.
        weight: its weight there.
        stalled: whether it waited for the others.
    """

    member: str
    proposed: bytes
    probability: float
    weight: float
    stalled: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """A place where a text went on.

    Attributes:
        byte_offset: bytes of the text before it.
        chosen: the bytes that were added; b"" stands for the end of the text, or for none where
            a member only caught up.
        ended: whether the text ended here.
        proposals: of each member.
    """

    byte_offset: int
    chosen: bytes
    ended: bool
    proposals: tuple[Proposal, ...]


@dataclasses.dataclass(frozen=True)
class EnsembleText:
    """A text that an ensemble decoded.

    Attributes:
        text: the characters after the prompt; one that the prompt began is whole.
        data: its bytes.
        finish_reason: end, length, or disagreement (nothing that follows is possible for all).
        prompt: as it was given.
        information_bits: -log2 of its probability under what the members were joined to, the end
            included where it ended; docs/ensembles.md says for each method what that is.
        members: of each member, -log2 of the probability that it gave to the text; infinite where
            that is 0. Empty where that was not asked for.
        steps: how it came about, where that was asked for.
    """

    text: str
    data: bytes
    finish_reason: str
    prompt: str | bytes = dataclasses.field(repr=False)
    information_bits: float
    members: Mapping[str, float]
    steps: Sequence[Step] = dataclasses.field(default=(), repr=False)

    @property
    def bytes(self) -> int:
        """How many bytes it has."""
        return len(self.data)

    def rows(self, number: int) -> list[dict[str, Any]]:
        """Returns its steps as rows of `runs.ensemble_traces`, one for each step and member."""
        return [
            {
                "text": number,
                "step": place,
                "byte_offset": step.byte_offset,
                "chosen": step.chosen,
                "ended": step.ended,
                "member": each.member,
                "piece": each.proposed,
                "probability": each.probability,
                "weight": each.weight,
                "stalled": each.stalled,
            }
            for place, step in enumerate(self.steps)
            for each in step.proposals
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints of a text; what is infinite is null."""
        found: dict[str, Any] = {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "bytes": self.bytes,
            "information_bits": _finite(self.information_bits),
            "members": [
                {"run": name, "information_bits": _finite(bits)}
                for name, bits in self.members.items()
            ],
        }
        if self.steps:
            found["steps"] = [_step(step) for step in self.steps]
        return found


def unique_names(names: Sequence[str]) -> list[str]:
    """Returns names of which no two are equal: a number is put behind those that come again.

    Example:
        >>> unique_names(["a", "b", "a"])
        ['a', 'b', 'a (2)']
        >>> unique_names(["a", "a", "a (2)"])
        ['a', 'a (3)', 'a (2)']
    """
    found: list[str] = []
    for name in names:
        own, number = name, 1
        while own in found or (number > 1 and own in names):
            number += 1
            own = f"{name} ({number})"
        found.append(own)
    return found


def checked_limit(max_bytes: int | None, usual: int = BYTES) -> int:
    """Returns the most bytes of a text.

    Raises:
        UserError: for a number below 1.
    """
    if max_bytes is None:
        return usual
    if max_bytes < 1:
        raise UserError(f"max_bytes: {max_bytes} is not allowed; at least 1")
    return max_bytes


def spelled(symbol: int) -> bytes:
    """Returns the bytes of a symbol; the end has none.

    Example:
        >>> spelled(97), spelled(256)
        (b'a', b'')
    """
    return b"" if symbol == END else bytes([symbol])


def _step(step: Step) -> dict[str, Any]:
    return {
        "byte_offset": step.byte_offset,
        **spelled_bytes("chosen", step.chosen),
        "ended": step.ended,
        "members": [
            {
                "run": each.member,
                **spelled_bytes("proposed", each.proposed),
                "probability": _finite(each.probability),
                "weight": each.weight,
                "stalled": each.stalled,
            }
            for each in step.proposals
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
