"""The configuration of an ablation: a base configuration, a grid, and what is held fixed."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from calibtrain.config.section import Section
from calibtrain.config.sections import Config


class ControlsConfig(Section):
    """What an ablation holds fixed while its grid varies."""

    budget: Literal["as_given", "bytes", "tokens", "flops"] = "bytes"
    """What every arm gets the same amount of; as_given: each arm uses its own configuration."""
    parameters: Literal["as_given", "body", "total"] = "body"
    """Match the parameters of the body (all but embedding and unembedding), or all parameters, to
    those of the base."""
    solve_for: Literal["width", "depth"] = "width"
    """Dimension that is solved for to match the parameters. It comes in steps: the report says
    where the nearest match is more than 2 % off; an arm that is more than 25 % off is not run."""
    context: Literal["as_given", "tokens", "bytes"] = "as_given"
    """Give every arm the same context, in tokens or in bytes of text."""


class StudyConfig(Section):
    """An ablation: a base configuration, varied over a grid, under controls."""

    title: Annotated[str, Field(min_length=1, max_length=200)] = "Vocabulary-size ablation"
    """Heading of the report."""
    base: Config = Config()
    """The configuration that every arm starts from."""
    grid: dict[str, list[Any]]
    """Dotted paths into the base, each with its values; an arm is one combination of values."""
    controls: ControlsConfig = ControlsConfig()

    @field_validator("grid")
    @classmethod
    def _grid_fits(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if not grid:
            raise ValueError("must name at least one key, e.g. tokenizer.vocab_size")
        for key, values in grid.items():
            if not all(key.split(".")):
                raise ValueError(f"key {key!r} names no setting; write it as key.path")
            if not values:
                raise ValueError(f"key {key} has no values")
        return grid


def measured_by_bytes(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the plain tree of a study whose arms are measured by bytes too, unless it says which.

    Bytes are the same events for every vocabulary. A study that does not evaluate the test split
    stays as it is.
    """
    base = tree.get("base") or {}
    evaluation = (base.get("evaluation") or {}) if isinstance(base, dict) else None
    if not isinstance(evaluation, dict) or "events" in evaluation:
        return tree
    splits = evaluation.get("final_splits", ["test"])
    if isinstance(splits, list) and "test" not in splits:
        return tree
    return {**tree, "base": {**base, "evaluation": {**evaluation, "events": ["token", "byte"]}}}
