"""The checks of options that `generate` and `trace` share, and their samplers as `Sampling`."""

from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.errors import UserError

_GREEDY_CANNOT = ("temperature", "top_k", "top_p", "min_p")
"""Samplers that leave the most probable token the most probable one."""


def check_output(*, lines: bool, as_json: bool, save: str | None, replace: bool) -> None:
    """Refuses options for the result that do not go together."""
    if lines and as_json:
        raise UserError("--lines, --json: each takes standard output; leave one of them out")
    if replace and save is None:
        raise UserError("--replace: is for --save NAME; give a name, or leave it out")


def check_stops(stop: Sequence[str] | None) -> None:
    """Refuses a text that would end every text."""
    if stop and "" in stop:
        raise UserError("--stop: an empty text would end every text; leave it out")


def given_only(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def sampling_of(given: Mapping[str, Any], *, greedy: bool) -> Any:
    """Returns the `Sampling` of options that were given, by the names of its fields.

    Raises:
        UserError: for a value that is not allowed, and for options that do not go together.
    """
    if given.get("lookahead_top") is not None and not given.get("lookahead"):
        raise UserError("--lookahead-top: is for --lookahead; give it, or leave this out")
    if given.get("lookahead_head") is not None and not given.get("lookahead"):
        raise UserError("--lookahead-head: is for --lookahead; give it, or leave this out")
    if greedy and (useless := [option(name) for name in _GREEDY_CANNOT if name in given]):
        raise UserError(
            f"{', '.join(useless)}: does not change which token is the most probable, which "
            "--greedy takes; leave one of them out"
        )
    from calibtrain.generation.samplers import Sampling

    try:
        return Sampling(**given, greedy=greedy)
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from None


def option(name: str) -> str:
    """Returns the option of a parameter's name."""
    return f"--{name.replace('_', '-')}"
