"""The evaluations that a run makes at its end: which there are, and the files that hold them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calibtrain.config import EvaluationConfig
from calibtrain.evaluation.result import file_name
from calibtrain.generation.next_byte import Beam

ANSWERS = "answers"
"""Stands for a corpus where the held-out answers of a fine-tuning are scored."""


@dataclasses.dataclass(frozen=True)
class FinalEvaluation:
    """One of them.

    Attributes:
        name: CORPUS-SPLIT for tokens, CORPUS-test-EVENT for other events, as ablation.json has it.
        event: what is predicted.
        made: what its file says of how it was made: split, step, limit, and for events other than
            tokens the event and its beam.
        file: name of its JSON file.
    """

    name: str
    event: str
    made: Mapping[str, Any]
    file: str

    @property
    def split(self) -> str:
        """The split that is scored."""
        return str(self.made["split"])

    @property
    def limit(self) -> int | None:
        """About how many bytes of text are scored; None means all."""
        limit: int | None = self.made["limit"]
        return limit


def final_evaluations(
    settings: EvaluationConfig, corpus: str, corpus_hash: str, step: int
) -> list[FinalEvaluation]:
    """Returns the final evaluations of a run on its own corpus, in the order of their making.

    Args:
        settings: of the run's evaluations.
        corpus: name of its corpus.
        corpus_hash: of its text.
        step: the last one.
    """
    beam = Beam()
    asked = [(split, "token", settings.final_bytes) for split in settings.final_splits]
    asked += [
        ("test", event, getattr(settings.event_bytes, event)) for event in settings.text_events
    ]
    found = []
    for split, event, limit in asked:
        made: dict[str, Any] = {"split": split, "step": step, "limit": limit}
        name = f"{corpus}-{split}"
        if event != "token":
            made |= {"event": event, "beam": beam.width, "ratio": beam.ratio}
            name += f"-{event}"
        about = {"corpus": corpus, "corpus_hash": corpus_hash, "temperature": 1.0, "event": event}
        file = file_name({**about, **made}, corpus_hash, settings.final_bytes)
        found.append(FinalEvaluation(name, event, made, f"{file}.json"))
    return found


def answers_evaluation(
    settings: EvaluationConfig, examples: str, corpus_hash: str, step: int
) -> FinalEvaluation:
    """Returns the final evaluation of a fine-tuning on its held-out answers, all of them.

    Args:
        settings: of the run's evaluations.
        examples: hash of the files of examples.
        corpus_hash: of the text of the run's corpus.
        step: the last one.
    """
    made = {"split": "validation", "step": step, "limit": None}
    about = {"corpus": ANSWERS, "corpus_hash": examples, "temperature": 1.0, "event": "token"}
    file = file_name({**about, **made}, corpus_hash, settings.final_bytes)
    return FinalEvaluation(f"{ANSWERS}-validation", "token", made, f"{file}.json")
