"""What an analysis of a run found, as objects: entropy, memory, typicality, and traces."""

import html
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from calibtrain.library.result import EvaluationResult, Figure
from calibtrain.library.table import Table
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from calibtrain.analysis.lens_of_run import Lens
    from calibtrain.analysis.questions import Asked
    from calibtrain.analysis.tracing import Tracing

Kind = TypeVar("Kind", EntropyRecord, MemoryRecord, TypicalityRecord)


class Analysis(Generic[Kind]):
    """An analysis of a run: a table with a row per kind of text or length of memory.

    Attributes:
        path: the file that holds it; None where the run may only be read.
    """

    COLUMNS: ClassVar[tuple[str, ...]]
    """Those that its repr shows."""

    def __init__(self, record: Kind, path: Path | None):
        """Args:
        record: the file's content.
        path: the file.
        """
        self.record: Kind = record
        self.path = path

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


class EntropyAnalysis(Analysis[EntropyRecord]):
    """The entropy rate of generations against the cross entropy of text (docs/entropy.md).

    Attributes:
        record: what analysis/entropy-*.json holds; `ct.figures.entropy_by_position` takes it.
    """

    COLUMNS = ("name", "texts", "bits_per_byte", "rise", "excess_bits_per_byte", "amplification")

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


class MemoryAnalysis(Analysis[MemoryRecord]):
    """The bound on how far back generations reach (docs/entropy.md).

    Attributes:
        record: what analysis/memory-*.json holds; `ct.figures.memory_bound` takes several.
    """

    COLUMNS = ("tokens", "bits_per_byte", "bits_per_byte_lower", "bits_per_byte_upper")


class TypicalityAnalysis(Analysis[TypicalityRecord]):
    """Information minus entropy of human and generated text (docs/entropy.md).

    Attributes:
        record: what analysis/typicality-*.json holds; `ct.figures.typicality` takes it.
    """

    COLUMNS = ("name", "texts", "deviation", "deviation_lower", "deviation_upper", "spread")

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


class LensAnalysis:
    """What each layer of a run would predict (docs/lens.md).

    Attributes:
        document: what `calibtrain lens --json` prints; `ct.figures.entropy_lens` takes it.
        entropy: of each text, by name of the entropy, an array [layers, tokens] in nats.
        path: the file in the run's `analysis/`; None where the run may only be read.
    """

    def __init__(self, found: "Lens"):
        """Args:
        found: what was seen.
        """
        self.document = found.to_dict()
        self.entropy = [each.entropy for each in found.found]
        self.path = found.path

    @cached_property
    def profiles(self) -> Table:
        """A row for each text and layer: the mean of each entropy over the tokens."""
        return Table.of_rows(
            {
                "text": number,
                **({"label": text["label"]} if "label" in text else {}),
                "layer": layer + 1,
                **{name: values[layer] for name, values in text["profile"].items()},
            }
            for number, text in enumerate(self.document["texts"])
            for layer in range(self.document["layers"])
        )

    @property
    def separation(self) -> Table:
        """A row for each entropy: how well labels are told apart; empty without labels."""
        return Table.of_rows(
            {"entropy": name, **dict(_flat(each))}
            for name, each in self.document["separation"].items()
        )

    def __repr__(self) -> str:
        about = self.document
        return f"<LensAnalysis of {len(about['texts'])} texts, {about['layers']} layers>"


class QuestionAnalysis:
    """What a run answers, and how well it knows (docs/questions.md).

    Attributes:
        document: what `calibtrain qa --json` prints.
        top: the evaluation of the most probable candidate of each question.
        every: that of every candidate.
        record: what analysis/questions-*.json holds; `ct.figures.question_groups` takes it.
        path: that file; None where the run may only be read.
    """

    def __init__(self, found: "Asked"):
        """Args:
        found: what was asked.
        """
        self.document = found.to_dict()
        self.record, self.path = found.record(), found.path
        self.top = EvaluationResult.of(found.top)
        self.every = EvaluationResult.of(found.every)

    @property
    def answers(self) -> Table:
        """A row for each question: what was chosen, how surely, and whether it was right."""
        return Table.of_rows(
            {
                "question": each["question"],
                **({"group": each["group"]} if "group" in each else {}),
                "answer": each["candidates"][each["chosen"]],
                "confidence": each["confidence"][each["chosen"]],
                "correct": each["correct"],
            }
            for each in self.document["answers"]
        )

    @property
    def gaps(self) -> Table:
        """All questions (without a label), then each group: confidence when right and wrong."""
        return Table.of_rows(self.document["gaps"])

    def __repr__(self) -> str:
        ece = [f"{each['ece'].value:.4f}" for each in (self.top, self.every)]
        return (
            f"<QuestionAnalysis of {self.document['questions']} questions: accuracy "
            f"{self.top['accuracy'].value:.3f}, ECE {ece[0]} (top), {ece[1]} (every candidate)>"
        )


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
