"""What a run can be asked about the agreement of its samples: of one prompt, or over questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.library.consistency import Consistency, QuestionConsistency
from calibtrain.library.heads import Head
from calibtrain.library.progress import said
from calibtrain.storage.places import place


class MeasuringConsistency:
    """Samples that a run can be asked for, and how far they agree: `Run` has them.

    Attributes:
        folder: where the run is.
    """

    folder: Path

    def consistency(
        self,
        prompt: str | bytes = "",
        *,
        samples: int = 40,
        extract: str = "first-line",
        similarities: Sequence[str] | None = None,
        head: str | Head | None = None,
        sampling: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> Consistency:
        """Measures how far samples of one prompt agree, as `calibtrain consistency` does.

        Args:
            prompt: what the samples continue.
            samples: how many are drawn.
            extract: what of a sample is its answer: first-line, number, letter, whole or
                regex:PATTERN.
            similarities: by what texts are compared: chrf, jaccard, bleu, token-f1 or edit; None
                means chrf and jaccard.
            head: a head that was fitted to the run, or its name.
            sampling: how tokens are chosen, by the names of `generate`: `{"top_p": 0.9}`.
            limits: seed, max_bytes, max_tokens, stop, loop_stop, rows, weights, save and replace,
                as for `generate`.

        Raises:
            UserError: for what is not allowed, and for a run, head or name that cannot be had.
        """
        from calibtrain.analysis.consistency_of_run import consistency_of_run

        asked = _drawing("consistency", head, sampling, limits)
        try:
            found = consistency_of_run(
                self.folder,
                prompt,
                samples=samples,
                extract=extract,
                similarities=similarities,
                **asked,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        for note in found.notes:
            said(f"note: {note}")
        return Consistency(found)

    def consistency_over_questions(
        self,
        questions: str | Path,
        *,
        template: str = "{question}",
        samples: int = 40,
        extract: str = "first-line",
        similarities: Sequence[str] | None = None,
        head: str | Head | None = None,
        sampling: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> QuestionConsistency:
        """Measures whether agreement of samples tells right answers from wrong ones.

        Args:
            questions: a file of JSON lines with question and answer (docs/consistency.md).
            template: what is asked: {question} stands for the question, {choices} for its choices.
            samples: of each question; the other arguments are those of `consistency`.
            extract: what of a sample is its answer.
            similarities: by what texts are compared.
            head: a head that was fitted to the run, or its name.
            sampling: how tokens are chosen.
            limits: as for `consistency`.

        Raises:
            UserError: for a file that does not hold what is needed, and as `consistency` does.
        """
        from calibtrain.analysis.consistency_of_run import consistency_over_questions
        from calibtrain.analysis.consistency_questions import questions_to_sample

        asked = _drawing("consistency_over_questions", head, sampling, limits)
        try:
            read, unread = questions_to_sample(place(questions), extract, template)
            found = consistency_over_questions(
                self.folder,
                read,
                samples=samples,
                extract=extract,
                similarities=similarities,
                **asked,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        found["notes"] = [*unread, *found["notes"]]
        for note in found["notes"]:
            said(f"note: {note}")
        return QuestionConsistency(found)


_LIMITS = (
    *("seed", "max_bytes", "max_tokens", "stop", "loop_stop"),
    *("rows", "weights", "save", "replace"),
)


def _drawing(
    command: str,
    head: str | Head | None,
    sampling: Mapping[str, Any] | None,
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns how samples are drawn.

    Raises:
        UserError: for a setting that is not one, or a value that is not allowed.
    """
    from calibtrain.generation.samplers import Sampling

    if unknown := set(limits) - set(_LIMITS):
        raise UserError(
            f"{sorted(unknown)[0]}: is not a setting of {command}; there are {', '.join(_LIMITS)}"
        )
    try:
        chosen = Sampling(**(sampling or {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"sampling: {error}") from None
    return {
        **limits,
        "head": head.name if isinstance(head, Head) else head,
        "sampling": chosen,
        "say": said,
    }
