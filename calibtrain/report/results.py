"""What a report is made from: the files of a run or a study as small frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibtrain.report.head_comparison import HeadComparison

Settings = Mapping[str, Any]
STRATA = ("frequency_deciles", "positions", "entropy_bands", "groups")
"""The tables that cut the events of an evaluation into groups."""


@dataclass(frozen=True)
class Bin:
    """One row of a reliability table; confidence and accuracy are None when it holds no token."""

    lower: float
    upper: float
    tokens: float
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Interval:
    """A 95 % interval over documents, and how it was made."""

    lower: float
    upper: float
    method: str


@dataclass(frozen=True)
class Row:
    """One group of a stratum: its figures, and the intervals of those that have one."""

    label: str
    tokens: float
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True)
class SmoothPoint:
    """A point of the kernel-smoothed reliability curve; accuracy is None where nothing is near."""

    confidence: float
    accuracy: float | None
    density: float


@dataclass(frozen=True)
class Evaluation:
    """A run scored on a split: the result keys in `values`, and the tables behind them.

    What files of an earlier version do not hold is empty.
    """

    corpus: str
    split: str
    step: int
    documents: int
    bins: int
    event: str
    """What is predicted: token, byte, word."""
    temperature: float | str
    """Divided the logits; or the name of the head that supplied it."""
    limit: int | None
    """Bytes of text that were asked for, about; None: the whole split."""
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    bounds: Mapping[str, float]
    signatures: Mapping[str, str]
    reliability: tuple[Bin, ...]
    smooth_reliability: tuple[SmoothPoint, ...]
    risk_coverage: tuple[tuple[float, float], ...]
    """(coverage, risk)."""
    strata: Mapping[str, tuple[Row, ...]]
    """Rows by the name of the stratum, for those of `STRATA` that the file holds."""
    raw: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know, as the file says it."""
        found = self.raw.get("notes")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def tempered(self) -> str:
        """The temperature in words, empty where it changes nothing."""
        return "" if self.temperature == 1 else f"T = {self.temperature}"


@dataclass(frozen=True)
class Measured:
    """One line of metrics.jsonl: where training stood, and what was measured there."""

    step: int
    tokens: float | None
    bytes: float | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Split:
    """Size of one split of a corpus."""

    documents: int
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """Where the text came from. `entropy_bits_per_byte` is exact, for synthetic sources only."""

    name: str
    source: str
    version: str
    content_hash: str
    splits: Mapping[str, Split]
    entropy_bits_per_byte: float | None


@dataclass(frozen=True)
class Tokenizer:
    """Which vocabulary a run used."""

    kind: str
    vocab_size: int
    hash: str
    bytes_per_token: float | None


@dataclass(frozen=True)
class Parameters:
    """Number of parameters, by part."""

    embedding: int
    unembedding: int
    body: int
    total: int


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step as compiled, and what tokens x vocabulary logits would need."""

    parameters: float | None
    optimizer: float | None
    peak_temporary: float | None
    logits: float | None


@dataclass(frozen=True)
class Run:
    """A run folder."""

    name: str
    status: str
    step: int
    steps: int
    version: str
    jax: str
    device: str
    config_hash: str
    corpus: Corpus
    tokenizer: Tokenizer
    context_tokens: int
    parameters: Parameters
    budget: Mapping[str, float]
    memory: Memory
    seconds: float | None
    error: str | None
    """Why it failed, if it did."""
    training: tuple[Measured, ...]
    measured: tuple[Measured, ...]
    evaluations: tuple[Evaluation, ...]
    raw: Mapping[str, Any]
    heads: HeadComparison | None = None
    """Temperature heads side by side, where they were compared."""

    @property
    def main(self) -> Evaluation | None:
        """The evaluation a reader wants first: own corpus, test before validation, the latest.

        It is of tokens, and where there is a choice of the temperature 1.
        """
        order = {"test": 0, "validation": 1}
        return min(
            self.of_tokens,
            key=lambda e: (
                e.corpus != self.corpus.name,
                e.raw.get("corpus_hash", self.corpus.content_hash) != self.corpus.content_hash,
                order.get(e.split, 2),
                e.tempered != "",
                -e.step,
            ),
            default=None,
        )

    @property
    def lost_lines(self) -> str:
        """Says where `metrics.jsonl` has lost training lines; empty where it has not.

        Training writes a line at every multiple of a number of steps, and at the last step.
        """
        if self.status not in ("done", "stopped") or self.step < 1:
            return ""
        found = [line.step for line in self.training]
        every = max(1, found[0] if found else self.steps)
        at_end = self.step == self.steps and self.steps % every > 0
        for at in range(self.step // every + at_end):
            wanted = min(every * (at + 1), self.steps)
            if at >= len(found) or found[at] != wanted:
                return (
                    f"metrics.jsonl has lost lines: that of step {wanted:,} is not there; the "
                    "command that made the run writes them again"
                )
        return ""

    @property
    def of_tokens(self) -> tuple[Evaluation, ...]:
        """The evaluations whose events are tokens."""
        return tuple(e for e in self.evaluations if e.event == "token")

    @property
    def by_event(self) -> Mapping[str, tuple[Evaluation, ...]]:
        """The others, by their event."""
        events = dict.fromkeys(e.event for e in self.evaluations if e.event != "token")
        return {name: tuple(e for e in self.evaluations if e.event == name) for name in events}


@dataclass(frozen=True)
class Arm:
    """One arm of a study; `run` is None when it failed before it wrote anything."""

    name: str
    settings: Settings
    status: str
    error: str | None
    vocab_size: int | None
    evaluations: Mapping[str, Mapping[str, float]]
    run: Run | None
    scored: Mapping[str, Evaluation]
    """The evaluation files behind `evaluations`, under the same names."""


@dataclass(frozen=True)
class Summary:
    """Mean and half width of the 95 % interval over the seeds of one combination of settings.

    With one seed there are no half widths.
    """

    settings: Settings
    evaluation: str
    seeds: int
    mean: Mapping[str, float]
    half_width: Mapping[str, float]


@dataclass(frozen=True)
class HeldFixed:
    """One control: the rule, and the spread that was achieved over the arms."""

    quantity: str
    rule: str
    unit: str
    smallest: float | str | None
    largest: float | str | None
    held: bool


@dataclass(frozen=True)
class Study:
    """A study folder.

    `main` names the evaluation that the page is about, empty when nothing was evaluated; `text` is
    ablation.json as it was read, character for character. `evaluations` are of tokens; those of
    other events are `by_event`, the one to show first in front.
    """

    title: str
    version: str
    command: str
    controls: Mapping[str, Any]
    grid: Mapping[str, Any]
    held_fixed: tuple[HeldFixed, ...]
    arms: tuple[Arm, ...]
    summary: tuple[Summary, ...]
    evaluations: tuple[str, ...]
    by_event: Mapping[str, tuple[str, ...]]
    main: str
    text: str

    @property
    def runs(self) -> tuple[Run, ...]:
        """The run of every arm that has one."""
        return tuple(arm.run for arm in self.arms if arm.run is not None)

    @property
    def exact_entropy(self) -> float | None:
        """The exact entropy rate of the text in bits a byte, where every run says the same."""
        found = {run.corpus.entropy_bits_per_byte for run in self.runs}
        return found.pop() if len(found) == 1 else None
