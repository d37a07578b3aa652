"""How far the samples of one prompt agree, measured in every way: answers, texts and tokens."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

from calibtrain.analysis.alignment import TokenAgreement, token_agreement, words
from calibtrain.analysis.answers import Extraction
from calibtrain.analysis.consistency import (
    AnswerConsistency,
    Similarity,
    answer_consistency,
    cocoa,
    degree_uncertainty,
    eccentricity,
    eigenvalue_uncertainty,
    similarity_matrix,
)
from calibtrain.generation.similarity import UTILITIES

SIMILARITIES = ("chrf", "jaccard")
"""The similarities that texts are compared by where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A text that was drawn, or given.

    Attributes:
        text: what is compared.
        pieces: its tokens, which are aligned: the bytes of each, or words.
        information_bits: -log2 of its probability; None where that is not known.
        tokens: how many were drawn, the end of text and those of a stop text included.
        finish_reason: why it ended (docs/generation.md); given for a text that was given.
    """

    text: str
    pieces: Sequence[Hashable] = dataclasses.field(repr=False)
    information_bits: float | None = None
    tokens: int | None = None
    finish_reason: str = "given"

    @classmethod
    def given(cls, text: str) -> "Sample":
        """Returns a text that some other model drew; its words are what is aligned."""
        return cls(text, words(text))


@dataclasses.dataclass(frozen=True)
class SimilarityConsistency:
    """How far texts are alike by one similarity.

    Attributes:
        matrix: how similar each two are, from 0 to 1.
        degree, eccentricity, eigenvalue: uncertainties; less is more consistent.
        cocoa: of each sample, in bits; None where the information of samples is not known, or
            there is only one.
    """

    matrix: Similarity
    degree: float
    eccentricity: float
    eigenvalue: float
    cocoa: list[float] | None


@dataclasses.dataclass(frozen=True)
class SampleConsistency:
    """How far samples of one prompt agree.

    Attributes:
        samples: the texts.
        extracted: the answer of each, None where it has none.
        counts: the measures of these answers.
        similarity: the measures of the texts, by the name of each similarity.
    """

    samples: list[Sample]
    extracted: list[str | None]
    counts: AnswerConsistency
    similarity: Mapping[str, SimilarityConsistency]

    @cached_property
    def chosen(self) -> int | None:
        """Number of the most probable sample that gives the most frequent answer.

        Of answers that tie, that of the most probable sample is chosen, or the first to come where
        the information is not known. None where no sample has an answer.
        """
        return choose(self.extracted, [each.information_bits for each in self.samples])

    @property
    def answer(self) -> str | None:
        """The most frequent answer."""
        return None if self.chosen is None else self.extracted[self.chosen]

    @cached_property
    def central(self) -> int:
        """Number of the sample most like all others by the first similarity."""
        first = next(iter(self.similarity.values()))
        return int(first.matrix.sum(1).argmax())

    @cached_property
    def tokens(self) -> TokenAgreement:
        """The samples, each aligned with the central one."""
        return token_agreement([each.pieces for each in self.samples], self.central)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints; null stands for what is not defined."""
        counts, aligned = self.counts, self.tokens
        return {
            "samples": [
                {
                    "text": each.text,
                    "answer": answer,
                    "finish_reason": each.finish_reason,
                    "tokens": each.tokens,
                    "bytes": len(each.text.encode(errors="replace")),
                    "information_bits": each.information_bits,
                }
                for each, answer in zip(self.samples, self.extracted, strict=True)
            ],
            "answers": [{"answer": name, "samples": count} for name, count in counts.answers],
            "without_answer": counts.without_answer,
            "answer": self.answer,
            "chosen": self.chosen,
            "agreement": counts.agreement,
            "entropy": counts.entropy,
            "entropy_by_samples": counts.entropy_by_samples,
            "fsd": counts.fsd,
            "held_out": counts.held_out,
            "matrix_of": next(iter(self.similarity)),
            "matrix": next(iter(self.similarity.values())).matrix.tolist(),
            "similarity": {
                name: {
                    "degree": own.degree,
                    "eccentricity": own.eccentricity,
                    "eigenvalue": own.eigenvalue,
                    "cocoa": own.cocoa,
                }
                for name, own in self.similarity.items()
            },
            "aligned": {
                "reference": aligned.reference,
                "columns": [shown(each) for each in aligned.columns],
                "cells": [[shown(each) for each in row] for row in aligned.cells],
                "agreement": [
                    [None if math.isnan(share) else share for share in row]
                    for row in aligned.agreement.tolist()
                ],
                "inserted": aligned.inserted,
            },
        }


def measure_samples(
    samples: Sequence[Sample],
    extraction: Extraction,
    similarities: Sequence[str] = SIMILARITIES,
    *,
    seed: int = 0,
) -> SampleConsistency:
    """Returns how far samples agree.

    Args:
        samples: at least one.
        extraction: finds the answer of a text.
        similarities: names of `UTILITIES`, at least one; the first gives the central sample.
        seed: of the halves of the held-out agreement.

    Raises:
        ValueError: without samples.
        UserError: where a similarity needs a package that is not installed.

    Example:
        >>> from calibtrain.analysis.answers import number
        >>> texts = ["it is 4", "4", "it is five", "it is 4"]
        >>> found = measure_samples([Sample.given(text) for text in texts], number, ["jaccard"])
        >>> found.answer, found.counts.agreement, found.counts.without_answer, found.central
        ('4', 0.75, 1, 0)
    """
    extracted = [extraction(each.text) for each in samples]
    counts = answer_consistency(extracted, seed=seed)
    texts = [each.text for each in samples]
    information = [each.information_bits for each in samples]
    return SampleConsistency(
        samples=list(samples),
        extracted=extracted,
        counts=counts,
        similarity={
            name: of_matrix(similarity_matrix(texts, UTILITIES[name]), information)
            for name in similarities
        },
    )


def of_matrix(matrix: Similarity, information: Sequence[float | None]) -> SimilarityConsistency:
    """Returns the measures of a matrix of similarities.

    Args:
        matrix: how similar each two samples are, from 0 to 1.
        information: of each sample, in bits; None where it is not known.
    """
    n, known = len(matrix), [each for each in information if each is not None]
    return SimilarityConsistency(
        matrix=matrix,
        degree=degree_uncertainty(matrix),
        eccentricity=eccentricity(matrix),
        eigenvalue=eigenvalue_uncertainty(matrix),
        cocoa=[
            cocoa(bits, row[[j for j in range(n) if j != i]])
            for i, (bits, row) in enumerate(zip(known, matrix, strict=True))
        ]
        if n > 1 and len(known) == n
        else None,
    )


def choose(answers: Sequence[str | None], information: Sequence[float | None]) -> int | None:
    """Returns the number of the most probable sample that gives the most frequent answer.

    Of answers that tie, that of the most probable sample is chosen. Where the information is not
    known, the first sample comes first.

    Example:
        >>> choose(["a", "b", None, "b", "a"], [3.0, 2.0, 0.0, 1.0, 5.0])
        3
        >>> choose([None], [1.0]) is None
        True
    """
    found = [each for each in answers if each is not None]
    if not found:
        return None
    most = max(found.count(each) for each in set(found))
    tied = [i for i, each in enumerate(answers) if each is not None and found.count(each) == most]
    return min(tied, key=lambda i: information[i] or 0.0)


def shown(piece: Hashable | None) -> str | None:
    """Returns a token as text: bytes that are no whole character are shown by their code."""
    if isinstance(piece, bytes):
        return piece.decode(errors="backslashreplace")
    return None if piece is None else str(piece)
