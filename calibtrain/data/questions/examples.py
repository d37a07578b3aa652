"""Questions as examples for fine-tuning: the right choice first, then the wrong ones."""

from collections.abc import Sequence

from calibtrain.data.batches.examples import Example
from calibtrain.data.corpora.text_files import (
    check_unchanged,
    digest_files,
    digest_set,
    file_names,
    find_files,
)
from calibtrain.data.questions.question import read_questions
from calibtrain.data.questions.template import Template
from calibtrain.errors import UserError


def read_question_examples(
    patterns: Sequence[str], template: str, choices: int
) -> tuple[list[Example], str]:
    """Returns the questions of JSON-lines files as examples, and a hash of the files.

    Args:
        patterns: paths and globs.
        template: how question and answer become text.
        choices: candidates that every question has.

    Raises:
        UserError: for a file that cannot be read, or a line that is not a question of so many
            choices; it is named.
    """
    spelled = Template(template, "finetune.template")
    paths = find_files(patterns)
    names, digests = file_names(paths), digest_files(paths)
    found = []
    for path in paths:
        questions, _ = read_questions(path, "finetune.paths")
        for question in questions:
            if len(question.choices) != choices:
                raise UserError(
                    f"{question.place}: choices: {len(question.choices)} are there; every question "
                    f"has {choices} (finetune.choices)"
                )
            wrong = (each for each in question.choices if each != question.accepted[0])
            answers = (question.accepted[0], *wrong)
            candidates = tuple(spelled.candidate(question.text, each) for each in answers)
            found.append(Example(question.place, spelled.prompt(question.text), candidates))
    check_unchanged(paths, digests)
    return found, digest_set(names, digests)
