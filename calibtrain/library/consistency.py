"""How far samples of a prompt agree, and how well that tells right answers from wrong ones."""

import html
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from calibtrain.library.table import Table

if TYPE_CHECKING:
    from calibtrain.analysis.consistency_of_run import Measured

_MEASURES = ("agreement", "held_out", "entropy", "entropy_by_samples", "fsd")


class Consistency:
    """How far samples of one prompt agree (docs/consistency.md).

    A measure is None where no sample has an answer.

    Attributes:
        document: what `calibtrain consistency --json` prints; `ct.figures.sample_agreement` and
            `ct.figures.token_agreement` draw it.
        texts: the samples.
        answer: the most frequent one; None where there is none.
        agreement, held_out, entropy, entropy_by_samples, fsd: the measures of answers, 0 to 1.
    """

    def __init__(self, found: "Measured"):
        """Args:
        found: what was measured.
        """
        self.document: Mapping[str, Any] = found.to_dict()
        self.texts = tuple(each.text for each in found.consistency.samples)
        self.answer: str | None = found.consistency.answer
        counts = found.consistency.counts
        self.agreement, self.held_out, self.fsd = counts.agreement, counts.held_out, counts.fsd
        self.entropy, self.entropy_by_samples = counts.entropy, counts.entropy_by_samples
        self._similarity = found.consistency.similarity

    @classmethod
    def of(cls, texts: Iterable[str], **asked: Any) -> "Consistency":
        """Returns how far texts agree that any model gave.

        Args:
            texts: one per sample; an empty one has no answer.
            asked: extract, similarities and seed, as for `Run.consistency`.

        Raises:
            UserError: without texts, and for what is not allowed.

        Example:
            >>> found = Consistency.of(["Rome", "rome.", "Oslo", ""], similarities=["jaccard"])
            >>> found.answer, found.agreement, found.fsd
            ('rome', 0.5, 0.25)
        """
        from calibtrain.analysis.consistency_of_run import consistency_of_answers

        return cls(consistency_of_answers(list(texts), **asked))

    @property
    def answers(self) -> Table:
        """A row per answer, the most frequent first: answer and samples."""
        return Table.of_rows(self.document["answers"])

    @property
    def samples(self) -> Table:
        """A row per sample: text, answer, why it ended, tokens, bytes, information in bits."""
        return Table.of_rows(self.document["samples"])

    @property
    def similarity(self) -> Table:
        """A row per similarity: its name, degree, eccentricity and eigenvalue."""
        return Table.of_rows(
            {"similarity": name, **{key: own[key] for key in _UNCERTAINTIES}}
            for name, own in self.document["similarity"].items()
        )

    @property
    def matrix(self) -> Float[np.ndarray, "samples samples"]:
        """How similar each two texts are by the first similarity, from 0 to 1."""
        first: Float[np.ndarray, "samples samples"] = next(iter(self._similarity.values())).matrix
        return first

    def __len__(self) -> int:
        return len(self.texts)

    def _lines(self) -> list[str]:
        without = self.document["without_answer"]
        lines = [f"{len(self)} samples, {without} without an answer"]
        lines += [
            f"{name}: {'undefined' if value is None else f'{value:.3f}'}"
            for name, value in ((name, getattr(self, name)) for name in _MEASURES)
        ]
        if self.answer is not None:
            lines.append(f"answer: {self.answer[:_WIDEST]!r}")
        return lines

    def __repr__(self) -> str:
        return f"<Consistency {(chr(10) + '  ').join(self._lines())}>"

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, self._lines()))


_UNCERTAINTIES = ("degree", "eccentricity", "eigenvalue")
_WIDEST = 60


class QuestionConsistency:
    """How well each measure tells right answers from wrong ones (docs/consistency.md).

    Attributes:
        document: what `calibtrain consistency --questions FILE --json` prints.
        questions: how many were asked.
        undefined: of them, those of which no sample has an answer.
        accuracy: share of all questions whose most frequent answer is right.
    """

    COLUMNS: Sequence[str] = ("measure", "samples", "brier", "ece", "area_under_roc")
    """Those that its repr shows, for the largest number of samples."""

    def __init__(self, document: Mapping[str, Any]):
        """Args:
        document: what was measured.
        """
        self.document = document
        self.questions: int = document["questions"]
        self.undefined: int = document["undefined"]
        self.accuracy: float = document["accuracy"]["estimate"]

    @cached_property
    def table(self) -> Table:
        """A row for each measure and number of samples; ends of intervals in FIGURE_lower, _upper.

        A figure is missing where it is not defined: Brier score and ECE of a measure that is not
        a probability, AUROC where all answers are right, or all wrong.
        """
        return Table.of_rows(map(_spread, self.document["figures"]))

    @property
    def rows(self) -> Table:
        """A row per question: its answer, whether it is right, and the confidence by measure."""
        return Table.of_rows(
            {
                **{name: row[name] for name in ("question", "group", "answer", "correct")},
                **(row["confidence"] or {}),
            }
            for row in self.document["rows"]
        )

    def __repr__(self) -> str:
        last = [row for row in self.document["figures"] if row["samples"] == self._samples]
        shown = Table.of_rows({key: _spread(row)[key] for key in self.COLUMNS} for row in last)
        lines = repr(shown).partition("\n")[2] if last else "no question has an answer"
        return (
            f"QuestionConsistency: {self.questions} questions, {self._samples} samples each, "
            f"accuracy {self.accuracy:.3f}, {self.undefined} without any answer\n{lines}"
        )

    @property
    def _samples(self) -> int:
        found: int = self.document["samples"]
        return found


def _spread(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row in which the ends of a figure's interval stand beside its estimate."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("measure", "samples", "questions"):
            found[key] = value
            continue
        known = value or {}
        found |= {
            key: known.get("estimate"),
            f"{key}_lower": known.get("lower"),
            f"{key}_upper": known.get("upper"),
        }
    return found
