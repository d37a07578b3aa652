"""Agreement-based search: the most probable texts that every member spells in tokens of its own.

A joint hypothesis holds a token sequence of each member, all of them beginnings of one text: the
longest of them. A member whose text is the longest while another is behind is stalled: it proposes
nothing, and costs no pass. The others propose tokens that agree with the text, best-first over the
product of their vocabularies (`proposals`), and the `width` best joint hypotheses go on. A text is
over where all members have ended it, at the same place: nothing agrees with one that goes on.

The score is sum_i w_i log p_i(the tokens of member i). As all members propose in the order of their
scores, the first joint hypotheses that agree are the best ones, so that the search is exact unless
it stops early: after `visits` proposals, if two that agree were found.

References:
    Wicks et al. (2025), Token-Level Ensembling of Models with Different Vocabularies. There the
        queue is ordered by a mean over tokens, and a member may go on where another one ended.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.ensembles.proposals import (
    END_SYMBOL,
    Joint,
    Options,
    Spelling,
    best_first,
)
from calibtrain.generation.states import TokenStates


@dataclasses.dataclass(frozen=True)
class AgreementSearch:
    """How agreement is searched.

    Attributes:
        width: joint hypotheses that go on at each step.
        weights: of each member, above 0; they are divided by their sum. None means equal ones.
        visits: proposals of a step that are looked at before it may stop early.

    Raises:
        ValueError: for a value that is not allowed, in one line that names it.
    """

    width: int = 5
    weights: tuple[float, ...] | None = None
    visits: int = 10_000

    def __post_init__(self) -> None:
        for name in ("width", "visits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r}: must be at least 1")
        if self.weights is not None and not all(
            math.isfinite(weight) and weight > 0 for weight in self.weights
        ):
            raise ValueError(f"weights: {list(self.weights)}: must be above 0")

    def of(self, members: int) -> tuple[float, ...]:
        """Returns the weight of each member; they sum to 1.

        Raises:
            ValueError: for weights that are not one a member.
        """
        given = self.weights or (1.0,) * members
        if len(given) != members:
            raise ValueError(f"weights: {len(given)} of them for {members} members")
        return tuple(weight / math.fsum(given) for weight in given)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a search needs of a member.

    Attributes:
        states: with `width` rows, and probabilities of the whole vocabulary.
        spelling: its vocabulary.
        prompt: the tokens that its text begins with, at least one. Those of all members spell the
            same prompt.
    """

    states: TokenStates
    spelling: Spelling
    prompt: Int[np.ndarray, " tokens"]


@dataclasses.dataclass(frozen=True)
class Path:
    """What a member has read of a joint hypothesis.

    Attributes:
        tokens: after the prompt; the last one of an ended text is the end.
        log_probability: of all of them, in nats.
        position: how many symbols of the joint text they spell.
    """

    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0
    position: int = 0


@dataclasses.dataclass(frozen=True)
class Agreed:
    """A joint hypothesis.

    Attributes:
        symbols: its text after the prompt, as `proposals` writes it.
        paths: of each member.
        score: the weighted sum of the members' log-probabilities, in nats.
        finish_reason: "end" for a text that ended, "length" for one that reached the limit; "" for
            one that goes on.
        parent: what it continues; None for the prompt alone.
        moves: what each member proposed then, with its log-probability; None where it was stalled.
    """

    symbols: str
    paths: tuple[Path, ...]
    score: float = 0.0
    finish_reason: str = ""
    parent: "Agreed | None" = dataclasses.field(default=None, repr=False)
    moves: tuple[tuple[int, float] | None, ...] = ()

    @property
    def data(self) -> bytes:
        """The bytes of its text."""
        return self.symbols.removesuffix(END_SYMBOL).encode("latin-1")

    @property
    def in_step(self) -> bool:
        """Whether all members have read the whole of its text."""
        return all(path.position == len(self.symbols) for path in self.paths)

    @property
    def proposing(self) -> list[int]:
        """The members that are behind; all of them where none is."""
        size = len(self.symbols)
        behind = [number for number, path in enumerate(self.paths) if path.position < size]
        return behind or list(range(len(self.paths)))

    @property
    def history(self) -> "list[Agreed]":
        """The joint hypotheses that led to it, the first step first and itself last."""
        found, now = [], self
        while now.parent is not None:
            found.append(now)
            now = now.parent
        return found[::-1]


def search(readings: Sequence[Reading], settings: AgreementSearch, max_bytes: int) -> list[Agreed]:
    """Returns the joint hypotheses of a prompt that are over, at most `width`, the best first.

    There is none where no text within the limit is possible for all members. A hypothesis whose
    next tokens would exceed the limit is over without them, if all members are in step there.

    Args:
        readings: of each member.
        settings: how agreement is searched.
        max_bytes: most bytes of a text.
    """
    members = [
        _Member(reading, weight, settings.width)
        for reading, weight in zip(readings, settings.of(len(readings)), strict=True)
    ]
    live, done = [Agreed("", (Path(),) * len(members))], list[Agreed]()
    while live:
        live, over = _step(live, members, settings, max_bytes)
        done = sorted(done + over, key=lambda each: -each.score)[: settings.width]
        full = len(done) == settings.width
        if full and live and live[0].score <= done[-1].score:  # log-probabilities only fall
            break
        for number, member in enumerate(members):
            member.read([each.paths[number] for each in live])
    return done


def _step(
    live: Sequence[Agreed], members: Sequence["_Member"], settings: AgreementSearch, max_bytes: int
) -> tuple[list[Agreed], list[Agreed]]:
    """Continues joint hypotheses by a token of each member that proposes.

    Returns:
        The best of those that go on, the best first; and those that are over among the best.
    """
    products = _products(live, members, max_bytes)
    closed: set[int] = set()  # products that nothing more is wanted of
    on: list[Agreed] = []
    over: list[Agreed] = []
    cut: set[int] = set()
    options = [(live[each.hypothesis].score, each.options) for each in products]
    for visited, found in enumerate(best_first(options, closed), 1):
        if found is not None:
            product = products[found.product]
            before = live[product.hypothesis]
            among_best = len(on) + len(over) < settings.width
            if product.exceeds:
                closed.add(found.product)
                if product.hypothesis not in cut and among_best:  # it is cut once
                    over.append(dataclasses.replace(before, finish_reason="length"))
                cut.add(product.hypothesis)
                continue
            new = _extended(before, found, members)
            ended = new.symbols.endswith(END_SYMBOL)
            if not new.in_step or not (ended or len(new.symbols) == max_bytes):
                on.append(new)
            elif among_best:
                reason = "end" if ended else "length"
                over.append(dataclasses.replace(new, finish_reason=reason))
        if len(on) == settings.width:
            break
        if visited >= settings.visits and len(on) >= min(2, settings.width):
            break
    return on, over


@dataclasses.dataclass(frozen=True)
class _Product:
    """Tokens of the members of a joint hypothesis that are looked at together.

    Attributes:
        hypothesis: index of the joint hypothesis.
        options: of each member that proposes.
        exceeds: whether the text would be longer than allowed with all that agree.
    """

    hypothesis: int
    options: list[Options]
    exceeds: bool = False


def _products(
    live: Sequence[Agreed], members: Sequence["_Member"], max_bytes: int
) -> list[_Product]:
    """What is looked at of each joint hypothesis: what fits, and what tells that it is to be cut.

    The latter is cut into products by the first member whose token is too long.
    """
    found = []
    for number, each in enumerate(live):
        room = max_bytes - len(each.symbols.removesuffix(END_SYMBOL))
        proposing = [(members[m], each.paths[m]) for m in each.proposing]

        def options(
            member: _Member,
            path: Path,
            fits: bool | None,
            symbols: str = each.symbols,
            room: int = room,
        ) -> Options:
            return member.options(path, symbols, room, fits)

        found.append(_Product(number, [options(*each, True) for each in proposing]))
        if not each.in_step:
            continue
        for first, (member, path) in enumerate(proposing):
            if member.spelling.longest > room:
                before = [options(*own, True) for own in proposing[:first]]
                after = [options(*own, None) for own in proposing[first + 1 :]]
                own = [*before, options(member, path, False), *after]
                found.append(_Product(number, own, exceeds=True))
    return found


def _extended(before: Agreed, found: Joint, members: Sequence["_Member"]) -> Agreed:
    """A joint hypothesis with one more token of each member that proposes."""
    paths, moves = list(before.paths), list[tuple[int, float] | None]([None] * len(members))
    for number, token in zip(before.proposing, found.tokens, strict=True):
        path, member = paths[number], members[number]
        log_probability = member.log_probability(path, token)
        paths[number] = Path(
            (*path.tokens, token),
            path.log_probability + log_probability,
            path.position + len(member.spelling.symbols[token]),
        )
        moves[number] = token, log_probability
    symbols = before.symbols + found.beyond
    return Agreed(symbols, tuple(paths), found.score, parent=before, moves=tuple(moves))


class _Member:
    """A member's decoding states, one for each path that goes on, however many share it."""

    def __init__(self, reading: Reading, weight: float, rows: int):
        self._all_rows = range(rows)
        self.spelling, self._states, self._weight = reading.spelling, reading.states, weight
        self._rows: dict[tuple[int, ...], int] = {(): 0}
        self._logs: dict[tuple[int, ...], Float[np.ndarray, " vocab"]] = {}
        self._found: dict[tuple[Any, ...], Options] = {}
        first = self._states.start([reading.prompt], np.zeros(1, np.int64))
        self._logs[()] = _logarithms(first[0])

    def log_probability(self, path: Path, token: int) -> float:
        """The log-probability of a token after a path, in nats."""
        return float(self._logs[path.tokens][token])

    def options(self, path: Path, symbols: str, room: int, fits: bool | None) -> Options:
        """The tokens after a path that agree with the text of a joint hypothesis.

        Args:
            path: of this member.
            symbols: of the joint hypothesis.
            room: bytes that may be added to it.
            fits: True for those that add no more, False for those that do, None for all.
        """
        ahead, spelling = symbols[path.position :], self.spelling
        bound = None if fits is None or spelling.longest - len(ahead) <= room else room
        key = path.tokens, ahead, bound, fits
        if key not in self._found:
            scores = self._weight * self._logs[path.tokens]
            if bound is not None:
                adds = spelling.byte_lengths - len(ahead)
                scores = np.where((adds <= bound) == fits, scores, -np.inf)
            self._found[key] = spelling.options(ahead, scores)
        return self._found[key]

    def read(self, paths: Sequence[Path]) -> None:
        """Makes the states of paths that are new, and drops those that no path needs.

        A path that did not move, since the member was stalled, costs no pass; nor does one that
        ended its text, which proposes nothing more.
        """
        end = [path for path in paths if path.tokens and self._is_end(path.tokens[-1])]
        wanted = list(dict.fromkeys(path.tokens for path in paths if path not in end))
        kept = {tokens: self._rows[tokens] for tokens in wanted if tokens in self._rows}
        new = [tokens for tokens in wanted if tokens not in kept]
        free = [row for row in self._all_rows if row not in kept.values()]
        targets = dict(zip(new, free, strict=False))
        if new:
            found = self._states.extend(
                np.array([self._rows[tokens[:-1]] for tokens in new]),
                np.array([targets[tokens] for tokens in new]),
                np.array([tokens[-1] for tokens in new]),
            )
            for tokens, own in zip(new, found, strict=True):
                self._logs[tokens] = _logarithms(own)
        self._rows = kept | targets
        self._states.keep(np.array(sorted(self._rows.values()), np.int64))
        self._logs = {tokens: self._logs[tokens] for tokens in self._rows}
        self._found = {key: own for key, own in self._found.items() if key[0] in self._rows}

    def _is_end(self, token: int) -> bool:
        return self.spelling.symbols[token] == END_SYMBOL


def _logarithms(probabilities: Float[np.ndarray, " vocab"]) -> Float[np.ndarray, " vocab"]:
    """Natural logarithms in float64; minus infinity for 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probabilities, np.float64))
