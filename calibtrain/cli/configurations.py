"""`calibtrain config schema | show`."""

from typing import Annotated

import typer

from calibtrain.cli.options import ConfigPath, Overrides
from calibtrain.process.output import can_print, print_json

config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")


@config_app.command("schema")
def config_schema(
    study: Annotated[bool, typer.Option("--study", help="Print the schema of ablations.")] = False,
) -> None:
    """Print the JSON schema of configurations, for editors."""
    from calibtrain.config import Config, StudyConfig, json_schema

    print_json(json_schema(StudyConfig if study else Config))


@config_app.command("show")
def config_show(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a configuration with every default filled in."""
    from calibtrain.config import load_config, load_study, read_tree, to_yaml

    load = load_study if "grid" in read_tree(config) else load_config
    section = load(config, overrides or ())
    text = to_yaml(section)
    print(text if can_print(text) else to_yaml(section, ascii_only=True), end="")
