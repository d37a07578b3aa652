"""`calibtrain config list | show | copy | schema`."""

from typing import Annotated

import typer

from calibtrain.cli.options import AsJson, ConfigPath, Overrides
from calibtrain.config import ready_made
from calibtrain.process.output import can_print, print_json, say
from calibtrain.storage.places import place

config_app = typer.Typer(no_args_is_help=True, help="Look at configurations, and copy one.")

COMMANDS = {"run": "train", "study": "ablate", "fine-tuning": "finetune"}
"""The command that takes a configuration, by its kind."""


@config_app.command("list")
def config_list(as_json: AsJson = False) -> None:
    """List the ready-made configurations, which commands take by name.

    Example: calibtrain config list
    """
    found = [
        {"name": name, "kind": (kind := _kind(name)), "command": COMMANDS[kind]}
        | {"description": ready_made.description(name)}
        for name in ready_made.names()
    ]
    if as_json:
        print_json(found)
        return
    widths = [max(len(row[key]) for row in found) for key in ("command", "name")]
    for row in found:
        print(f"{row['command']:<{widths[0]}} {row['name']:<{widths[1]}}  {row['description']}")


def _kind(name: str) -> str:
    from calibtrain.config import read_tree

    tree = read_tree(ready_made.path_of(name))
    return "study" if "grid" in tree else "fine-tuning" if "finetune" in tree else "run"


@config_app.command("show")
def config_show(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print a configuration with every default filled in.

    Example: calibtrain config show tiny model.kind=lstm
    """
    from calibtrain.config import load_config, load_study, read_tree, to_yaml

    path = ready_made.found(config)
    load = load_study if "grid" in read_tree(path) else load_config
    section = load(path, overrides or ())
    if as_json:
        print_json(section.model_dump(mode="json"))
        return
    text = to_yaml(section)
    print(text if can_print(text) else to_yaml(section, ascii_only=True), end="")


@config_app.command("copy")
def config_copy(
    name: Annotated[str, typer.Argument(help="A ready-made name (calibtrain config list).")],
    file: Annotated[
        str | None, typer.Argument(help="File to write; default the name's last part and .yaml.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a ready-made configuration, comments included, to a new file that you can edit.

    Example: calibtrain config copy losses/focal my.yaml
    """
    target = place(file if file is not None else f"{name.rpartition('/')[2]}.yaml")
    ready_made.copy(name, target)
    if as_json:
        print_json({"name": name, "file": str(target)})
        return
    say(f"copied: {target}    try: calibtrain {COMMANDS[_kind(name)]} {target}")


@config_app.command("schema")
def config_schema(
    study: Annotated[bool, typer.Option("--study", help="Print the schema of ablations.")] = False,
) -> None:
    """Print the JSON schema of configurations, for editors.

    Example: calibtrain config schema > schema.json
    """
    from calibtrain.config import Config, StudyConfig, json_schema

    print_json(json_schema(StudyConfig if study else Config))
