"""The command `compile`."""

from typing import Annotated

import typer

from calibtrain.cli.options import AsJson, ConfigPath, Overrides
from calibtrain.config import ready_made
from calibtrain.process.output import print_json, say


def compile_(
    config: ConfigPath,
    overrides: Overrides = None,
    topology: Annotated[
        str,
        typer.Option(help="Devices: v5e:4x4 or v5e-16 (v4, v5e, v5p, v6e, tpu7x); h100:8 (GPUs)."),
    ] = ...,  # type: ignore[assignment]
    slices: Annotated[
        int, typer.Option(min=1, max=1024, help="Number of such slices or hosts.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Compile a run's training step and evaluation for devices that are not here: do they fit?

    Example: calibtrain compile tpu/v5e-8 --topology v5e:2x4
    """
    from calibtrain.compilation.target import find_target, prepare
    from calibtrain.config import load_config

    target = find_target(topology, slices)
    settings = load_config(ready_made.found(config), overrides or ())
    prepare(target)
    from calibtrain.cli.result_tables import compilation_table, print_table
    from calibtrain.compilation.programs import compile_ahead
    from calibtrain.storage.disk import cache_directory
    from calibtrain.training.plan import make_plan

    found = compile_ahead(make_plan(settings, cache_directory()), target)
    if as_json:
        print_json(found)
    else:
        print_table(compilation_table(found))
    if not found["training"]["fits"]:
        say(
            "the training step does not fit: take fewer batch.rows, more batch.accumulate, "
            "mesh.fsdp, or model.remat=dots or full"
        )
    if not found["evaluation"]["fits"]:
        say("the evaluation does not fit: take fewer evaluation.rows, or more mesh.fsdp")
    if not found["fits"]:
        raise typer.Exit(1)
