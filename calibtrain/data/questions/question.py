"""`Question`: what is asked, the choices, and what counts as right; read from JSON lines."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.corpora.text_files import json_lines
from calibtrain.errors import UserError, shown

SUFFIXES = (".jsonl", ".jsonl.gz")
KEYS = ("question", "choices", "answer", "group")
_ANSWER = "a string, a list of accepted strings, or the index of a choice, counted from 0"


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        place: file and line, or the name of a built-in set and a number.
        text: what is asked.
        choices: of multiple choice; empty where the answer is free.
        accepted: answers that are right; of multiple choice, the right choice alone.
        group: by which results are given too; empty where there are no groups.
    """

    place: str
    text: str
    choices: tuple[str, ...]
    accepted: tuple[str, ...]
    group: str = ""

    @property
    def right(self) -> int:
        """The index of the right choice.

        Raises:
            ValueError: where there are no choices.
        """
        return self.choices.index(self.accepted[0])


def read_questions(path: Path, key: str = "--questions") -> tuple[list[Question], list[str]]:
    """Returns the questions of a file of JSON lines, and notes on what is not read of it.

    A line has `question` (a text), `choices` (a list of texts, for multiple choice), `answer` (a
    text; a list of accepted texts; or an index into the choices) and, where it is wanted, `group`.
    All lines have choices, or none; and likewise groups.

    Args:
        path: of the file.
        key: the option or setting that names it, for errors.

    Raises:
        UserError: for a file that cannot be read, or a line that is not a question; it names line
            and key.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"{key}: {path}: is not a file of JSON lines ({', '.join(SUFFIXES)})")
    found: list[Question] = []
    unread: dict[str, None] = {}
    for _, place, record in json_lines(path):
        question = _question(place, record)
        if found:
            _require_alike(found[0], question)
        found.append(question)
        unread |= dict.fromkeys(key for key in record if key not in (*KEYS, "id"))
    if not found:
        raise UserError(f"{key}: {path}: holds no question")
    notes = [f"{path}: {', '.join(unread)}: not read; keys are {', '.join(KEYS)}"] if unread else []
    return found, notes


def digest(questions: Sequence[Question], *more: str) -> str:
    """Returns the first 16 hex digits of the SHA-256 of questions, and of what else is given."""
    rows = [[q.text, q.choices, q.accepted, q.group] for q in questions]
    text = json.dumps([rows, more], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _question(place: str, record: Mapping[str, Any]) -> Question:
    for key in ("question", "answer"):
        if key not in record:
            there = shown(", ".join(record), 200)[1:-1] or "none"
            raise UserError(f"{place}: has no {key!r}; keys there: {there}")
    choices: tuple[str, ...] = ()
    if record.get("choices") is not None:
        given = record["choices"]
        if not isinstance(given, list) or len(given) < 2:
            raise UserError(f"{place}: choices: {shown(given)} is not a list of two or more texts")
        choices = tuple(_text(place, f"choices[{i}]", each) for i, each in enumerate(given))
        for choice in choices:
            if choices.count(choice) > 1:
                raise UserError(f"{place}: choices: {shown(choice)} is there twice; give it once")
    group = record.get("group")
    if isinstance(group, bool) or not isinstance(group, str | int | type(None)) or group == "":
        raise UserError(f"{place}: group: {shown(group)} is not allowed; a text or a whole number")
    return Question(
        place=place,
        text=_text(place, "question", record["question"]),
        choices=choices,
        accepted=_accepted(place, record["answer"], choices),
        group="" if group is None else _text(place, "group", str(group)),
    )


def _accepted(place: str, answer: Any, choices: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(answer, bool) or not isinstance(answer, str | int | list):
        raise UserError(f"{place}: answer: {shown(answer)} is not allowed; {_ANSWER}")
    if isinstance(answer, int):
        if not choices:
            raise UserError(f"{place}: answer: {answer} is an index, and there are no choices")
        if not 0 <= answer < len(choices):
            raise UserError(
                f"{place}: answer: {answer} is not the index of a choice, 0 to {len(choices) - 1}"
            )
        return (choices[answer],)
    given = [answer] if isinstance(answer, str) else answer
    if not given:
        raise UserError(f"{place}: answer: [] is not allowed; {_ANSWER}")
    texts = tuple(_text(place, "answer", each) for each in given)
    if not choices:
        return texts
    right = [choice for choice in choices if choice in texts]
    if len(right) != 1:
        what = "no choice is" if not right else f"{len(right)} choices are"
        raise UserError(f"{place}: answer: {shown(answer)}: {what} among them; exactly one must be")
    return (right[0],)


def _text(place: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {key}: {shown(value)} is not allowed; a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell a lone surrogate
        half = f"U+{ord(error.object[error.start]):04X}"
        raise UserError(
            f"{place}: {key}: holds {half} at character {error.start}, half of a surrogate pair, "
            "which is not text"
        ) from None
    return value


def _require_alike(first: Question, other: Question) -> None:
    """Raises a UserError where one question has choices or a group and another has none."""
    for key, has in (("choices", bool(first.choices)), ("group", bool(first.group))):
        if has != bool(getattr(other, key)):
            said = f"has no {key!r}" if has else f"has {key!r}"
            raise UserError(
                f"{other.place}: {said}, unlike {first.place}; give it in every line, or in none"
            )
