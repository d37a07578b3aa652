"""Where the curves of a run are also sent while it trains: TensorBoard and Weights & Biases.

Trackers change nothing that is computed, so a run with other trackers is the same run.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from calibtrain.config.section import Section


class TensorBoardTracker(Section):
    """Event files that TensorBoard reads."""

    kind: Literal["tensorboard"]
    folder: Annotated[str, Field(min_length=1)] | None = None
    """Folder in which each run gets a folder of its name; null means the run's own folder, which
    then must be on a disk. The event files lie in `tensorboard` there."""


class WandbTracker(Section):
    """A run of Weights & Biases, which an interrupted run goes on with."""

    kind: Literal["wandb"]
    project: Annotated[str, Field(min_length=1, max_length=128)] = "calibtrain"
    """Project that the run belongs to."""
    entity: Annotated[str, Field(min_length=1)] | None = None
    """User or team; null means the default one of the account."""
    mode: Literal["online", "offline"] = "online"
    """offline writes files, which `wandb sync` sends later."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """Group of runs; null means the name of the folder that the run's folder is in."""
    folder: Annotated[str, Field(min_length=1)] | None = None
    """Folder in which each run gets a folder of its name; null means the run's own folder, which
    then must be on a disk."""


AnyTracker = Annotated[TensorBoardTracker | WandbTracker, Field(discriminator="kind")]
KINDS = tuple(
    get_args(cls.model_fields["kind"].annotation)[0] for cls in (TensorBoardTracker, WandbTracker)
)


def _named_by_a_word(given: Any) -> Any:
    """Reads a word in the list as a tracker of that kind with its defaults."""
    if not isinstance(given, list | tuple):
        return given
    return tuple({"kind": each} if isinstance(each, str) else each for each in given)


def _words_too(schema: dict[str, Any]) -> None:
    """Says in the JSON schema that a word may stand for a section."""
    schema["items"] = {"anyOf": [{"enum": list(KINDS)}, schema["items"]]}


Trackers = Annotated[
    tuple[AnyTracker, ...],
    BeforeValidator(_named_by_a_word),
    Field(json_schema_extra=_words_too),
]
