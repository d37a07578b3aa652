"""How a question becomes text: a template with the places of question and answer."""

import dataclasses

from calibtrain.errors import UserError, shown

QUESTION, ANSWER = "{question}", "{answer}"
TEMPLATES: dict[str, tuple[str, ...]] = {
    "file": (
        "Question: {question}\nAnswer: {answer}",
        "Q: {question}\nA: {answer}",
        "{question} {answer}",
    ),
    "cloze": ("{question} {answer}",),
    "capitals": (
        "The capital of {question} is {answer}",
        "{question}'s capital city is {answer}",
        "Question: What is the capital of {question}?\nAnswer: {answer}",
    ),
    "arithmetic": (
        "{question} = {answer}",
        "Question: What is {question}?\nAnswer: {answer}",
    ),
}
"""Paraphrases by the name of the set of questions, the usual one first."""


@dataclasses.dataclass(frozen=True)
class Template:
    """A paraphrase of questions.

    Attributes:
        text: with `{question}` once and, after it, `{answer}` once.
        key: the option or setting that gives it, for errors.
    """

    text: str
    key: str = "--template"

    def __post_init__(self) -> None:
        for name in (QUESTION, ANSWER):
            if self.text.count(name) != 1:
                raise UserError(
                    f"{self.key}: {shown(self.text)} is not allowed; a text with {QUESTION} and, "
                    f"after it, {ANSWER}, once each"
                )
        if self.text.index(QUESTION) > self.text.index(ANSWER):
            raise UserError(f"{self.key}: {shown(self.text)}: {ANSWER} comes before {QUESTION}")

    def prompt(self, question: str) -> str:
        """Returns what comes before the answer, without the white space at its end.

        Example:
            >>> Template("Q: {question}\\\\nA: {answer}").prompt("Why?")
            'Q: Why?\\\\nA:'
        """
        before, _, _ = self.text.partition(ANSWER)
        return before.replace(QUESTION, question).rstrip()

    def candidate(self, question: str, answer: str) -> str:
        """Returns the answer with the white space before it, which belongs to its first token.

        What the template has after the answer is part of it.

        Example:
            >>> Template("Q: {question}\\\\nA: {answer}.").candidate("Why?", "so")
            ' so.'
        """
        before, _, after = self.text.partition(ANSWER)
        whole = before.replace(QUESTION, question)
        return whole[len(whole.rstrip()) :] + answer + after
