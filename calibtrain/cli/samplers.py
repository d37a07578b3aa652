"""From the sampling options of a command to `Sampling`, which `generate` and `trace` share."""

from collections.abc import Mapping
from typing import Any

from calibtrain.errors import UserError

_GREEDY_CANNOT = ("temperature", "top_k", "top_p", "min_p")
"""Samplers that leave the most probable token the most probable one."""


def sampling_of(given: Mapping[str, Any], *, greedy: bool) -> Any:
    """Returns the `Sampling` of options that were given, by the names of its fields.

    Raises:
        UserError: for a value that is not allowed, and for options that do not go together.
    """
    if given.get("lookahead_top") is not None and not given.get("lookahead"):
        raise UserError("--lookahead-top: is for --lookahead; give it, or leave this out")
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
