"""How questions are asked: their candidates, spelled by templates and scored as strings."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from calibtrain.analysis.answers import first_line
from calibtrain.analysis.of_run import Counting, require
from calibtrain.config import EvaluationConfig, validate
from calibtrain.data.questions.question import Question
from calibtrain.data.questions.template import Template
from calibtrain.errors import UserError
from calibtrain.evaluation.candidates import BINS, Candidates, possible_after
from calibtrain.fitting.root_finding import HIGHEST, LOWEST
from calibtrain.generation.beam import BeamSearch
from calibtrain.generation.beam_texts import beam_texts
from calibtrain.generation.candidate_bytes import candidate_byte_log_probabilities
from calibtrain.generation.language_model import LanguageModel
from calibtrain.scoring.candidates import candidate_log_probabilities

TOKENISATIONS = ("own", "all")
COUNT = 400
"""Questions of a built-in set, by default."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How questions are asked.

    Attributes:
        templates: paraphrases whose confidences are averaged; empty: the usual one of the set.
        paraphrases: whether all templates of the set are used.
        tokenisations: of a candidate: own, those that the tokenizer writes; or all, by its bytes.
        end: whether the end of the text after a candidate counts.
        temperature: divides the candidates' log-probabilities.
        fit: whether it is fitted on half of the questions, and the other half is measured.
        trees: whether boosted trees are fitted on that half, in place of a temperature.
        bins: equal-width bins of the ECE.
        beam: hypotheses of a question without choices.
        max_bytes: of such an answer, at most.
        count: questions of a built-in set; None means `COUNT`.
        seed: of a built-in set and of the halves.
    """

    templates: tuple[str, ...] = ()
    paraphrases: bool = False
    tokenisations: str = "own"
    end: bool = False
    temperature: float = 1.0
    fit: bool = False
    trees: bool = False
    bins: int = BINS
    beam: int = 5
    max_bytes: int = 32
    count: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises a UserError for what is not allowed."""
        if self.tokenisations not in TOKENISATIONS:
            raise UserError(
                f"--tokenisations: {self.tokenisations!r} is not allowed; allowed: "
                f"{', '.join(TOKENISATIONS)}"
            )
        if not LOWEST <= self.temperature <= HIGHEST:
            raise UserError(
                f"--temperature: {self.temperature:g} is not allowed; {LOWEST:g} to {HIGHEST:g}"
            )
        if self.trees and (self.fit or self.temperature != 1):
            raise UserError("--trees: take the place of a temperature; leave out --temperature")
        validate(EvaluationConfig, {"bins": self.bins})
        if self.templates and self.paraphrases:
            raise UserError("--paraphrases: are those of the set; leave out --template, or these")
        require("candidates", self.beam, 2)
        require("max-bytes", self.max_bytes, 1)
        if self.count is not None:
            require("count", self.count, 2)

    def label(self, paraphrases: int) -> str:
        """Returns the protocol as signatures say it."""
        parts = [
            self.tokenisations,
            "end" if self.end else "",
            f"mean{paraphrases}",
            "trees" if self.trees else "",
        ]
        return ".".join(part for part in parts if part and part != "mean1")


Scored = tuple[list[Question], list[list[str]], Candidates, list[str]]
"""Questions, the texts of their candidates, these scored, and notes."""


def score_questions(
    model: LanguageModel,
    given: Sequence[Question],
    templates: Sequence[Template],
    asked: Protocol,
    progress: Counting,
) -> Scored:
    """Returns the candidates of questions, scored after each template.

    Args:
        model: what is asked.
        given: questions, all with choices or all without.
        templates: paraphrases; a beam searches answers after the first.
        asked: how.
        progress: is told what is done.
    """
    notes = []
    questions = list(given)
    if questions[0].choices:
        texts = [list(question.choices) for question in questions]
        right = [np.array([c in q.accepted for c in q.choices]) for q in questions]
    else:
        progress.stage("searching answers")
        texts = _found(model, questions, templates[0], asked, progress)
        there = [i for i, own in enumerate(texts) if own]
        if len(there) < len(texts):
            notes.append(f"{len(texts) - len(there)} questions: the beam found no answer; left out")
        questions, texts = [questions[i] for i in there], [texts[i] for i in there]
        right = [
            np.array(
                [first_line(text) in {first_line(a) for a in question.accepted} for text in own]
            )
            for question, own in zip(questions, texts, strict=True)
        ]
    scores: list[list[np.ndarray]] = [[] for _ in questions]
    cut = overlapping = 0
    for number, template in enumerate(templates):
        progress.stage(f"scoring candidates, paraphrase {number + 1} of {len(templates)}")
        spelled = [
            [template.candidate(question.text, text) for text in own]
            for question, own in zip(questions, texts, strict=True)
        ]
        overlapping += sum(map(_overlap, spelled))
        prompts = [template.prompt(question.text) for question in questions]
        found, own_cut = _log_probabilities(model, asked, progress)(prompts, spelled)
        cut += own_cut
        for row, own in zip(scores, found, strict=True):
            row.append(own)
    possible = [[bool(possible_after(one[None])[0]) for one in own] for own in scores]
    there = [i for i, own in enumerate(possible) if any(own)]
    if without := len(questions) - len(there):
        notes.append(
            f"{without} questions: the model gives every candidate probability 0; left out"
        )
    if some := sum(not all(possible[i]) for i in there):
        notes.append(
            f"{some} questions: after a paraphrase, the model gives every candidate probability 0; "
            "that paraphrase is left out of their confidence"
        )
    questions, texts = [questions[i] for i in there], [texts[i] for i in there]
    scores, right = [scores[i] for i in there], [right[i] for i in there]
    if cut:
        notes.append(
            f"{cut} candidates: the prompt is longer than the context, and its end was seen"
        )
    if overlapping:
        notes.append(
            f"{overlapping} questions have a candidate that is the beginning of another, which "
            "favours the shorter; put something after {answer} in the template, or give --end"
        )
    candidates = Candidates(
        [question.place for question in questions],
        [np.stack(own) for own in scores],
        right,
        [question.group for question in questions] if given[0].group else (),
    )
    return questions, texts, candidates, notes


def _log_probabilities(
    model: LanguageModel, asked: Protocol, progress: Counting
) -> Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[list[np.ndarray], int]]:
    if asked.tokenisations == "all":
        return lambda prompts, candidates: candidate_byte_log_probabilities(
            model, prompts, candidates, end=asked.end, progress=progress
        )
    return lambda prompts, candidates: candidate_log_probabilities(
        model.network,
        model.params,
        model.tokenizer,
        prompts,
        candidates,
        context=model.context,
        end=asked.end,
        progress=progress,
    )


def _found(
    model: LanguageModel,
    questions: Sequence[Question],
    template: Template,
    asked: Protocol,
    progress: Counting,
) -> list[list[str]]:
    """Returns the answers that a beam finds: first lines, those that say the same once."""
    found: list[list[str]] = []
    at_once = 32
    for first in range(0, len(questions), at_once):
        prompts = [template.prompt(each.text) for each in questions[first : first + at_once]]
        beams = beam_texts(model, prompts, BeamSearch(asked.beam), max_bytes=asked.max_bytes)
        for own in beams:
            lines = [(line, first_line(line)) for line in (_line(each.text) for each in own)]
            said = {name: line for line, name in reversed(lines) if name is not None}
            found.append(list(said.values())[::-1])
        progress(len(found), len(questions))
    return found


def _line(text: str) -> str:
    """Returns the first line that says something, without the white space around it.

    Example:
        >>> _line("\\\\n Rome \\\\nAnd he")
        'Rome'
    """
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _overlap(candidates: Sequence[str]) -> bool:
    ordered = sorted(candidates)
    return any(b.startswith(a) for a, b in itertools.pairwise(ordered))
