"""Controls: what every arm must share with the base, imposed, then checked and written down."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibtrain.ablation.study import Arm, expand
from calibtrain.config import Config, ModelConfig, StudyConfig, with_value
from calibtrain.errors import UserError
from calibtrain.models import ParameterCount, count_parameters
from calibtrain.training.plan import Plan, make_plan

TOLERANCE = 0.02
"""How far matched parameters may lie apart, in relation: widths and depths come in steps."""


@dataclasses.dataclass(frozen=True)
class ControlledArm:
    """An arm as it is run: its configuration under the controls, and the plan that follows."""

    name: str
    settings: dict[str, Any]
    config: Config
    plan: Plan


def apply_controls(
    study: StudyConfig,
    cache: Path,
    observer: Callable[[str], None] = lambda message: None,
) -> list[ControlledArm]:
    """Impose a study's controls on its arms. Prepares the data of all of them.

    The base configuration is the reference: its budget, parameters and context are what the others
    are matched to.

    Raises:
        UserError: for a grid that varies what a control holds fixed, or an impossible match.
    """
    arms = expand(study)
    _check_conflicts(study)
    observer("base")
    reference = make_plan(study.base, cache)
    controlled = []
    for arm in arms:
        observer(arm.name)
        changes = _context_change(study, reference)
        config = with_value(arm.config, changes, f"arm {arm.name}")
        vocab_size = _vocab_size(config, reference, cache)
        model = _matched_model(study, config.model, vocab_size, reference.parameters, arm)
        changes = {**changes, "model": model.model_dump(mode="json"), **_budget(study, reference)}
        config = with_value(arm.config, changes, f"arm {arm.name}")
        controlled.append(
            ControlledArm(arm.name, dict(arm.settings), config, make_plan(config, cache))
        )
    return controlled


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


def _context_change(study: StudyConfig, reference: Plan) -> dict[str, Any]:
    kind = study.controls.context
    if kind == "tokens":
        return {"context": {"tokens": reference.context}}
    if kind == "bytes":
        given = study.base.context.bytes
        raw = given or round(reference.context * reference.store.bytes_per_token)
        return {"context": {"bytes": raw}}
    return {}


def _budget(study: StudyConfig, reference: Plan) -> dict[str, Any]:
    unit = study.controls.budget
    if unit == "as_given":
        return {}
    given = getattr(study.base.budget, unit)  # exact where the base says so itself
    return {"budget": {unit: given or getattr(reference.budget, unit)}}


def _vocab_size(config: Config, reference: Plan, cache: Path) -> int:
    if config.tokenizer.path is None:
        return config.tokenizer.vocab_size
    return make_plan(config, cache).tokenizer.vocab_size


def _matched_model(
    study: StudyConfig, model: ModelConfig, vocab_size: int, target: ParameterCount, arm: Arm
) -> ModelConfig:
    """The model whose body or total comes nearest to the reference's."""
    which = study.controls.parameters
    if which == "as_given":
        return model
    wanted = getattr(target, which)
    dimension = study.controls.solve_for

    def at(value: int) -> tuple[ModelConfig, int]:
        changed = model.model_copy(update={dimension: value})
        return changed, getattr(count_parameters(changed, vocab_size), which)

    if at(getattr(model, dimension))[1] == wanted:
        return model
    # widths must stay a multiple of the heads and give each an even size
    unit = 1 if dimension == "depth" else 2 * (model.heads if model.kind == "transformer" else 4)
    low, high = 1, 2
    while at(high * unit)[1] < wanted:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle * unit)[1] <= wanted else (low, middle)
    best, count = min((at(low * unit), at(high * unit)), key=lambda pair: abs(pair[1] - wanted))
    if abs(count - wanted) > 0.25 * wanted:
        raise UserError(
            f"controls.parameters: no model.{dimension} gives arm {arm.name} about {wanted:,} "
            f"parameters ({which}); the nearest has {count:,}; use a larger base model, or "
            "controls.parameters: body"
        )
    return best


def held_fixed(study: StudyConfig, arms: Sequence[ControlledArm]) -> list[dict[str, Any]]:
    """The table of what was held fixed: each quantity, by which rule, and its range over the arms.

    Rows have quantity, rule, unit, smallest, largest, and held (whether it really is the same).
    """
    controls = study.controls
    matched = {
        "bytes": "matched",
        "tokens": "matched",
        "flops": "matched",
        "as_given": "as configured",
    }
    rows: list[dict[str, Any]] = []

    def row(
        quantity: str, rule: str, unit: str, values: Sequence[float], tolerance: float = 0.0
    ) -> None:
        smallest, largest = min(values), max(values)
        held = largest - smallest <= tolerance * largest
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
            "rule": "one order of documents a seed, whatever the vocabulary",
            "unit": "corpus hash",
            "smallest": corpora[0],
            "largest": corpora[-1],
            "held": len(corpora) == 1,
        }
    )
    # a budget in bytes ends within a token, so that arms may differ by a few bytes
    longest = max(int(plan.store.byte_lengths.max()) for plan in plans)
    raw = [plan.budget.bytes for plan in plans]
    row("Training bytes", budget_rule("bytes"), "bytes", raw, longest / max(raw))
    row("Training tokens", budget_rule("tokens"), "tokens", [p.budget.tokens for p in plans])
    row("Training compute", budget_rule("flops"), "FLOPs", [p.budget.flops for p in plans], 1e-3)
    row("Optimizer steps", "free", "steps", [plan.budget.steps for plan in plans])
    bodies = [plan.parameters.body for plan in plans]
    totals = [plan.parameters.total for plan in plans]
    row("Parameters, body", parameter_rule("body"), "parameters", bodies, TOLERANCE)
    row("Parameters, total", parameter_rule("total"), "parameters", totals, TOLERANCE)
    context_rule = {"tokens": "matched", "bytes": "free", "as_given": "as configured"}
    row("Context", context_rule[controls.context], "tokens", [plan.context for plan in plans])
    context_bytes = [plan.context * plan.store.bytes_per_token for plan in plans]
    rule = "matched" if controls.context == "bytes" else "free"
    row("Context", rule, "bytes", [round(value, 1) for value in context_bytes], 0.01)
    batch = [plan.batches.slots_per_step for plan in plans]
    row("Batch", "as configured", "tokens a step", batch)
    return rows
