"""Thermometer on groups of documents: each in turn is the task whose labels are not known.

For each group, a Thermometer is fitted to the validation text of the others; it then reads the
group's test text, without labels, and gives one temperature. This is compared with no temperature,
with the one fitted to the others together, and with the one fitted to the group's own validation
text, which knows its labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

import calibtrain
from calibtrain.data.corpora.named import Columns
from calibtrain.errors import UserError
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.thermometer import (
    ThermometerRecipe,
    fit_thermometer,
    task_temperature,
)
from calibtrain.posthoc.comparison_rows import comparison_row, score_text, signature_of
from calibtrain.posthoc.fit import checkpoint_of, describe_text, fitted_on, require_headless
from calibtrain.posthoc.hidden_text import HiddenText, Progress, read_hidden_text
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.storage.documents import FORMAT
from calibtrain.temperature.bounded import raw_of
from calibtrain.temperature.pointwise import Global, Pointwise
from calibtrain.temperature.thermometer import Thermometer
from calibtrain.temperature.token_head import TokenHead

LIMIT = 10.0
LEAST_DOCUMENTS = 2
"""How many documents a group must have in each split."""


def leave_one_group_out(
    path: Path,
    *,
    corpus: str | None = None,
    columns: Columns | None = None,
    limit: int | None = None,
    recipe: ThermometerRecipe | None = None,
    keep: bool = True,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda done, total: None,
    stage: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures what a Thermometer gains on each group of a corpus without its labels.

    Args:
        path: the run folder.
        corpus: a corpus with groups (field `corpus.group`; kjv has them); None means the run's own.
        columns: the fields of its documents that are read; None means those of the run's own.
        limit: about how many bytes of each split are read; None means all.
        recipe: how the Thermometers are fitted.
        keep: whether hidden states are kept in the cache.
        cache: the folder of prepared data.
        say: is told in words what is done.
        progress: is told the number of batches done, and of all of a stage.
        stage: is told in words what is begun, such as "group 3 of 7: Law".

    Returns:
        `steps` of the Thermometers, and `groups`: for each its `rows` for `none`, `thermometer`,
        `others` and `own`, with the temperature, figures with their signatures, and differences to
        `none`.

    Raises:
        UserError: for a corpus with fewer than three groups that are in both splits; and as
            `fit.fit_temperature_head` does.
    """
    recipe = recipe or ThermometerRecipe()
    with opened(path, cache, columns={corpus: columns or Columns()}) as saved:
        require_headless(saved)
        stage("hidden states")
        labelled = read_hidden_text(
            saved, corpus, "validation", limit, keep=keep, progress=progress
        )
        text = read_hidden_text(saved, corpus, "test", limit, keep=keep, progress=progress)
        say(describe_text(labelled))
        known = _by_group(saved, corpus, "validation", labelled)
        tested = _by_group(saved, corpus, "test", text)
        names = sorted(known.keys() & tested.keys())
        if len(names) < 3:
            raise UserError(
                f"--leave-one-group-out: {saved.corpus(corpus).provenance.name} has {len(names)} "
                f"groups with {LEAST_DOCUMENTS} documents in validation and test; at least 3 are "
                "needed (--group names the field of a document's group)"
            )
        groups: list[dict[str, Any]] = []
        for name in names:
            stage(f"group {len(groups) + 1} of {len(names)}: {name}")
            others = [known[other] for other in names if other != name]
            groups.append(
                _group(
                    saved, corpus, name, others, known[name], tested[name], labelled, text, recipe
                )
            )
            temperatures = {each["head"]: each["temperature"] for each in groups[-1]["rows"]}
            say(f"{name}: " + ", ".join(f"{k} T {v:.4f}" for k, v in temperatures.items()))
        return {
            "format": FORMAT,
            "version": calibtrain.__version__,
            "fitted_on": fitted_on(saved, corpus, "validation", limit, labelled),
            "checkpoint": checkpoint_of(saved),
            "steps": recipe.steps,
            "groups": groups,
        }


def _by_group(
    saved: SavedRun, corpus: str | None, split: str, text: HiddenText
) -> dict[str, Int[np.ndarray, " documents"]]:
    """Documents of each group that has enough of them."""
    groups = np.array(saved.corpus(corpus).groups(split))[text.documents]
    found = {name: text.documents[groups == name] for name in np.unique(groups) if name}
    return {
        str(name): documents
        for name, documents in found.items()
        if len(documents) >= LEAST_DOCUMENTS
    }


def _group(
    saved: SavedRun,
    corpus: str | None,
    name: str,
    others: list[Int[np.ndarray, " documents"]],
    own: Int[np.ndarray, " documents"],
    tested: Int[np.ndarray, " documents"],
    labelled: HiddenText,
    text: HiddenText,
    recipe: ThermometerRecipe,
) -> dict[str, Any]:
    width = saved.config.model.width
    source = Thermometer(width, width, LIMIT)
    params = fit_thermometer(source, labelled.output_layer, labelled.states, others, recipe)

    def fitted(documents: Int[np.ndarray, " some"]) -> float:
        states = labelled.states.only(documents)
        found = fit_global_temperature(
            labelled.output_layer, states, lowest=1 / LIMIT, highest=LIMIT
        )
        return found.temperature

    temperatures = {
        "thermometer": task_temperature(source, params, text.states.only(tested)),
        "others": fitted(np.concatenate(others)),
        "own": fitted(own),
    }
    head = TokenHead("global", Pointwise(Global(LIMIT)))
    bins = saved.config.evaluation.bins
    plain = score_text(text, None, None, bins, tested)
    rows = [comparison_row("none", plain, None, signature_of(saved, corpus, bins), temperature=1.0)]
    for kind, temperature in temperatures.items():
        raw = {"raw": np.float32(raw_of(temperature, LIMIT))}
        scored = score_text(text, head, raw, bins, tested)
        about = signature_of(saved, corpus, bins, temperature)
        rows.append(comparison_row(kind, scored, plain, about, temperature=temperature))
    return {"group": name, "documents": len(tested), "rows": rows}
