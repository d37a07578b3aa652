"""A text while it is generated: its tokens and bytes, when it is over, and what may be shown."""

import codecs
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from calibtrain.generation.loops import LoopWatch


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a text is over, besides its own end.

    Attributes:
        tokens: most tokens, the end of text included; None means any number.
        bytes: most bytes; None means any number.
        stop: texts that end it.
        loop: whether exact repetition ends it.
    """

    tokens: int | None
    bytes: int | None
    stop: tuple[bytes, ...]
    loop: bool


class GrowingText:
    """The tokens that were drawn for one text so far.

    Attributes:
        number: of the text in its request.
        ids: the prompt's ids (the document start first) and those drawn.
        drawn: how many were drawn.
        data: the bytes of those drawn.
        reason: why it is over; "" while it is not.
        cut: where a stop text begins in `data`; None without one.
    """

    def __init__(
        self,
        number: int,
        prompt: Int[np.ndarray, " tokens"],
        pieces: Sequence[bytes],
        end: int,
        limits: Limits,
    ):
        self.number, self.ids, self.drawn = number, [int(each) for each in prompt], 0
        self.data, self.reason = bytearray(), ""
        self.cut: int | None = None
        self._pieces, self._end, self._limits = pieces, end, limits
        self._loop = LoopWatch()
        self._shown = 0
        # a character that the prompt began is shown whole
        tail = b"".join(pieces[index] for index in self.ids[-4:])
        self.begun = begun(tail)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._decode(self.begun)

    @property
    def room(self) -> int | None:
        """How many more tokens it may have; None means any number."""
        limits = self._limits
        if limits.tokens is None and limits.bytes is None:
            return None
        tokens = np.inf if limits.tokens is None else limits.tokens - self.drawn
        size = np.inf if limits.bytes is None else max(1, limits.bytes - len(self.data))
        return int(min(tokens, size))

    def read(self, tokens: Int[np.ndarray, " tokens"]) -> int:
        """Reads tokens that were drawn, until the text is over; returns how many belong to it.

        A token that would make the text longer than allowed does not, and ends it.
        """
        loops = self._loop.read(tokens).tolist() if self._limits.loop else [0] * len(tokens)
        before = self.drawn
        for token, period in zip(tokens.tolist(), loops, strict=True):
            self._read(token, period)
            if self.reason:
                break
        return self.drawn - before

    def _read(self, token: int, period: int) -> None:
        limits, piece = self._limits, self._pieces[token]
        if limits.bytes is not None and len(self.data) + len(piece) > limits.bytes:
            self.reason = "length"
            return
        self.ids.append(token)
        self.drawn += 1
        before = len(self.data)
        self.data += piece
        if token == self._end:
            self.reason = "end"
        elif limits.stop and (place := self._stopped(before)) is not None:
            self.reason, self.cut = "stop", place
        elif period:
            self.reason = "loop"
        elif self.drawn == limits.tokens or len(self.data) == limits.bytes:
            self.reason = "length"

    def _stopped(self, before: int) -> int | None:
        """Returns where the first stop text begins that the latest token completed."""
        found = []
        for stop in self._limits.stop:
            place = self.data.find(stop, max(0, before - len(stop) + 1))
            if place >= 0:
                found.append(place)
        return min(found, default=None)

    def piece(self) -> str:
        """Returns the characters that are complete and were not shown; "" if there are none.

        What may be the beginning of a stop text waits until it is known not to be.
        """
        end = len(self.data) if self.cut is None else self.cut
        if not self.reason:
            end -= max((_overlap(self.data, stop) for stop in self._limits.stop), default=0)
        shown, self._shown = self._shown, max(self._shown, end)
        return self._decode(bytes(self.data[shown:end]), bool(self.reason))

    @property
    def text(self) -> str:
        """The characters of the text; bytes that are no UTF-8 are replaced by U+FFFD."""
        return (self.begun + bytes(self.data[: self.cut])).decode(errors="replace")


def begun(tail: bytes) -> bytes:
    """Returns the bytes of a character that a text ends inside of.

    Example:
        >>> begun("né".encode()[:-1])
        b'\\xc3'
        >>> begun(b"ne")
        b''
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(tail)
    return decoder.getstate()[0]


def _overlap(data: bytearray, stop: bytes) -> int:
    """Returns the length of the longest end of `data` that `stop` begins with."""
    for length in range(min(len(data), len(stop) - 1), 0, -1):
        if data.endswith(stop[:length]):
            return length
    return 0
