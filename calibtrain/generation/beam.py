"""Beam search: the most probable continuations of a prompt, plain or in groups that differ.

A step scores every continuation of the live hypotheses by one token, and keeps the best. Those that
end leave the beam and are kept apart, so that the beam stays as wide as it began. The search of a
group stops when no live hypothesis can still displace one that is kept.

Only passes of the model are on the device; the search is on the host, in float64.

References:
    Vijayakumar et al. (2018), Diverse Beam Search for Improved Description of Complex Scenes.
    Wu et al. (2016), Google's Neural Machine Translation System (length normalisation).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.generation.next_byte import TokenStates


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
    """Where a text ends if it does not end by itself.

    Attributes:
        tokens: a hypothesis of so many tokens is done.
        bytes: a hypothesis of at least so many bytes is done; it may exceed them by a part of its
            last token. None means no limit.
    """

    tokens: int
    bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("bytes", self.bytes)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value!r}: must be at least 1")


@dataclasses.dataclass(frozen=True)
class Events:
    """What can come next, in the order of the columns that the states return.

    Attributes:
        ids: vocabulary entries.
        bytes: how many bytes each stands for; 0 for the end.
        end: the entry that ends a text.
    """

    ids: Int[np.ndarray, " events"]
    bytes: Int[np.ndarray, " events"]
    end: int


def search(
    states: TokenStates,
    prompts: Sequence[Int[np.ndarray, " tokens"]],
    events: Events,
    settings: BeamSearch,
    limits: Limits,
) -> list[list[Hypothesis]]:
    """Returns the hypotheses of each prompt, at most `settings.width`, the best score first.

    Each group gives its best hypotheses. They are fewer than its width only where fewer texts have
    a probability above 0 within the limits. Ties are broken by the order in which hypotheses are
    found: by that of the hypothesis they continue, then by that of `events`.

    Args:
        states: of the model, with `len(prompts) * settings.width` rows.
        prompts: the tokens that each text begins with, at least one (the document start).
        events: the columns of the states' probabilities.
        settings: how the beam is searched.
        limits: where hypotheses are done that do not end by themselves.
    """
    size = settings.width // settings.groups
    starts = np.arange(len(prompts)) * settings.width
    found = states.start(prompts, starts)
    beams = [
        [
            _Group(int(start) + group * size, size, group, int(start), settings, limits, events)
            for group in range(settings.groups)
        ]
        for start in starts
    ]
    # Each group reads the probabilities of its live hypotheses; at first all read the prompt's.
    place = {int(start): index for index, start in enumerate(starts)}
    while True:
        logs, entropies = _logs_and_entropies(found)
        sources: list[int] = []
        targets: list[int] = []
        tokens: list[int] = []
        for groups in beams:
            chosen = np.zeros(len(events.ids))
            for group in groups:
                if not group.live:
                    continue
                rows = [place[row] for row in group.rows]
                parents = group.rows
                continued = group.step(logs[rows], entropies[rows], chosen)
                sources += [parents[parent] for parent in continued]
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
        done: the best of those that ended or reached a limit, the best first.
    """

    def __init__(
        self,
        first_row: int,
        width: int,
        number: int,
        prompt_row: int,
        settings: BeamSearch,
        limits: Limits,
        events: Events,
    ):
        self.live, self.rows = [Hypothesis(group=number)], [prompt_row]
        self.done: list[Hypothesis] = []
        self._log_probability, self._bytes = np.zeros(1), np.zeros(1, np.int64)
        self._first_row, self._width = first_row, width
        self._settings, self._limits, self._events = settings, limits, events

    def step(
        self,
        logs: Float[np.ndarray, "live events"],
        entropies: Float[np.ndarray, " live"],
        chosen: Float[np.ndarray, " events"],
    ) -> list[int]:
        """Continues the hypotheses by a token and says which one each live one continues.

        Args:
            logs: log-probabilities of the next token of each live hypothesis.
            entropies: their entropies.
            chosen: how often earlier groups chose each event at this step; this group's choices are
                added to it.
        """
        events, settings, limits = self._events, self._settings, self._limits
        sums = self._log_probability[:, None] + logs
        length = len(self.live[0].tokens) + 1
        live: list[Hypothesis] = []
        parents: list[int] = []
        log_probability: list[float] = []
        total_bytes: list[int] = []
        # Each hypothesis has one end, so that twice the width leaves enough that go on.
        ranked = best((sums - settings.diversity * chosen).reshape(-1), 2 * self._width)
        for rank, index in enumerate(ranked):
            parent, event = divmod(int(index), sums.shape[1])
            token, held = int(events.ids[event]), self._bytes[parent] + events.bytes[event]
            ended = token == events.end
            full = length == limits.tokens or (limits.bytes is not None and held >= limits.bytes)
            if (ended or full) and rank >= self._width:
                continue
            if not (ended or full) and len(live) == self._width:
                continue
            before = self.live[parent]
            new = dataclasses.replace(
                before,
                tokens=(*before.tokens, token),
                log_probabilities=(*before.log_probabilities, float(logs[parent, event])),
                entropies=(*before.entropies, float(entropies[parent])),
                finish_reason="end" if ended else "length" if full else "",
                score=settings.score(float(sums[parent, event]), length),
            )
            chosen[event] += 1
            if ended or full:
                self.done.append(new)
            else:
                live.append(new)
                parents.append(parent)
                log_probability.append(sums[parent, event])
                total_bytes.append(held)
        self.done.sort(key=lambda each: -each.score)
        del self.done[self._width :]
        self._log_probability, self._bytes = np.array(log_probability), np.array(total_bytes)
        self.live = live if self._can_improve() else []
        self.rows = list(range(self._first_row, self._first_row + len(self.live)))
        return parents[: len(self.live)]

    def _can_improve(self) -> bool:
        """Whether a continuation of a live hypothesis can displace one that is done."""
        if not len(self._log_probability) or len(self.done) < self._width:
            return True
        # Log-probabilities only fall, and a longer text divides by more.
        longest = min(filter(None, [self._limits.tokens, self._limits.bytes]))
        most = self._settings.score(self._log_probability.max(), longest)
        return bool(most > self.done[-1].score)


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
