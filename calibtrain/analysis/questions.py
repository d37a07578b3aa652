"""`calibtrain qa`: how well a run knows what it knows, on questions with known answers.

The candidates of multiple choice are the choices; those of a question without choices are what a
beam finds. Both are scored as strings after the question, and become events of
`evaluation.candidates`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.analysis.of_run import Counting, Silent, kept
from calibtrain.analysis.question_candidates import COUNT, Protocol, score_questions
from calibtrain.analysis.question_trees import (
    Features,
    candidate_features,
    require_scikit_learn,
    tree_confidences,
)
from calibtrain.data.questions.built_in import arithmetic, capitals, cloze
from calibtrain.data.questions.question import Question, digest, read_questions
from calibtrain.data.questions.template import TEMPLATES, Template
from calibtrain.errors import UserError
from calibtrain.evaluation.candidates import (
    Candidates,
    confidence_gaps,
    error_differences,
    evaluate_candidates,
    fit_candidate_temperature,
)
from calibtrain.evaluation.figure_intervals import FEWEST_DOCUMENTS
from calibtrain.evaluation.result import Evaluation
from calibtrain.fitting.root_finding import HIGHEST, LOWEST, FittedTemperature
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.analysis_records import analysis_file
from calibtrain.runs.instrument_records import QuestionsRecord
from calibtrain.runs.loading import SavedRun, Say, opened
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.places import place

BUILT_IN = ("cloze", "capitals", "arithmetic")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run answers.

    Attributes:
        about: run, step, tokenizer, head; the set of questions and the protocol.
        questions: those that were measured.
        texts: of each, its candidates.
        candidates: of each, their log-probabilities, and which are right.
        temperature: that divided these.
        top: the evaluation of the most probable candidate of each question.
        every: that of every candidate.
        fit: what was fitted on the other half; None where nothing was.
        notes: what a reader of the figures must know.
        path: the file in the run's `analysis/` that holds it; None where it is not kept.
    """

    about: dict[str, Any]
    questions: list[Question]
    texts: list[list[str]]
    candidates: Candidates
    temperature: float
    top: Evaluation
    every: Evaluation
    fit: dict[str, Any] | None
    notes: list[str]
    path: Path | None = None

    def record(self) -> QuestionsRecord:
        """Returns it as its file holds it."""
        return QuestionsRecord.of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        logs = self.candidates.log_confidence(self.temperature)
        answers = []
        for row, question in enumerate(self.questions):
            texts, own = self.texts[row], self.candidates.right[row]
            confidence = np.exp(logs[row, : len(texts)])
            best = int(confidence.argmax())
            answers.append(
                {
                    "question": question.place,
                    **({"group": question.group} if question.group else {}),
                    "candidates": texts,
                    "confidence": confidence.tolist(),
                    "right": own.tolist(),
                    "chosen": best,
                    "correct": bool(own[best]),
                }
            )
        return {
            **self.about,
            "questions": len(self.questions),
            "temperature": self.temperature,
            "fit": self.fit,
            "notes": self.notes,
            "top_candidate": self.top.to_dict(),
            "every_candidate": self.every.to_dict(),
            "gaps": confidence_gaps(self.candidates, self.temperature),
            "answers": answers,
        }


def ask_run(
    path: Path,
    source: str,
    *,
    corpus: str | None = None,
    head: str | None = None,
    protocol: Protocol | None = None,
    cache: Path | None = None,
    progress: Counting | None = None,
    say: Say = lambda text: None,
) -> Asked:
    """Returns what a run's latest checkpoint answers, and how well it knows.

    The result is also written into the run's `analysis/`: one file for each set of questions and
    way of scoring.

    Args:
        path: the run folder.
        source: a file of questions (`data.questions.question`), or one of `BUILT_IN`.
        corpus: of cloze questions, as `evaluate` names it; None means the run's own.
        head: name of a fitted temperature head that divides the logits of tokens.
        protocol: how questions are asked; None means the defaults.
        cache: where prepared data is kept.
        progress: is told what is done.
        say: is told in words what the user must know.

    Raises:
        UserError: for a file or number that is not allowed, too few questions, and as
            `evaluate_run` does.
    """
    asked, progress = protocol or Protocol(), progress or Silent()
    asked.check()
    if asked.trees:
        require_scikit_learn()
    built_in = source in BUILT_IN
    if corpus is not None and source != "cloze":
        raise UserError("--corpus: is of --questions cloze; leave it out")
    if asked.count is not None and not built_in:
        raise UserError(f"--count: is of the built-in sets ({', '.join(BUILT_IN)}); leave it out")
    notes: list[str] = []
    given: list[Question] = []
    if not built_in:
        file = place(source)
        if not file.exists():
            raise UserError(
                f"--questions: {source} is not a file, nor a built-in set ({', '.join(BUILT_IN)})"
            )
        given, notes = read_questions(file)
    path = place(path)
    with opened(path, cache, head, say=say) as saved:
        use_compiled_programs(saved.cache)
        if built_in:
            progress.stage("making questions")
            given, notes = _built_in(saved, source, corpus, asked)
        answered = _answered(saved, source, given, notes, asked, progress)
        file = analysis_file(path, "questions", answered.about["set"], asked.tokenisations)
        return dataclasses.replace(answered, path=kept(path, file, answered.record(), say))


def _answered(
    saved: SavedRun,
    source: str,
    given: list[Question],
    notes: list[str],
    asked: Protocol,
    progress: Counting,
) -> Asked:
    """Returns what a run answers to the questions of a source, with notes on them."""
    built_in = source in BUILT_IN
    usual = TEMPLATES[source if built_in else "file"]
    chosen = asked.templates or (usual if asked.paraphrases else usual[:1])
    templates = [Template(text) for text in dict.fromkeys(chosen)]
    model = LanguageModel.of(saved)
    questions, texts, candidates, more = score_questions(model, given, templates, asked, progress)
    notes += more
    features: Features = ()
    if asked.trees:
        features = candidate_features(model, questions, texts, candidates, templates[0])
    facts = {
        "corpus": source if built_in else Path(source).name,
        "corpus_hash": digest(given, *(each.text for each in templates)),
        "step": saved.step,
        "tokenizer_hash": saved.tokenizer.hash,
    }
    if len(questions) < 2:
        raise UserError(f"--questions: {source}: {len(questions)} can be measured; at least 2")
    about = {
        **model.about,
        "context": model.context,
        "set": facts["corpus"],
        "set_hash": facts["corpus_hash"],
        "protocol": {**dataclasses.asdict(asked), "templates": [each.text for each in templates]},
    }
    made = {"context": model.context, "fitted": model.head_name}
    label = asked.label(len(templates))

    def measure(temperature: float, own: Candidates) -> tuple[Evaluation, Evaluation]:
        return evaluate_candidates(
            own,
            {**facts, "notes": notes},
            protocol=label,
            temperature=temperature,
            bins=asked.bins,
            **made,
        )

    temperature = asked.temperature
    fit: dict[str, Any] | None = None
    if asked.fit or asked.trees:
        fitted, held_out = _halves(len(candidates), asked.seed)
        before = candidates.chosen(held_out)
        fit = {"method": "trees" if asked.trees else "temperature", "questions": len(fitted)}
        if asked.trees:
            candidates = tree_confidences(candidates, features, fitted, held_out, asked.seed)
        else:
            found = _fitted(candidates.chosen(fitted))
            temperature = min(HIGHEST, max(LOWEST, found.temperature))
            fit |= {"nll_before": found.nll_before, "nll_after": found.nll_after}
            if temperature in (LOWEST, HIGHEST):
                notes.append(f"the fitted temperature is at its limit, {temperature:g}")
            candidates = before
        questions = [questions[i] for i in held_out]
        texts = [texts[i] for i in held_out]
        if len(before) >= FEWEST_DOCUMENTS:
            after = candidates.at(temperature)
            for name, ece in error_differences(after, before, bins=asked.bins).items():
                ends = {"lower": ece.lower, "upper": ece.upper}
                fit[f"{name}_ece_difference"] = {"estimate": ece.estimate, **ends}
    top, every = measure(temperature, candidates)
    return Asked(about, questions, texts, candidates, temperature, top, every, fit, notes)


def _built_in(
    saved: SavedRun, source: str, corpus: str | None, asked: Protocol
) -> tuple[list[Question], list[str]]:
    count, seed = asked.count or COUNT, asked.seed
    if source == "capitals":
        return capitals(count=count, seed=seed), []
    if source == "arithmetic":
        return arithmetic(count=count, seed=seed), []
    text, notes = saved.corpus(corpus), saved.notes(corpus)
    return (
        cloze(text.documents("train"), list(text.documents("test")), count=count, seed=seed),
        list(notes),
    )


def _halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Returns the questions that are fitted to, and those that are measured."""
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[: count // 2].tolist()), sorted(order[count // 2 :].tolist())


def _fitted(candidates: Candidates) -> FittedTemperature:
    try:
        return fit_candidate_temperature(candidates)
    except ValueError:
        raise UserError(
            "--temperature fit: no question of the half that is fitted to has a right candidate"
        ) from None
