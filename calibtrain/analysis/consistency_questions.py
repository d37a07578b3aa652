"""Questions whose samples are measured: what is asked of a model, and which answers are right.

A sample is right where its answer, found as `--extract` says, is one of the accepted answers, found
in the same way. A question's answer is the most frequent one of its samples.
"""

import dataclasses
from pathlib import Path

from calibtrain.analysis.answers import Extraction, extraction_of, whole_text
from calibtrain.data.questions.question import Question, read_questions
from calibtrain.errors import UserError

TEMPLATE = "{question}"
LETTERS = "ABCDEFGH"


@dataclasses.dataclass(frozen=True)
class SampledQuestion:
    """A question as it is asked, and what answers it.

    Attributes:
        question: as the file has it.
        prompt: what the model continues.
        accepted: the answers that are right, as the extraction finds them.
        group: what the question belongs to; None where the file does not say.
    """

    question: str
    prompt: str
    accepted: frozenset[str]
    group: str | None = None

    def is_right(self, answer: str | None) -> bool:
        """Returns whether an answer is one of the accepted ones."""
        return answer in self.accepted


def questions_to_sample(
    path: Path, extract: str, template: str = TEMPLATE
) -> tuple[list[SampledQuestion], list[str]]:
    """Returns the questions of a file (`data.questions`), and notes on what is not read of it.

    Where the answer is a letter, choices are lettered in their order, from A on.

    Args:
        path: of the file.
        extract: how an answer is found in a text (`answers.extraction_of`).
        template: what is asked: {question} stands for the question, {choices} for its choices, a
            line each.

    Raises:
        UserError: for a file that cannot be read, or a line that does not hold what is needed; it
            names the line.
    """
    extraction = extraction_of(extract)
    if "{question}" not in template:
        raise UserError(f"--template: {template!r} lacks {{question}}, where the question stands")
    found, notes = read_questions(path)
    return [_sampled(each, extract, extraction, template) for each in found], notes


def _sampled(
    question: Question, extract: str, extraction: Extraction, template: str
) -> SampledQuestion:
    choices, accepted = question.choices, question.accepted
    if "{choices}" in template and not choices:
        raise UserError(f"{question.place}: has no choices, which --template asks for")
    if extract == "letter" and choices:
        if len(choices) > len(LETTERS):
            raise UserError(
                f"{question.place}: choices: {len(choices)} of them; --extract letter takes at "
                f"most {len(LETTERS)}"
            )
        accepted = (LETTERS[question.right],)
    lettered = "\n".join(f"{a}) {b}" for a, b in zip(LETTERS, choices, strict=False))
    return SampledQuestion(
        question=question.text,
        prompt=template.replace("{choices}", lettered).replace("{question}", question.text),
        accepted=frozenset(_found(question.place, each, extract, extraction) for each in accepted),
        group=question.group or None,
    )


def _found(place: str, accepted: str, extract: str, extraction: Extraction) -> str:
    """Returns an accepted answer in the form that samples' answers have."""
    found = extraction(accepted)
    if found is None and extract.startswith("regex:"):  # a pattern may name what is around it
        found = whole_text(accepted)
    if found is None:
        raise UserError(f"{place}: answer: --extract {extract} finds no answer in {accepted!r}")
    return found
