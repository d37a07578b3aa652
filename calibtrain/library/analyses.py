"""What a run's generations show of it, as objects: entropy, memory, typicality, and traces."""

import html
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from calibtrain.errors import UserError
from calibtrain.library.heads import Head
from calibtrain.library.progress import Callback, Shown, counted, said, shown
from calibtrain.library.result import Figure
from calibtrain.library.table import Table
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord
from calibtrain.storage.places import place

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from calibtrain.analysis.tracing import Tracing


class Analysis:
    """An analysis of a run: a table with a row per kind of text or length of memory.

    Attributes:
        path: the file that holds it; None where the run may only be read.
    """

    COLUMNS: ClassVar[tuple[str, ...]]
    """Those that its repr shows."""
    record: EntropyRecord | MemoryRecord | TypicalityRecord
    path: Path | None

    @cached_property
    def table(self) -> Table:
        """A row for each row of the record; a figure's interval is in FIGURE_lower and _upper."""
        return Table.of_rows(dict(_flat(row.document())) for row in self.record.rows)

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know, one sentence each."""
        return list(self.record.get("notes") or ())

    def to_arrow(self) -> "pyarrow.Table":
        """Returns `table` as Arrow."""
        return self.table.to_arrow()

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns `table` as a data frame.

        Raises:
            UserError: where pandas is not installed.
        """
        return self.table.to_pandas()

    def _shown(self) -> Table:
        there = [name for name in self.COLUMNS if name in self.table]
        return Table(self.table.to_arrow().select(there))

    def _title(self) -> str:
        of = self.record
        return (
            f"{type(self).__name__} of {of.run}: {of.corpus}-{of.split}, {of.documents} documents"
        )

    def __repr__(self) -> str:
        rows = repr(self._shown()).partition("\n")[2]
        return f"{self._title()}\n{rows}"

    def _repr_html_(self) -> str:
        return f"{html.escape(self._title())}{self._shown()._repr_html_()}"


class EntropyAnalysis(Analysis):
    """The entropy rate of generations against the cross entropy of text (docs/entropy.md).

    Attributes:
        record: what analysis/entropy-*.json holds; `ct.figures.entropy_by_position` takes it.
    """

    COLUMNS = ("name", "texts", "bits_per_byte", "rise", "excess_bits_per_byte", "amplification")

    record: EntropyRecord

    def __init__(self, record: EntropyRecord, path: Path | None):
        self.record, self.path = record, path

    @property
    def excess(self) -> Figure | None:
        """Entropy rate of ancestral generations less the cross entropy of text."""
        for row in self.record.rows:
            if row.name == "ancestral" and row.excess_bits_per_byte is not None:
                found = row.excess_bits_per_byte
                return Figure(found.estimate, found.lower, found.upper, "bits/byte")
        return None

    @cached_property
    def positions(self) -> Table:
        """A row for each kind of text and bin of bytes after the prefix."""
        return Table.of_rows(
            {"name": row.name, **dict(_flat(each.document()))}
            for row in self.record.rows
            for each in row.positions
        )


class MemoryAnalysis(Analysis):
    """The bound on how far back generations reach (docs/entropy.md).

    Attributes:
        record: what analysis/memory-*.json holds; `ct.figures.memory_bound` takes several.
    """

    COLUMNS = ("tokens", "bits_per_byte", "bits_per_byte_lower", "bits_per_byte_upper")

    record: MemoryRecord

    def __init__(self, record: MemoryRecord, path: Path | None):
        self.record, self.path = record, path


class TypicalityAnalysis(Analysis):
    """Information minus entropy of human and generated text (docs/entropy.md).

    Attributes:
        record: what analysis/typicality-*.json holds; `ct.figures.typicality` takes it.
    """

    COLUMNS = ("name", "texts", "deviation", "deviation_lower", "deviation_upper", "spread")

    record: TypicalityRecord

    def __init__(self, record: TypicalityRecord, path: Path | None):
        self.record, self.path = record, path

    @cached_property
    def correlations(self) -> Table:
        """A row per measure of quality: Spearman's rank correlations with the difference."""
        return Table.of_rows(dict(_flat(row.document())) for row in self.record.correlations)


class FittedLookahead:
    """A head that predicts the entropy of the step after each token (docs/entropy.md).

    `run.generate(lookahead=0.5, lookahead_head=head.name)` draws with it.

    Attributes:
        name: by which the run knows it.
        about: what `calibtrain lookahead --json` prints.
        path: the file that holds it; None where the run may only be read.
    """

    def __init__(self, name: str, about: Mapping[str, Any], path: Path | None):
        self.name, self.about, self.path = name, about, path

    @property
    def r_squared(self) -> Figure:
        """Share of the variance between positions of test text that it predicts."""
        found = self.about["r_squared"]
        return Figure(found["estimate"], found["lower"], found["upper"], "")

    @property
    def within(self) -> float:
        """Correlation between the candidates of a position, which is what bends a distribution."""
        return self.about["within"]

    def __repr__(self) -> str:
        return (
            f"<FittedLookahead {self.name}: R² {self.r_squared.value:.3f} on test text, "
            f"correlation {self.within:.3f} between candidates of one position>"
        )


class Traced:
    """A text with its trace and alarms (docs/entropy-tracer.md).

    Attributes:
        text: the characters that were generated or given.
        finish_reason: why a generated text ended; given or interrupted for one that was given.
        about: what `calibtrain trace --json` prints.
        path: the file that holds the trace; None where it is not kept.
    """

    def __init__(self, found: "Tracing"):
        """Args:
        found: what was traced.
        """
        self.about = found.to_dict()
        self.text: str = self.about["text"]
        self.finish_reason, self.path = found.finish_reason, found.path
        self._trace = found.trace

    @cached_property
    def trace(self) -> Table:
        """One row per token, the prompt's too (docs/generation.md lists the columns)."""
        from calibtrain.runs.traces import TraceRecord

        return Table(TraceRecord.of([self._trace], {}).table)

    @property
    def alarms(self) -> Table:
        """One row per alarm, in the order in which they were given."""
        return Table.of_rows(self.about["alarms"])

    def to_arrow(self) -> "pyarrow.Table":
        """Returns `trace` as Arrow."""
        return self.trace.to_arrow()

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns `trace` as a data frame.

        Raises:
            UserError: where pandas is not installed.
        """
        return self.trace.to_pandas()

    def __repr__(self) -> str:
        about, size = self.about, max(1, self.about["bytes"])
        rates = (about["information_bits"] / size, about["entropy_bits"] / size)
        return (
            f"<Traced ({self.finish_reason}, {about['bytes']:,} bytes): surprise {rates[0]:.3f}, "
            f"entropy {rates[1]:.3f} bits/byte, {len(about['alarms'])} alarms>"
        )


class Analysing:
    """The analyses that a run can be asked for: `Run` has them.

    Attributes:
        folder: where the run is.
    """

    folder: Path

    def entropy(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        calibrate: str = "both",
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> EntropyAnalysis:
        """Compares the entropy rate of generations with the cross entropy of text.

        The result is also written into the run's `analysis/`, as `calibtrain entropy` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            calibrate: what is fitted and measured too: none, temperature, look-ahead or both.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, samples, prefix, reference, positions, width, seed, fit_bytes,
                fit_positions, candidates (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, documents that are too short, and as
                `evaluate` does.
        """
        from calibtrain.analysis.entropy import Protocol, measure_entropy

        with shown(progress, "entropy") as tell:
            found = measure_entropy(
                self.folder,
                corpus=corpus,
                split=split,
                head=_name(head),
                protocol=_protocol(Protocol, "entropy", protocol),
                calibrate=calibrate,
                progress=_Counted(tell),
                say=said,
            )
        return EntropyAnalysis(*found)

    def memory(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        limited: "str | Path | Analysing | None" = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> MemoryAnalysis:
        """Bounds how much generations depend on what is more than 1, 2, 4, ... tokens back.

        The result is also written into the run's `analysis/`, as `calibtrain memory` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            limited: a run with a short context and the same tokenizer, to compare with.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, prefix, generated, positions, longest, seed (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, and as `evaluate` does.
        """
        from calibtrain.analysis.memory import Protocol, measure_memory

        other = limited.folder if isinstance(limited, Analysing) else limited
        with shown(progress, "memory") as tell:
            found = measure_memory(
                self.folder,
                limited=None if other is None else place(other),
                corpus=corpus,
                split=split,
                head=_name(head),
                protocol=_protocol(Protocol, "memory", protocol),
                progress=_Counted(tell),
                say=said,
            )
        return MemoryAnalysis(*found)

    def typicality(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        scores: str | Path | None = None,
        judge: "str | Path | Analysing | None" = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> TypicalityAnalysis:
        """Sets information minus entropy of human, sampled, greedy and beam text against quality.

        The result is also written into the run's `analysis/`, as `calibtrain typicality` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            scores: a file with columns text and score.
            judge: a run, best a larger one, whose bits per byte judge the texts.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, prefix, generated, beam, top_p, typical, seed (docs/entropy.md).

        Raises:
            UserError: for a number or file that is not allowed, and as `evaluate` does.
        """
        from calibtrain.analysis.typicality import Protocol, measure_typicality

        other = judge.folder if isinstance(judge, Analysing) else judge
        with shown(progress, "typicality") as tell:
            found = measure_typicality(
                self.folder,
                scores=None if scores is None else place(scores),
                judge=None if other is None else place(other),
                corpus=corpus,
                split=split,
                head=_name(head),
                protocol=_protocol(Protocol, "typicality", protocol),
                progress=_Counted(tell),
                say=said,
            )
        return TypicalityAnalysis(*found)

    def fit_lookahead(
        self,
        name: str = "default",
        *,
        head: str | Head | None = None,
        bytes: int | None = None,
        replace: bool = False,
        progress: Shown = "auto",
        **recipe: int,
    ) -> FittedLookahead:
        """Fits a head that predicts what a look-ahead would read, as `calibtrain lookahead` does.

        Args:
            name: of the head from then on.
            head: a temperature head that was fitted to the run, or its name.
            bytes: about how many bytes of validation text, and of test text, are read; None means
                all.
            replace: whether a head of that name may be replaced.
            progress: a callback; "auto" shows a bar, None nothing.
            recipe: rank, steps, candidates, positions, seed (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, a name that is taken, and as `evaluate`
                does.
        """
        from calibtrain.analysis.lookahead_head_fit import Recipe, fit_lookahead_head

        with shown(progress, "fitting a look-ahead") as tell:
            about, path = fit_lookahead_head(
                self.folder,
                name=name,
                replace=replace,
                head=_name(head),
                limit=bytes,
                recipe=_protocol(Recipe, "fit_lookahead", recipe),
                progress=_Counted(tell),
                say=said,
            )
        return FittedLookahead(name, about, path)

    def trace(
        self,
        prompt: str | bytes = "",
        *,
        text: str | bytes | None = None,
        head: str | Head | None = None,
        band: bool = True,
        corpus: str | None = None,
        false_alarms: float | None = None,
        save: str | None = None,
        replace: bool = False,
        sampling: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> Traced:
        """Traces a text: generated from a prompt, or given; with alarms, as `calibtrain trace`.

        Args:
            prompt: what a generated text begins with.
            text: is traced as it is, in place of generating.
            head: a head that was fitted to the run, or its name.
            band: whether it is compared with held-out text.
            corpus: whose validation split gives the band; None means the run's own.
            false_alarms: per 1,000 bytes of held-out text, of each test; None means 0.1.
            save: the name under which the trace is kept in the run's `traces/`.
            replace: whether a trace of that name may be replaced.
            sampling: how tokens are chosen, by the names of `generate`: `{"top_p": 0.9}`.
            limits: seed, max_bytes, max_tokens, stop and loop_stop, as for `generate`.

        Raises:
            UserError: for what is not allowed, and for a run, head or name that cannot be had.
        """
        from calibtrain.analysis.tracing import trace_run
        from calibtrain.generation.samplers import Sampling

        if text is not None and (prompt or sampling or limits):
            raise UserError(
                "text: is traced as it is; leave out prompt, sampling and the limits of generating"
            )
        if unknown := set(limits) - {"seed", "max_bytes", "max_tokens", "stop", "loop_stop"}:
            raise UserError(f"{sorted(unknown)[0]}: is not a setting of trace")
        try:
            found = trace_run(
                self.folder,
                prompt=prompt,
                text=text.encode() if isinstance(text, str) else text,
                head=_name(head),
                sampling=Sampling(**(sampling or {})),
                save=save,
                replace=replace,
                rate=false_alarms,
                corpus=corpus,
                reference=band,
                say=said,
                **limits,
            )
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from None
        for note in found.notes:
            said(f"note: {note}")
        return Traced(found)


class _Counted:
    """Tells a callback how much of a stage is done."""

    def __init__(self, tell: Callback):
        self._count = counted(tell)

    def __call__(self, done: int, total: int) -> None:
        """Tells it."""
        self._count(done, total)

    def stage(self, text: str) -> None:
        """A stage is begun; the count begins anew by itself."""


def _name(head: str | Head | None) -> str | None:
    return head.name if isinstance(head, Head) else head


def _protocol(kind: Any, command: str, given: Mapping[str, int]) -> Any:
    """Returns the protocol with what is given.

    Raises:
        UserError: for a name that it does not have.
    """
    known = kind.__dataclass_fields__
    if unknown := set(given) - set(known):
        raise UserError(
            f"{sorted(unknown)[0]}: is not a setting of {command}; there are {', '.join(known)}"
        )
    return kind(**given)


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the single values of a row; the ends of a figure's interval beside its estimate."""
    for key, value in row.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and "estimate" in value:
            yield name, value["estimate"]
            yield f"{name}_lower", value.get("lower")
            yield f"{name}_upper", value.get("upper")
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}_")
        elif not isinstance(value, list):
            yield name, value
