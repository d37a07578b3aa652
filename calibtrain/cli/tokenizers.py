"""The commands `tokenizer train` and `tokenizer inspect`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.options import AsJson, ConfigPath, Overrides
from calibtrain.config.ready_made import found
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say
from calibtrain.storage.places import place

tokenizer_app = typer.Typer(no_args_is_help=True, help="Train and look at tokenizers.")


@tokenizer_app.command("train")
def tokenizer_train(
    config: ConfigPath,
    overrides: Overrides = None,
    out: Annotated[
        str | None, typer.Option(help="Folder to write; default tokenizers/CORPUS-KIND-SIZE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a configuration's tokenizer on the training split, and check that it is lossless.

    Example: calibtrain tokenizer train tiny tokenizer.vocab_size=2048
    """
    from calibtrain.cli.terminal import show_counting
    from calibtrain.config import load_config
    from calibtrain.data.corpora.corpus import open_corpus
    from calibtrain.data.corpora.sources import check_fields
    from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
    from calibtrain.storage.disk import cache_directory

    settings = load_config(found(config), overrides or ())
    check_fields(settings.corpus)
    if settings.tokenizer.path is not None:
        raise UserError(
            f"tokenizer.path: {settings.tokenizer.path} is a tokenizer that is there already, so "
            "that none is trained; remove it (to look at one: calibtrain tokenizer inspect FOLDER)"
        )
    with show_counting("tokenizer"):
        corpus = open_corpus(settings.corpus, cache_directory())
        tokenizer = obtain_tokenizer(settings.tokenizer, corpus, cache_directory())
    kind = corpus.provenance.name.partition(":")[0]
    name = f"{kind}-{settings.tokenizer.kind}-{tokenizer.vocab_size}"
    folder = Path("tokenizers") / name if out is None else place(out)
    tokenizer.save(folder)
    say(f"saved: {folder}")
    show_tokenizer(tokenizer, as_json)


@tokenizer_app.command("inspect")
def tokenizer_inspect(
    path: Annotated[str, typer.Argument(help="A tokenizer folder.")], as_json: AsJson = False
) -> None:
    """Show a tokenizer's sizes, hashes, bytes per token and longest pieces."""
    from calibtrain.data.tokenizers.tokenizer import Tokenizer

    show_tokenizer(Tokenizer.load(place(path)), as_json)


def show_tokenizer(tokenizer: Any, as_json: bool) -> None:
    """Prints a tokenizer's description."""
    from calibtrain.data.tokenizers.tokenizer_facts import describe

    facts = describe(tokenizer)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        text = (
            value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        )
        print(f"{key}: {text}")
