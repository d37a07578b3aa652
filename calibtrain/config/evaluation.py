"""What is measured of a run while it trains and at its end, and on how much text."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from calibtrain.config.section import Cadence, Count, Section

Event = Literal["token", "byte", "word"]


class EventBytesConfig(Section):
    """How much of the test split is scored by events of text, for each kind of them."""

    byte: Count | None = 16_384
    """Bytes of text that are scored byte by byte, in stretches of many documents; null means the
    whole split."""
    word: Count | None = 16_384
    """Bytes of text that are scored word by word, likewise."""


class EvaluationConfig(Section):
    """Evaluations of calibration and entropy, during training and at its end."""

    times: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Evaluations per run, evenly spaced, the last one at the end."""
    every: Cadence | None = None
    """Steps between two evaluations, instead of `times`; the last one is at the end."""
    bytes: Count | None = 65_536
    """Bytes of text that an evaluation during training scores, in whole documents, about; null
    means the whole split."""
    final_bytes: Count | None = None
    """Bytes of text that each final evaluation scores, about; null means the whole split."""
    final_splits: tuple[Literal["train", "validation", "test"], ...] = ("validation", "test")
    """Splits evaluated at the end."""
    events: tuple[Event, ...] = ("token",)
    """What is predicted in final evaluations: tokens, on every final split; and bytes or words, the
    same events for every vocabulary, on the test split. An ablation's default is [token, byte];
    [token] turns bytes off."""
    event_bytes: EventBytesConfig = EventBytesConfig()
    rows: Annotated[int, Field(ge=1, le=1_048_576)] = 16
    """Windows per batch."""
    bins: Annotated[int, Field(ge=1, le=480)] = 15
    """Equal-width bins of the ECE and of the reliability table; a divisor of 480."""

    @field_validator("events")
    @classmethod
    def _tokens_are_measured(cls, events: tuple[Event, ...]) -> tuple[Event, ...]:
        if "token" not in events or len(set(events)) < len(events):
            raise ValueError(
                f"[{', '.join(events)}] must hold token, and each of token, byte, word at most once"
            )
        return events

    @property
    def text_events(self) -> tuple[Event, ...]:
        """The events other than tokens, which are measured on the test split alone."""
        if "test" not in self.final_splits:
            return ()
        return tuple(event for event in self.events if event != "token")

    @field_validator("bins")
    @classmethod
    def _bins_are_cells(cls, bins: int) -> int:
        if 480 % bins:  # a bin is made of whole cells of the histogram that is kept
            near = sorted((n for n in range(1, 481) if 480 % n == 0), key=lambda n: abs(n - bins))
            raise ValueError(f"{bins} does not divide 480; near it: {near[0]}, {near[1]}, or 15")
        return bins
