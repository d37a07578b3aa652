"""Controls: what every arm must share with the base is imposed, then checked and recorded."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibtrain.ablation.alike import refuse_alike
from calibtrain.ablation.study import Arm, expand
from calibtrain.config import Config, ModelConfig, StudyConfig, with_value
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.corpora.sources import check_fields
from calibtrain.data.tokenizers.tokenizer_choice import check_described
from calibtrain.errors import UserError
from calibtrain.models.size import count_parameters
from calibtrain.training.plan import Plan, make_plan

TOLERANCE = 0.02
"""Largest relative difference of parameters that are called matched; sizes come in steps."""
FARTHEST = 0.25
"""Largest relative difference from the reference's parameters; an arm beyond it is refused."""
NOT_MATCHED = "not matched"
"""Begins the rule of a quantity that a control should have matched and did not."""


@dataclasses.dataclass(frozen=True)
class ControlledArm:
    """An arm under the controls.

    Attributes:
        name: name of its run folder.
        settings: dotted path -> value, from the grid.
        config: the configuration under the controls.
        plan: the plan of that configuration.
        wanted: parameters (of the body or in total) that it was matched to; None if it was not.
    """

    name: str
    settings: dict[str, Any]
    config: Config
    plan: Plan
    wanted: int | None = None


@dataclasses.dataclass(frozen=True)
class FailedArm:
    """An arm that cannot be run, and why."""

    name: str
    settings: dict[str, Any]
    error: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """The base configuration, which arms are matched to; prepared only if a control needs it."""

    config: Config
    cache: Path
    observer: Callable[[str], None]

    @functools.cached_property
    def plan(self) -> Plan:
        """The plan of the base. It needs the base's tokenizer, which perhaps no arm uses."""
        self.observer("base")
        try:
            return make_plan(self.config, self.cache)
        except UserError as error:
            raise UserError(
                f"base: {error} (the controls match the arms to the base, so it must be possible; "
                "mend it, or use as_given)"
            ) from None

    def parameters(self, which: str) -> int:
        """Returns the parameters of the body or in total; only the total needs a vocabulary."""
        size = self.config.tokenizer.vocab_size
        if which == "total" and self.config.tokenizer.path is not None:
            size = self.plan.tokenizer.vocab_size
        return getattr(count_parameters(self.config.model, size), which)


def apply_controls(
    study: StudyConfig,
    cache: Path,
    observer: Callable[[str], None] = lambda message: None,
) -> tuple[list[ControlledArm], list[FailedArm]]:
    """Imposes a study's controls on its arms, and prepares the data of all of them.

    The arms are matched to the budget, parameters and context of the base configuration.

    Args:
        study: base, grid and controls.
        cache: folder of prepared data.
        observer: called with the name of each arm before it is prepared.

    Returns:
        The arms that can be run, and those that cannot, because their tokenizer cannot be trained
        or the match is impossible.

    Raises:
        UserError: for a grid that makes no sense or varies what a control holds fixed, for arms
            that would train the same, and for a corpus or a base that cannot be prepared.
    """
    arms = expand(study)
    _check_conflicts(study)
    for arm in arms:
        try:
            check_described(arm.config.tokenizer)
        except UserError as error:
            raise UserError(f"grid, arm {arm.name}: {error}") from None
    reference = Reference(study.base, cache, observer)
    if not any(key.partition(".")[0] == "corpus" for key in study.grid):
        check_fields(study.base.corpus)
        open_corpus(study.base.corpus, cache)
    shared = {**_context(study, reference), **_budget(study, reference)}
    wanted = _parameters(study, reference)
    controlled: list[ControlledArm] = []
    failed: list[FailedArm] = []
    for arm in arms:
        observer(arm.name)
        settings = dict(arm.settings)
        try:
            config = with_value(arm.config, shared, "controls")
            if wanted is not None:
                model = _matched_model(study, config.model, _vocab_size(config, cache), wanted, arm)
                changes = {**shared, "model": model.model_dump(mode="json")}
                config = with_value(arm.config, changes, "controls")
            plan = make_plan(config, cache)
            controlled.append(ControlledArm(arm.name, settings, config, plan, wanted))
        except UserError as error:
            failed.append(FailedArm(arm.name, settings, str(error)))
    refuse_alike([(arm.name, arm.plan) for arm in controlled])
    return controlled, failed


def _check_conflicts(study: StudyConfig) -> None:
    controls = study.controls

    def refuse(prefix: str, control: str, advice: str) -> None:
        for key in study.grid:
            if key == prefix or key.startswith(prefix + ".") or prefix.startswith(key + "."):
                raise UserError(
                    f"controls.{control}: {getattr(controls, control)!r} is not allowed while the "
                    f"grid varies {key}; {advice}"
                )

    if controls.budget != "as_given":
        refuse("budget", "budget", "use controls.budget: as_given")
    if controls.context != "as_given":
        refuse("context", "context", "use controls.context: as_given")
    if controls.parameters != "as_given":
        refuse(
            f"model.{controls.solve_for}",
            "parameters",
            "use controls.parameters: as_given, or solve for the other dimension "
            "(controls.solve_for)",
        )


def _context(study: StudyConfig, reference: Reference) -> dict[str, Any]:
    unit = study.controls.context
    if unit == "as_given":
        return {}
    if given := getattr(study.base.context, unit):
        return {"context": {unit: given}}
    plan = reference.plan
    raw = round(plan.context * plan.store.bytes_per_token)
    return {"context": {unit: plan.context if unit == "tokens" else raw}}


def _budget(study: StudyConfig, reference: Reference) -> dict[str, Any]:
    unit = study.controls.budget
    if unit == "as_given":
        return {}
    given = getattr(study.base.budget, unit)  # exact if the base gives it in this unit
    return {"budget": {unit: given or getattr(reference.plan.budget, unit)}}


def _parameters(study: StudyConfig, reference: Reference) -> int | None:
    which = study.controls.parameters
    return None if which == "as_given" else reference.parameters(which)


def _vocab_size(config: Config, cache: Path) -> int:
    if config.tokenizer.path is None:
        return config.tokenizer.vocab_size
    return make_plan(config, cache).tokenizer.vocab_size


def _matched_model(
    study: StudyConfig, model: ModelConfig, vocab_size: int, wanted: int, arm: Arm
) -> ModelConfig:
    """Returns the model whose parameters, of the body or in total, come nearest to `wanted`."""
    which = study.controls.parameters
    dimension = study.controls.solve_for

    def at(value: int) -> tuple[ModelConfig, int]:
        changed = model.model_copy(update={dimension: value})
        return changed, getattr(count_parameters(changed, vocab_size), which)

    if at(getattr(model, dimension))[1] == wanted:
        return model
    # the width must be a multiple of the heads, each of an even size
    unit = 1 if dimension == "depth" else 2 * (model.heads if model.kind == "transformer" else 4)
    low, high = 1, 2
    while at(high * unit)[1] < wanted:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle * unit)[1] <= wanted else (low, middle)
    best, count = min((at(low * unit), at(high * unit)), key=lambda pair: abs(pair[1] - wanted))
    if abs(count - wanted) > FARTHEST * wanted:
        raise UserError(
            f"controls.parameters: no model.{dimension} gives arm {arm.name} about {wanted:,} "
            f"parameters ({which}); the nearest has {count:,}; use a larger base model, or "
            "controls.parameters: body"
        )
    return best


def held_fixed(study: StudyConfig, arms: Sequence[ControlledArm]) -> list[dict[str, Any]]:
    """Returns the table of what was held fixed: each quantity, its rule, and its range over arms.

    Rows have quantity, rule, unit, smallest, largest, and held (whether it is the same in all
    arms). Without arms there are no rows.
    """
    if not arms:
        return []
    controls = study.controls
    matched = {
        "bytes": "matched",
        "tokens": "matched",
        "flops": "matched",
        "as_given": "as configured",
    }
    rows: list[dict[str, Any]] = []

    def row(
        quantity: str,
        rule: str,
        unit: str,
        values: Sequence[float],
        tolerance: float = 0.0,
        wanted: float | None = None,
    ) -> None:
        smallest, largest = min(values), max(values)
        low, high = (
            (smallest, largest) if wanted is None else (min(smallest, wanted), max(largest, wanted))
        )
        held = high - low <= tolerance * high
        if rule.startswith("matched") and not held:
            of_base = "" if wanted is None else f", the base's {wanted:,} counted"
            rule = f"{NOT_MATCHED}: {100 * (high - low) / high:.1f} % apart{of_base}"
        rows.append(
            {
                "quantity": quantity,
                "rule": rule,
                "unit": unit,
                "smallest": smallest,
                "largest": largest,
                "held": held,
            }
        )

    def budget_rule(unit: str) -> str:
        return matched[controls.budget] if controls.budget == unit else "free"

    def parameter_rule(which: str) -> str:
        if controls.parameters == which:
            return f"matched, solving for {controls.solve_for} where it differs"
        return "as configured" if controls.parameters == "as_given" else "free"

    plans = [arm.plan for arm in arms]
    corpora = sorted({plan.corpus.provenance.content_hash for plan in plans})
    rows.append(
        {
            "quantity": "Training text",
            "rule": "one order of documents per seed, whatever the vocabulary",
            "unit": "corpus hash",
            "smallest": corpora[0],
            "largest": corpora[-1],
            "held": len(corpora) == 1,
        }
    )
    # a budget in bytes ends at a token, so arms may differ by the bytes of one token
    longest = max(int(plan.store.byte_lengths.max()) for plan in plans)
    raw = [plan.budget.bytes for plan in plans]
    row("Training bytes", budget_rule("bytes"), "bytes", raw, longest / max(raw))
    row("Training tokens", budget_rule("tokens"), "tokens", [p.budget.tokens for p in plans])
    row("Training compute", budget_rule("flops"), "FLOPs", [p.budget.flops for p in plans], 1e-3)
    row("Optimizer steps", "free", "steps", [plan.budget.steps for plan in plans])
    bodies = [plan.parameters.body for plan in plans]
    totals = [plan.parameters.total for plan in plans]
    for which, counts in (("body", bodies), ("total", totals)):
        rule, wanted = parameter_rule(which), None
        if controls.parameters == which:
            wanted = arms[0].wanted
        row(f"Parameters, {which}", rule, "parameters", counts, TOLERANCE, wanted)
    context_rule = {"tokens": "matched", "bytes": "free", "as_given": "as configured"}
    row("Context", context_rule[controls.context], "tokens", [plan.context for plan in plans])
    context_bytes = [plan.context * plan.store.bytes_per_token for plan in plans]
    rule = "matched" if controls.context == "bytes" else "free"
    row("Context", rule, "bytes", [round(value, 1) for value in context_bytes], 0.01)
    batch = [plan.batches.slots_per_step for plan in plans]
    row("Batch", "as configured", "tokens per step", batch)
    return rows
