"""Beam search: the most probable continuations of a prompt, plain or in groups that differ.

A step scores every continuation of the live hypotheses by one token. Of the best, those that are
over (at their end, or at a limit) are kept apart; the best of those that go on are the new live
hypotheses, so that the beam stays as wide as it began. The search of a group stops when no live
hypothesis can displace one that is kept.

Only passes of the model are on the device; the search is on the host, in float64.

References:
    Vijayakumar et al. (2018), Diverse Beam Search for Improved Description of Complex Scenes.
    Wu et al. (2016), Google's Neural Machine Translation System (length normalisation).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.generation.states import TokenStates


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How a beam is searched.

    Attributes:
        width: hypotheses of a prompt, in all groups together.
        groups: the beam is cut into so many groups of equal width, searched one after another.
        diversity: nats by which a token's score falls at a step, in the choice of a group, for each
            hypothesis of the groups before that chose it at that step (Hamming diversity).
            Scores that are returned do not contain it.
        length_normalization: exponent a of the score `log_probability / tokens ** a`, by which
            hypotheses that are done are compared; the end counts as a token. 0 means the text's
            log-probability itself, which favours short texts; 1 the mean per token.

    Raises:
        ValueError: for a value that is not allowed, in one line that names it.
    """

    width: int = 5
    groups: int = 1
    diversity: float = 0.0
    length_normalization: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "groups"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}: {value!r}: must be at least 1")
        for name in ("diversity", "length_normalization"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: {value!r}: must be a number of at least 0")
        if self.width % self.groups:
            raise ValueError(
                f"groups: {self.groups!r}: must divide the width of the beam ({self.width})"
            )
        if self.diversity and self.groups == 1:
            raise ValueError(
                f"diversity: {self.diversity!r}: has no effect in one group; set groups to at "
                "least 2, or diversity to 0"
            )

    def score(self, log_probability: float, tokens: int) -> float:
        """Returns the score of a hypothesis (nats, divided by a power of its length)."""
        return log_probability / tokens**self.length_normalization


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A continuation of a prompt.

    Attributes:
        tokens: the vocabulary entries after the prompt; the last one of an ended text is the end.
        log_probabilities: of each token, in nats.
        entropies: of the distribution that each token was chosen from, in nats. The first one is
            that of the prompt's last position, the same for all hypotheses of a prompt.
        finish_reason: "end" for a text that ended, "length" for one that reached the limit.
        score: what the beam compares; see `BeamSearch.length_normalization`.
        group: the group that found it.
    """

    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    finish_reason: str = ""
    score: float = 0.0
    group: int = 0

    @property
    def log_probability(self) -> float:
        """The log-probability of all tokens given the prompt, the end included, in nats."""
        return math.fsum(self.log_probabilities)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where a text is over if it does not end by itself.

    Attributes:
        tokens: most tokens, the end included. None means any number.
        bytes: most bytes. A hypothesis whose next token would exceed them is done without it. None
            means any number.

    Raises:
        ValueError: for a value below 1, or without any limit.
    """

    tokens: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("max_tokens", self.tokens), ("max_bytes", self.bytes)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value!r}: must be at least 1")
        if self.tokens is None and self.bytes is None:
            raise ValueError("max_tokens, max_bytes: a beam needs one of them; both are missing")

    @property
    def longest(self) -> int:
        """Most tokens that a hypothesis can have, as each but the end stands for a byte or more."""
        return min(filter(None, (self.tokens, self.bytes and self.bytes + 1)))


@dataclasses.dataclass(frozen=True)
class _Search:
    """What all groups of a search share: see `search`."""

    settings: BeamSearch
    limits: Limits
    byte_lengths: Int[np.ndarray, " vocab"]
    end: int

    @functools.cached_property
    def never(self) -> Float[np.ndarray, " vocab"]:
        """Minus infinity for entries that stand for no bytes, except the end; 0 for the others."""
        never = np.where(self.byte_lengths > 0, 0.0, -np.inf)
        never[self.end] = 0.0
        return never


def search(
    states: TokenStates,
    prompts: Sequence[Int[np.ndarray, " tokens"]],
    byte_lengths: Int[np.ndarray, " vocab"],
    end: int,
    settings: BeamSearch,
    limits: Limits,
) -> list[list[Hypothesis]]:
    """Returns the hypotheses of each prompt, at most `settings.width`, the best score first.

    Each group gives its best hypotheses. They are fewer than its width only where fewer texts have
    a probability above 0 within the limits. Ties are broken by the order in which hypotheses are
    found: by that of the hypothesis they continue, then by that of the vocabulary.

    Args:
        states: of the model, with `len(prompts) * settings.width` rows, and probabilities of the
            whole vocabulary.
        prompts: the tokens that each text begins with, at least one (the document start).
        byte_lengths: how many bytes each entry stands for. Entries of none are never chosen, but
            keep their probability.
        end: the entry that ends a text.
        settings: how the beam is searched.
        limits: where hypotheses are done that do not end by themselves.
    """
    size = settings.width // settings.groups
    shared = _Search(settings, limits, byte_lengths, end)
    starts = np.arange(len(prompts)) * settings.width
    found = states.start(prompts, starts)
    beams = [
        [
            _Group(shared, group, prompt_row=start, rows=range(start + group * size, start + width))
            for group, width in enumerate(range(size, settings.width + 1, size))
        ]
        for start in starts.tolist()
    ]
    place = {row: index for index, row in enumerate(starts.tolist())}  # of a state row in `found`
    while True:
        logs, entropies = _logs_and_entropies(found)
        sources: list[int] = []
        targets: list[int] = []
        tokens: list[int] = []
        for groups in beams:
            chosen = np.zeros(len(byte_lengths))
            for group in groups:
                if not group.live:
                    continue
                read = [place[row] for row in group.rows]
                sources += group.step(logs[read], entropies[read], chosen)
                targets += group.rows
                tokens += [hypothesis.tokens[-1] for hypothesis in group.live]
        if not tokens:
            break
        found = states.extend(np.array(sources), np.array(targets), np.array(tokens))
        states.keep(np.array(targets))
        place = {row: index for index, row in enumerate(targets)}
    return [
        sorted((each for group in groups for each in group.done), key=lambda each: -each.score)
        for groups in beams
    ]


class _Group:
    """The beam of one group of a prompt.

    Attributes:
        live: hypotheses that go on.
        rows: the state row of each.
        done: the best of those that are over, the best first.
    """

    def __init__(self, shared: _Search, number: int, *, prompt_row: int, rows: range):
        self.live, self.rows = [Hypothesis(group=number)], [prompt_row]
        self.done: list[Hypothesis] = []
        self._shared, self._own_rows = shared, rows
        self._sums, self._bytes = np.zeros(1), np.zeros(1, np.int64)

    def step(
        self,
        logs: Float[np.ndarray, "live vocab"],
        entropies: Float[np.ndarray, " live"],
        chosen: Float[np.ndarray, " vocab"],
    ) -> list[int]:
        """Continues the hypotheses by a token each, and returns the rows that the new ones extend.

        Args:
            logs: log-probabilities of the next token of each live hypothesis.
            entropies: of the same distributions.
            chosen: how often earlier groups chose each token at this step; this group's choices are
                added to it.
        """
        shared, width, length = self._shared, len(self._own_rows), len(self.live[0].tokens) + 1
        limits = shared.limits
        sums = self._sums[:, None] + logs
        held = self._bytes[:, None] + shared.byte_lengths
        most = np.inf if limits.bytes is None else limits.bytes
        over = (held >= most) | (length == limits.tokens)
        over[:, shared.end] = True
        scores = sums + shared.never - shared.settings.diversity * chosen
        exceeds = held > most
        scores[exceeds & ~_largest(scores, exceeds)] = -np.inf  # a hypothesis is cut once

        def extended(parent: int, token: int) -> Hypothesis:
            before = self.live[parent]
            if exceeds[parent, token]:
                score = shared.settings.score(self._sums[parent], max(length - 1, 1))
                return dataclasses.replace(before, finish_reason="length", score=score)
            chosen[token] += 1
            ended = "end" if token == shared.end else "length"
            return dataclasses.replace(
                before,
                tokens=(*before.tokens, token),
                log_probabilities=(*before.log_probabilities, float(logs[parent, token])),
                entropies=(*before.entropies, float(entropies[parent])),
                finish_reason=ended if over[parent, token] else "",
                score=shared.settings.score(sums[parent, token], length),
            )

        top = [place for place in _places(scores, width) if over[place]]
        self.done += [extended(*place) for place in top]
        self.done.sort(key=lambda each: -each.score)
        del self.done[width:]
        on = _places(np.where(over, -np.inf, scores), width)
        live, rows = [extended(*place) for place in on], [self.rows[parent] for parent, _ in on]
        self._sums = np.array([sums[place] for place in on])
        self._bytes = np.array([held[place] for place in on])
        self.live = live if on and self._can_improve() else []
        self.rows = list(self._own_rows[: len(self.live)])
        return rows[: len(self.live)]

    def _can_improve(self) -> bool:
        """Whether a continuation of a live hypothesis can displace one that is done."""
        if len(self.done) < len(self._own_rows):
            return True
        # Log-probabilities only fall, and a longer text divides by more.
        most = self._shared.settings.score(self._sums.max(), self._shared.limits.longest)
        return bool(most > self.done[-1].score)


def _largest(
    scores: Float[np.ndarray, "rows columns"], among: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Marks the first largest score of each row among some columns; a row may have none."""
    first = np.argmax(np.where(among, scores, -np.inf), axis=1)
    return among & (np.arange(scores.shape[1]) == first[:, None])


def _places(scores: Float[np.ndarray, "live vocab"], count: int) -> list[tuple[int, int]]:
    """The row and column of the highest scores, as `best` orders them."""
    return [divmod(index, scores.shape[1]) for index in best(scores.reshape(-1), count).tolist()]


def best(scores: Float[np.ndarray, " candidates"], count: int) -> Int[np.ndarray, " best"]:
    """Returns the indices of the highest scores, the highest first, and the first of equal ones.

    Candidates with a score of minus infinity are left out.

    Example:
        >>> best(np.array([0.5, 2.0, -np.inf, 2.0, 1.0]), 3).tolist()
        [1, 3, 4]
    """
    least = -np.inf
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return found[np.argsort(-scores[found], kind="stable")[:count]]


def _logs_and_entropies(
    probabilities: Float[np.ndarray, "rows events"],
) -> tuple[Float[np.ndarray, "rows events"], Float[np.ndarray, " rows"]]:
    """Natural logarithms (minus infinity for 0), and entropies in nats, in float64."""
    probabilities = probabilities.astype(np.float64)
    logs = np.log(probabilities, out=np.full(probabilities.shape, -np.inf), where=probabilities > 0)
    products = np.multiply(
        probabilities, logs, out=np.zeros(probabilities.shape), where=probabilities > 0
    )
    return logs, -products.sum(axis=1)
