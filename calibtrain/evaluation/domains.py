"""In and out of domain: a run on several corpora, raw and with a temperature (Desai & Durrett).

The temperature is fitted once, in domain: on the validation split of the run's own corpus
("Calibration of Pre-trained Transformers", Findings of EMNLP 2020).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.corpora.named import columns_of
from calibtrain.errors import UserError
from calibtrain.evaluation.bytes import Progress
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.saved_run import SavedRunEvaluator
from calibtrain.runs.loading import opened

FITTED_ON = "validation"


def evaluate_domains(
    path: Path,
    corpora: Sequence[str],
    *,
    split: str = "test",
    limit: int | None = None,
    fields: Sequence[str] = (),
    groups: Sequence[str] = (),
    cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
    stage: Callable[[str], None] = lambda text: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Evaluates a run's latest checkpoint on several corpora, raw and with a fitted temperature.

    Args:
        path: the run folder.
        corpora: as `evaluate_run` takes one.
        split: of each corpus: train, validation or test.
        limit: about how many bytes of text are read, of each corpus and of the text the temperature
            is fitted on; None means the whole splits.
        fields: of the texts: one for all corpora that have fields, or one each in order.
        groups: of a document's group; likewise.
        cache: where prepared data is kept.
        check: called between batches; may raise to give up.
        progress: is told the number of batches that are given to the model, and of all of a stage.
        stage: is told in words what is begun.
        say: as for `evaluate_run`.

    Returns:
        `temperature` (value, fitted_on, nll_before, nll_after: nats a token, passes),
        `evaluations`: for each corpus, what is written for it raw, then with the temperature; and
        `files`: the path of each, None where it is not kept.

    Raises:
        UserError: as `evaluate_run` does, and for a corpus that is named twice.
    """
    if len(set(corpora)) < len(corpora):
        twice = next(name for name in corpora if list(corpora).count(name) > 1)
        raise UserError(f"--corpus: {twice} is named twice; name each corpus once")
    columns = columns_of(corpora, fields, groups)
    with opened(path, cache, columns=columns, say=say) as saved:
        evaluator = SavedRunEvaluator(saved, check, progress)
        for name in corpora:
            saved.store(name, split)  # what cannot be had is told before anything is computed
        stage("fitting one temperature")
        fitted = evaluator.fit_temperature(FITTED_ON, limit)
        temperatures = dict.fromkeys((1.0, fitted.temperature))
        evaluations: list[Evaluation] = []
        for name in corpora:
            for temperature in temperatures:
                stage(f"evaluation {len(evaluations) + 1} of {len(corpora) * len(temperatures)}")
                evaluations.append(evaluator.evaluate(name, split, limit, temperature))
        return {
            "temperature": {
                "value": fitted.temperature,
                "fitted_on": f"{saved.corpus(None).provenance.name}-{FITTED_ON}",
                "nll_before": fitted.nll_before,
                "nll_after": fitted.nll_after,
                "passes": fitted.passes,
            },
            "evaluations": [evaluation.to_dict() for evaluation in evaluations],
            "files": [evaluation.path and str(evaluation.path) for evaluation in evaluations],
        }
