"""Which token may come next if the tokenizer wrote the text: the canonical token sequences of BPE.

A token sequence is canonical if the tokenizer gives it for the bytes that it spells. BPE merges the
best adjacent pair until none is left, and merges on either side of a boundary between two tokens do
not depend on each other until one crosses it. So a sequence is canonical if and only if every two
adjacent tokens are (and each alone is): the next token depends on the last one only.

Characters without a piece are spelled in bytes and merge with nothing, as does a symbol that the
tokenizer never divides (the newline). Bytes that are not UTF-8 are spelled in bytes too, so that
every byte string has exactly one canonical sequence, and its prefixes are canonical.

References:
    Hayase et al. (2025), Sampling from Your Language Model One Byte at a Time, arXiv 2506.14123.
    Vieira et al. (2025), Language Models over Canonical Byte-Pair Encodings, arXiv 2506.07956.
"""

import codecs
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.tokenizers.sentencepiece_model import SPACE_MARK, read_proto
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError


class Context(NamedTuple):
    """What decides which tokens may come next.

    Attributes:
        piece: the last token, if a merge could cross the boundary after it; otherwise -1.
        unfinished: the bytes of a character that has begun and is spelled in bytes.
    """

    piece: int = -1
    unfinished: bytes = b""


class CanonicalTokens:
    """The canonical token sequences of a tokenizer, one token at a time."""

    def __init__(self, tokenizer: Tokenizer):
        """Args:
        tokenizer: SentencePiece BPE, or `byte`, of which every token sequence is canonical.

        Raises:
            UserError: for a tokenizer of another kind, or one whose pieces this does not know.
        """
        kind, model = tokenizer.manifest.kind, tokenizer.model
        self._merges, self._divided = Merges({}), frozenset[int]()
        self._byte_of = dict[int, int]()
        self._completing: dict[bytes, list[int]] = {}
        if kind == "byte":
            self._alone = tokenizer.byte_lengths > 0
        elif kind != "bpe" or model is None:
            reason = (
                "no test of pairs is known" if kind == "unigram" else "it looks ahead in a text"
            )
            raise UserError(
                f"tokenisations: canonical is for tokenizers of kind bpe and byte, not {kind} "
                f"({reason}); use all"
            )
        else:
            self._byte_of = {int(index): value for value, index in enumerate(tokenizer.byte_ids)}
            self._alone = np.zeros(tokenizer.vocab_size, bool)
            self._alone[tokenizer.byte_ids] = True
            merged, whole = _read_pieces(model)
            self._merges, self._divided = Merges(merged), frozenset(merged)
            self._alone[list(merged)] = self._merges.made[list(merged)]
            self._alone[whole] = True
            for index in (*merged, *whole):  # bytes that would complete a character with a piece
                text = tokenizer.piece_bytes[index].decode()
                if len(text) == 1:
                    *begun, last = text.encode()
                    ids = self._completing.setdefault(bytes(begun), [])
                    ids.append(int(tokenizer.byte_ids[last]))
        self._alone[tokenizer.eos_id] = True

    def after(self, context: Context, token: int) -> Context:
        """Returns the context after one more token."""
        if token in self._divided:
            return Context(token)
        if token not in self._byte_of:
            return Context()
        byte = bytes([self._byte_of[token]])
        if (begun := _begins_character(context.unfinished + byte)) is not None:
            return Context(unfinished=begun)
        return Context(unfinished=_begins_character(byte) or b"")

    def after_all(self, tokens: Iterable[int]) -> Context:
        """Returns the context after tokens that begin a text."""
        context = Context()
        for token in tokens:
            context = self.after(context, token)
        return context

    def allowed(self, context: Context) -> Bool[np.ndarray, " vocab"]:
        """Returns which tokens may come next; the end of the text always may."""
        allowed = self._alone.copy()
        for begun in {b"", context.unfinished}:
            allowed[self._completing.get(begun, [])] = False
        if context.piece >= 0:
            allowed[self._merges.crossing(context.piece)] = False
        return allowed


class Merges:
    """How BPE makes its pieces: from characters, always by the best merge, of equal ones the first.

    Attributes:
        made: whether BPE gives the piece for its own text, by id.
    """

    def __init__(self, pieces: Mapping[int, tuple[str, float]]):
        """Args:
        pieces: by id, the text of each piece and the cost of making it; the least is made first.
            Every character of a piece is a piece.
        """
        self._ids = {text: index for index, (text, _) in pieces.items()}
        self._cost = dict(pieces.values())
        size, longest = max(pieces, default=-1) + 1, max(map(len, self._cost), default=1)
        self.made = np.zeros(size, bool)
        # of each merge that makes a piece: its cost, and the outermost symbols before it
        self._costs = np.full((size, longest), np.inf)
        self._left = np.zeros((size, longest), np.int32)
        self._right = np.zeros((size, longest), np.int32)
        merges = defaultdict[int, list[tuple[int, float]]](list)
        for text, index in self._ids.items():
            self._trace(index, text)
            for cut in range(1, len(text)):
                left, right = self._ids.get(text[:cut]), self._ids.get(text[cut:])
                if left is not None and right is not None:
                    merges[left].append((right, self._cost[text]))
        self._merges = {
            left: (np.array([each[0] for each in found]), np.array([each[1] for each in found]))
            for left, found in merges.items()
        }

    def _trace(self, index: int, text: str) -> None:
        """Makes a piece from its characters and notes every step."""
        symbols, step = list(text), 0
        while True:
            self._left[index, step:] = self._ids[symbols[0]]
            self._right[index, step:] = self._ids[symbols[-1]]
            pairs = [a + b for a, b in itertools.pairwise(symbols)]
            costs = [self._cost.get(pair, np.inf) for pair in pairs]
            best = min(costs, default=np.inf)
            if best == np.inf:
                break
            at = costs.index(best)
            symbols[at : at + 2] = [pairs[at]]
            self._costs[index, step] = best
            step += 1
        self.made[index] = symbols == [text]

    def crossing(self, piece: int) -> Int[np.ndarray, " pieces"]:
        """Returns the pieces that BPE does not leave standing after this one.

        Both are made side by side, always by the best of three merges: the next one of either, and
        the one that crosses the boundary. If that is ever the best, the two do not stay.
        """
        crossing = self._crossing_costs(piece)
        right = np.flatnonzero(np.isfinite(crossing.min(axis=0))[self._left].any(axis=1))
        step, step_right = np.zeros_like(right), np.zeros_like(right)
        found = []
        while len(right):
            own, other = self._costs[piece, step], self._costs[right, step_right]
            cost = crossing[step, self._left[right, step_right]]
            crosses = (cost < own) & (cost <= other)  # of equal merges, the first is made
            found.append(right[crosses])
            first = own <= other
            on = ~crosses & np.isfinite(np.minimum(own, other))
            step, step_right, right = (step + first)[on], (step_right + ~first)[on], right[on]
        return np.concatenate(found) if found else right

    def _crossing_costs(self, piece: int) -> Float[np.ndarray, "steps pieces"]:
        """The cost of merging the last symbol of a piece, at each step, with each other one."""
        steps = int(np.isfinite(self._costs[piece]).sum()) + 1
        costs = np.full((steps, len(self.made)), np.inf)
        for step in range(steps):
            others, found = self._merges.get(int(self._right[piece, step]), ((), ()))
            costs[step, others] = found
        return costs


def _read_pieces(model: bytes) -> tuple[dict[int, tuple[str, float]], list[int]]:
    """Returns text and cost of the pieces that are merged, by id, and the ids of undivided ones.

    Raises:
        UserError: for pieces of which pairs do not decide.
    """
    proto = read_proto(model)
    kinds = proto.SentencePiece
    texts = [piece.piece.replace(SPACE_MARK, " ") for piece in proto.pieces]
    whole = [i for i, piece in enumerate(proto.pieces) if piece.type == kinds.USER_DEFINED]
    undivided = {texts[index] for index in whole}
    merged = {
        index: (texts[index], -float(piece.score))
        for index, piece in enumerate(proto.pieces)
        if piece.type == kinds.NORMAL and undivided.isdisjoint(texts[index])
    }
    _require_known(proto, [texts[i] for i in whole], [text for text, _ in merged.values()])
    return merged, whole


def _require_known(proto: object, whole: Sequence[str], merged: Sequence[str]) -> None:
    characters = {text for text in merged if len(text) == 1}
    unknown = next((text for text in merged if not characters.issuperset(text)), None)
    longer = next((text for text in whole if len(text) > 1), None)
    unused = any(piece.type == piece.UNUSED for piece in proto.pieces)  # type: ignore[attr-defined]
    if unknown is not None or longer is not None or unused:
        what = (
            f"a symbol of several characters that is never divided ({longer!r})"
            if longer is not None
            else f"a piece with a character that has no piece ({unknown!r})"
            if unknown is not None
            else "pieces that are not used"
        )
        raise UserError(
            f"tokenisations: canonical cannot be told for this tokenizer, which has {what}; use "
            "tokenisations: all"
        )


def _begins_character(some: bytes) -> bytes | None:
    """Returns bytes that begin a UTF-8 character, nothing if they complete one, None if neither."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return b"" if decoder.decode(some) else some
    except UnicodeDecodeError:
        return None
