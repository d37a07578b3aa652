"""A run's text, traced with its reference band and alarms: generated, or given."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from calibtrain.analysis.alarms import Alarm
from calibtrain.analysis.band import QUANTILES, Band, band_of_run
from calibtrain.analysis.watch import RATE, TESTS, Watch
from calibtrain.generation.given import trace_of_ids
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.loops import periods
from calibtrain.generation.of_run import generate_and_keep, keep_trace, trace_file
from calibtrain.generation.samplers import ANCESTRAL, Sampling
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.runs.traces import SOURCES, TokenTrace, TraceRecord
from calibtrain.storage.compiled import use_compiled_programs

_STRIDES = 16  # of a part of a given text
_GENERATED = SOURCES.index("generated")

OnRows = Callable[[TokenTrace, int, Sequence[Alarm]], None]
"""Is told the trace so far, from which token on it is new, and the alarms of the new tokens."""


@dataclasses.dataclass(frozen=True)
class Tracing:
    """A text that was traced.

    Attributes:
        trace: one row per token.
        alarms: in the order in which they were given.
        band: of held-out text; None where there is none.
        about: run, step, tokenizer, sampling and what the alarms state.
        finish_reason: why a generated text ended (docs/generation.md); of a given text, given, or
            interrupted.
        path: the file that holds the trace; None where it is not kept.
        seconds: that tracing took, programs compiled included.
        notes: what is to be said of a prompt that was not seen whole.
    """

    trace: TokenTrace
    alarms: tuple[Alarm, ...]
    band: Band | None
    about: dict[str, Any]
    finish_reason: str
    path: Path | None
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> np.ndarray:
        """Which tokens were generated or given, and not of a prompt."""
        return np.asarray(self.trace.source) != SOURCES.index("prompt")

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        own = self.read
        data = b"".join(p for p, kept in zip(self.trace.pieces, own, strict=True) if kept)
        bits = -np.asarray(self.trace.log_probability, np.float64)[own].sum() / math.log(2)
        entropy = np.asarray(self.trace.entropy, np.float64)[own].sum() / math.log(2)
        band = None
        if self.band is not None:
            ranges = [dataclasses.asdict(each) for each in self.band.ranges]
            band = {**self.band.about, "quantiles": QUANTILES, "ranges": ranges}
        return {
            **self.about,
            "trace": None if self.path is None else str(self.path),
            "text": data.decode(errors="replace"),
            "finish_reason": self.finish_reason,
            "tokens": int(own.sum()),
            "bytes": len(data),
            "information_bits": float(bits),
            "entropy_bits": float(entropy),
            "alarms": [alarm._asdict() for alarm in self.alarms],
            "band": band,
        }


def trace_run(
    path: Path,
    *,
    prompt: str | bytes = b"",
    text: bytes | None = None,
    head: str | None = None,
    seed: int = 0,
    sampling: Sampling = ANCESTRAL,
    save: str | None = None,
    replace: bool = False,
    rate: float | None = None,
    tests: Sequence[str] = TESTS,
    corpus: str | None = None,
    reference: bool = True,
    on_band: Callable[[Band | None], None] = lambda band: None,
    on_rows: OnRows = lambda trace, first, alarms: None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
    **limits: Any,
) -> Tracing:
    """Returns a text with its trace and alarms: generated from a prompt, or given.

    Args:
        path: the run folder.
        prompt: what a generated text begins with; bytes may end inside a character.
        text: is traced as it is, in place of generating; any bytes that the vocabulary can spell.
        head: the name of a fitted head that divides the logits.
        seed: of the draws.
        sampling: how tokens are chosen.
        save: the name under which the trace is kept in the run's `traces/`.
        replace: whether a trace of that name may be replaced.
        rate: false alarms per 1,000 bytes of held-out text, of each test; None means `RATE`, or
            as few as the held-out text can tell.
        tests: cusum, e-detector or both.
        corpus: whose validation split gives the band; None means the run's own.
        reference: whether there is a band; without one, exact repetition alone gives alarms.
        on_band: is told the band, before the first token.
        on_rows: is told of tokens and alarms as they come.
        stopped: is asked now and then whether to end at once, with what there is.
        say: is told in words what the user must know.
        limits: as for `generation.generate`.

    Raises:
        UserError: where the run, its head, its held-out text or the name cannot be had.
    """
    with opened(path, temperature=head, say=say) as saved:
        target = trace_file(saved, save, replace)
        use_compiled_programs(saved.cache)
        model = LanguageModel.of(saved)
        band = None
        if reference:
            band = band_of_run(saved, model, corpus=corpus, stopped=stopped, say=say)
        if rate is None:
            rate = RATE if band is None else max(RATE, band.least_rate)
            if rate > RATE:
                say(
                    f"note: held-out text is short, so that alarms are tuned to {rate:g} false "
                    f"ones per 1,000 bytes and not to {RATE:g}"
                )
        watch = Watch(band, rate, tests)
        on_band(band)
        stated = {"false_alarms_per_1000_bytes": rate, "tests": list(tests) if band else []}
        if text is not None:
            return _given(saved, model, text, watch, stated, on_rows, stopped, target)
        begun = False

        def follow(number: int, trace: TokenTrace, first: int) -> None:
            nonlocal begun
            first = first if begun else 0
            begun = True
            on_rows(trace, first, watch.read(trace, first))

        found = generate_and_keep(
            saved,
            model,
            [prompt],
            target,
            seed=seed,
            sampling=sampling,
            on_trace=follow,
            stopped=stopped,
            **limits,
        )
    (only,) = found.texts
    return Tracing(
        only.trace,
        tuple(watch.alarms),
        band,
        {**found.record.about, **stated},
        only.finish_reason,
        found.path,
        found.seconds,
        tuple(found.notes),
    )


def _given(
    saved: SavedRun,
    model: LanguageModel,
    text: bytes,
    watch: Watch,
    stated: dict[str, Any],
    on_rows: OnRows,
    stopped: Callable[[], bool],
    target: Path | None,
) -> Tracing:
    """Returns the trace of a given text, and keeps it."""
    began = time.perf_counter()
    ids = model.prompt_ids(text)
    trace, first = trace_of_ids(model, [ids[:1]])[0], 0
    reason = "given"
    for trace in growing_trace(model, ids):
        on_rows(trace, first, watch.read(trace, first))
        first = len(trace)
        if stopped() and first < len(ids) - 1:
            reason = "interrupted"
            break
    about = {**model.about, "context": model.context}
    kept = keep_trace(saved, TraceRecord.of([trace], about), target)
    seconds = time.perf_counter() - began
    return Tracing(
        trace, tuple(watch.alarms), watch.band, {**about, **stated}, reason, kept, seconds
    )


def growing_trace(model: LanguageModel, ids: Int[np.ndarray, " tokens"]) -> Iterator[TokenTrace]:
    """Yields the trace of a text again and again, longer each time; the last is `trace_of_ids`'.

    A part begins where a window does, and its first tokens are read for the sake of those that
    follow.

    Args:
        model: what is asked.
        ids: of the text, the document start first.
    """
    stride = max(1, model.context // 2)
    known = model.context - stride  # rows of a part that the part before has given
    parts: list[TokenTrace] = []
    begin, done = 0, 0
    while done < len(ids) - 1:
        end = min(len(ids), begin + _STRIDES * stride + known + 1)
        (part,) = trace_of_ids(model, [ids[begin:end]])
        parts.append(_from(part, done - begin))
        begin, done = begin + _STRIDES * stride, end - 1
        yield _joined(parts, ids[1 : done + 1])


_COLUMNS = (
    "source",
    "log_probability",
    "sampling_log_probability",
    "entropy",
    "confidence",
    "rank",
    "alternatives",
    "alternative_log_probability",
    "temperature",
)


def _from(trace: TokenTrace, first: int) -> TokenTrace:
    cut = {name: getattr(trace, name)[first:] for name in ("tokens", "pieces", "repeats")}
    return dataclasses.replace(
        trace, **cut, **{name: getattr(trace, name)[first:] for name in _COLUMNS}
    )


def _joined(parts: Sequence[TokenTrace], ids: Int[np.ndarray, " tokens"]) -> TokenTrace:
    return TokenTrace(
        text=0,
        tokens=np.asarray(ids, np.int32),
        pieces=[piece for part in parts for piece in part.pieces],
        repeats=periods(ids),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS},
    )
