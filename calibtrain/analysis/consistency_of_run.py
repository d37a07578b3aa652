"""How far samples of a run agree: drawn from one prompt, or read from a file of answers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibtrain.analysis.answers import extraction_of
from calibtrain.analysis.consistency_questions import SampledQuestion
from calibtrain.analysis.question_calibration import Asked, calibration_over_questions
from calibtrain.analysis.sample_consistency import (
    SIMILARITIES,
    Sample,
    SampleConsistency,
    measure_samples,
)
from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText
from calibtrain.generation.of_run import generate_from_run
from calibtrain.generation.similarity import UTILITIES, sacrebleu_metrics
from calibtrain.runs.traces import SOURCES

SAMPLES = 40
"""Samples of a prompt, as Lyu et al. draw them; as many are drawn side by side."""
EXTRACT = "first-line"
_FROM_SACREBLEU = ("chrf", "bleu")
_GENERATED = SOURCES.index("generated")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Samples with the measures of how far they agree, and what is said of the whole.

    Attributes:
        consistency: the measures.
        about: of a run: its path, step, tokenizer, sampling, seed; and what was asked for.
        path: the file that holds the trace; None where it is not kept.
        seconds: that drawing took, programs compiled included; 0 for answers of a file.
        notes: what a reader must know.
    """

    consistency: SampleConsistency
    about: dict[str, Any]
    path: Path | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        trace = {} if self.path is None else {"trace": str(self.path)}
        notes = list(self.notes)
        return {**self.about, **trace, "notes": notes, **self.consistency.to_dict()}


def consistency_of_run(
    path: Path,
    prompt: str | bytes,
    *,
    samples: int = SAMPLES,
    extract: str = EXTRACT,
    similarities: Sequence[str] | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    rows: int | None = None,
    **asked: Any,
) -> Measured:
    """Returns how far samples of one prompt agree.

    Args:
        path: the run folder.
        prompt: what the samples continue.
        samples: how many are drawn.
        extract: how the answer of a sample is found (`answers.extraction_of`).
        similarities: by which texts are compared; None means `SIMILARITIES`.
        seed: sample i is a function of the seed and i.
        stop: texts that end a sample and are not part of it.
        rows: texts that are drawn side by side, at most; None means `SAMPLES`.
        asked: as for `generate_from_run`: sampling, head, limits, weights, save.

    Raises:
        UserError: for a way of extraction or a similarity that is not known, and where the run or
            what is asked of it cannot be had.
    """
    extraction = extraction_of(extract)
    compared, notes = similarities_of(similarities)
    found = generate_from_run(
        path, [prompt], samples=samples, seed=seed, stop=tuple(stop), rows=rows or SAMPLES, **asked
    )
    drawn = [sample_of(text, stop) for text in found.texts]
    return Measured(
        measure_samples(drawn, extraction, compared, seed=seed),
        {**found.record.about, "extract": extract},
        found.path,
        found.seconds,
        (*notes, *found.notes),
    )


def consistency_of_answers(
    texts: Sequence[str],
    *,
    extract: str = EXTRACT,
    similarities: Sequence[str] | None = None,
    seed: int = 0,
) -> Measured:
    """Returns how far answers agree that some other model gave.

    Args:
        texts: one per sample; an empty one is a sample without an answer.
        extract: how the answer of a text is found.
        similarities: by which texts are compared; None means `SIMILARITIES`.
        seed: of the halves of the held-out agreement.

    Raises:
        UserError: without texts, and for a way of extraction or a similarity that is not known.
    """
    extraction = extraction_of(extract)
    compared, notes = similarities_of(similarities)
    if not texts:
        raise UserError("answers: there are none; at least one line is needed")
    drawn = [Sample.given(text) for text in texts]
    about = {"seed": seed, "extract": extract}
    return Measured(
        measure_samples(drawn, extraction, compared, seed=seed), about, notes=tuple(notes)
    )


def consistency_over_questions(
    path: Path,
    questions: Sequence[SampledQuestion],
    *,
    samples: int = SAMPLES,
    extract: str = EXTRACT,
    similarities: Sequence[str] | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    rows: int | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """Returns how well each measure tells right answers from wrong ones, as `--json` prints it.

    Args:
        path: the run folder.
        questions: at least one.
        samples: of each question.
        extract: how the answer of a sample is found.
        similarities: by which texts are compared; None means `SIMILARITIES`.
        seed: sample i, counted over all questions, is a function of the seed and i.
        stop: texts that end a sample and are not part of it.
        rows: texts that are drawn side by side, at most; None means `SAMPLES`.
        asked: as for `generate_from_run`.

    Raises:
        UserError: as `consistency_of_run` does.
    """
    extraction = extraction_of(extract)
    compared, notes = similarities_of(similarities)
    prompts = [each.prompt for each in questions]
    found = generate_from_run(
        path, prompts, samples=samples, seed=seed, stop=tuple(stop), rows=rows or SAMPLES, **asked
    )
    drawn = [sample_of(text, stop) for text in found.texts]
    measured = [
        measure_samples(drawn[first : first + samples], extraction, compared, seed=seed)
        for first in range(0, len(drawn), samples)
    ]
    pairs = [Asked(*each) for each in zip(questions, measured, strict=True)]
    trace = {} if found.path is None else {"trace": str(found.path)}
    return {
        **found.record.about,
        "extract": extract,
        **trace,
        "notes": [*notes, *found.notes],
        "seconds": found.seconds,
        **calibration_over_questions(pairs, seed=seed),
    }


def similarities_of(names: Sequence[str] | None) -> tuple[tuple[str, ...], list[str]]:
    """Returns the similarities to compare by, and a note on those that cannot be had.

    Those of sacreBLEU are left out, with the note, where it is not installed and they were not
    asked for.

    Raises:
        UserError: for an unknown name, and where one that was asked for cannot be had.
    """
    asked = tuple(dict.fromkeys(names or SIMILARITIES))
    if unknown := [name for name in asked if name not in UTILITIES]:
        allowed = ", ".join(UTILITIES)
        raise UserError(f"similarity: {unknown[0]!r} is not known; allowed are {allowed}")
    needy = [name for name in asked if name in _FROM_SACREBLEU]
    if not needy:
        return asked, []
    try:
        sacrebleu_metrics()
    except UserError as error:
        if names:
            raise
        return tuple(name for name in asked if name not in needy), [
            f"texts are not compared by {', '.join(needy)}: {error}"
        ]
    return asked, []


def sample_of(text: GeneratedText, stop: Sequence[str] = ()) -> Sample:
    """Returns a generated text as a sample.

    Args:
        text: as it was generated.
        stop: texts that end a text; what follows the first of them is not among the pieces.
    """
    trace = text.trace
    pieces = [
        piece
        for piece, source in zip(trace.pieces, trace.source, strict=True)
        if source == _GENERATED and piece
    ]
    if text.finish_reason == "stop":
        places = (b"".join(pieces).find(each.encode()) for each in stop)
        pieces = _cut(pieces, min(place for place in places if place >= 0))
    return Sample(text.text, pieces, text.information_bits, text.tokens, text.finish_reason)


def _cut(pieces: Sequence[bytes], size: int) -> list[bytes]:
    """Returns the pieces of the first bytes; one that reaches beyond them is cut."""
    found: list[bytes] = []
    for piece in pieces:
        if size <= 0:
            break
        found.append(piece[:size])
        size -= len(piece)
    return found
