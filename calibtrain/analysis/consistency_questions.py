"""Questions whose samples are measured: read from JSON lines, asked, and answers judged.

A sample is right where its answer, found as `--extract` says, is one of the accepted answers, found
in the same way. A question's answer is the most frequent one of its samples.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibtrain.analysis.answers import Extraction, extraction_of, whole_text
from calibtrain.data.corpora.text_files import json_lines, readable
from calibtrain.data.predictions.rows import Row
from calibtrain.errors import UserError

TEMPLATE = "{question}"
LETTERS = "ABCDEFGH"


@dataclasses.dataclass(frozen=True)
class Question:
    """A question and what answers it.

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


def read_questions(path: Path, extract: str, template: str = TEMPLATE) -> list[Question]:
    """Returns the questions of a file of JSON lines.

    A line has `question` (or `prompt`), `answer` (a text, or a list of texts that are all right),
    and may have `choices` (a list of texts) and `group`. Where the answer is a letter, choices are
    lettered in their order, from A on.

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
    if path.suffix == ".parquet" or not path.is_file():
        raise UserError(f"--questions: {path} must be a file of JSON lines (.jsonl)")
    with readable(path):
        found = [
            _question(Row(place, record), extract, extraction, template)
            for _, place, record in json_lines(path)
        ]
    if not found:
        raise UserError(f"--questions: {path} holds no question")
    return found


def _question(row: Row, extract: str, extraction: Extraction, template: str) -> Question:
    key = "prompt" if "prompt" in row.values and "question" not in row.values else "question"
    if key == "question" and "prompt" in row.values:
        raise UserError(f"{row.place}: has question and prompt, which say the same; leave one out")
    question = row.value(key)
    if not isinstance(question, str) or not question:
        raise row.wrong(key, "a text")
    accepted, choices = _texts(row, "answer"), []
    if row.values.get("choices") is not None:
        choices = _texts(row, "choices")
        if extract == "letter":
            accepted = [_letter_of(row, each, choices) for each in accepted]
    if "{choices}" in template and not choices:
        raise UserError(f"{row.place}: has no choices, which --template asks for")
    lettered = "\n".join(f"{a}) {b}" for a, b in zip(LETTERS, choices, strict=False))
    return Question(
        question=question,
        prompt=template.replace("{choices}", lettered).replace("{question}", question),
        accepted=frozenset(_found(row, each, extract, extraction) for each in accepted),
        group=row.name("group") if row.values.get("group") is not None else None,
    )


def _texts(row: Row, key: str) -> list[str]:
    """Returns the texts of a key that holds one or several; whole numbers are texts too."""
    value: Any = row.value(key)
    several: Sequence[Any] = value if isinstance(value, list) else [value]
    found = [str(each) if type(each) is int else each for each in several]
    if not found or not all(isinstance(each, str) and each for each in found):
        raise row.wrong(key, "a text, or a list of texts")
    return found


def _letter_of(row: Row, accepted: str, choices: Sequence[str]) -> str:
    """Returns the letter of a right choice, given as it stands or by its letter."""
    if len(choices) > len(LETTERS):
        raise row.wrong("choices", f"at most {len(LETTERS)}, which have letters")
    if accepted in choices:
        return LETTERS[choices.index(accepted)]
    if accepted in LETTERS[: len(choices)]:
        return accepted
    raise row.wrong("answer", "one of the choices, or its letter")


def _found(row: Row, accepted: str, extract: str, extraction: Extraction) -> str:
    """Returns an accepted answer in the form that samples' answers have."""
    found = extraction(accepted)
    if found is None and extract.startswith("regex:"):  # a pattern may name what is around it
        found = whole_text(accepted)
    if found is None:
        raise row.wrong("answer", f"--extract {extract} finds no answer in it")
    return found
