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
    base: Annotated[Config, Field(validate_default=True)] = Config()
    """The configuration that every arm starts from."""
    grid: dict[str, list[Any]]
    """Dotted paths into the base, each with its values; an arm is one combination of values."""
    controls: ControlsConfig = ControlsConfig()

    @field_validator("base")
    @classmethod
    def _measured_by_bytes(cls, base: Config) -> Config:
        """Returns the base with byte events, unless it says by which events arms are measured.

        Bytes are the same events for every vocabulary. A base that does not evaluate the test split
        stays as it is.
        """
        evaluation = base.evaluation
        if "events" in evaluation.model_fields_set or "test" not in evaluation.final_splits:
            return base
        measured = evaluation.model_copy(update={"events": ("token", "byte")})
        return base.model_copy(update={"evaluation": measured})

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
