"""The command line: parse, call, print. All work is done by functions that a notebook can call.

Results go to standard output, everything else to standard error. A user's mistake is one line and
exit status 2. Heavy imports happen inside the commands, so that `--help` is quick.
"""

import importlib.metadata
import importlib.util
import json
import os
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.commands import models
from calibtrain.commands.finetune import finetune
from calibtrain.commands.temperature import temperature_app
from calibtrain.errors import UserError
from calibtrain.interruption import Interrupted, interruptible, leaving
from calibtrain.launch.command_line import launch_app
from calibtrain.places import place
from calibtrain.terminal import print_json, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Does vocabulary size change how well a language model knows what it knows?\n\n"
    "Start with: **calibtrain ablate configs/quickstart.yaml**, then open the report it names.",
)
tokenizer_app = typer.Typer(no_args_is_help=True, help="Train and look at tokenizers.")
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(config_app, name="config")
app.add_typer(launch_app, name="launch")
models.register(app)
app.command()(finetune)
app.add_typer(temperature_app, name="temperature")


class ProgressKind(StrEnum):
    """How progress is shown."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    json = "json"
    none = "none"


class Events(StrEnum):
    """What is predicted."""

    token = "token"
    byte = "byte"
    word = "word"


ConfigPath = Annotated[Path, typer.Argument(help="YAML file; configs/ has some to start from.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace the file's: model.width=256 budget.steps=100"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document as the result.")]
Progress = Annotated[ProgressKind, typer.Option(help="How to show progress (on standard error).")]


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(help="Run folder, or gs://BUCKET/PATH; default runs/NAME. Resumed if there."),
    ] = None,
    as_json: AsJson = False,
    progress: Progress = ProgressKind.auto,
    quiet_result: Annotated[bool, typer.Option("--quiet-result", hidden=True)] = False,
    beside: Annotated[list[str] | None, typer.Option("--beside", hidden=True)] = None,
) -> None:
    """Train one model and measure its calibration and entropy while it trains.

    Started again with the same arguments, it goes on from the last checkpoint and ends with the
    very parameters and metrics of an uninterrupted run. SIGTERM and Ctrl-C save first.

    With train.replicas=R, R seeds are trained by one program, each in a run folder of its own
    inside --run.

    Example: calibtrain train configs/tiny.yaml tokenizer.vocab_size=1024 --run runs/v1024
    """
    path = place(run or Path("runs") / config.stem)
    with leaving(path):
        from calibtrain.config import load_config

        settings = load_config(config, overrides or ())
        from calibtrain.parallel import hosts

        hosts.start()
        if beside:
            train_beside(config, path, beside, progress)
            return
        if settings.train.replicas > 1:
            train_seeds(settings, path, progress, as_json)
            return
        from calibtrain.evaluation import train_run
        from calibtrain.terminal import describe_stop, make_view, print_table, results_table

        with make_view(progress.value) as view:
            outcome = train_run(settings, path, observer=lambda event: view("", event))
    if not hosts.is_primary():
        return  # one host speaks for all
    if outcome.status == "stopped":
        say(describe_stop(outcome.step))
    if as_json:
        print_json({**outcome.summary, "evaluations": outcome.results})
    elif outcome.status == "done" and not quiet_result:
        print_table(results_table(list(outcome.results.items()), "evaluation"))
        say(f"run: {path}    report: calibtrain report {shlex.quote(str(path))}")


def train_seeds(settings: Any, path: Path, progress: ProgressKind, as_json: bool) -> None:
    """Train the seeds of a run together, and show what they have in common."""
    from calibtrain.ablation.replicas import train_replicas
    from calibtrain.parallel import hosts
    from calibtrain.terminal import make_view

    command = shlex.join(["calibtrain", *sys.argv[1:]])
    with make_view(progress.value) as view:
        result = train_replicas(settings, path, command=command, observer=view)
    if hosts.is_primary():  # one host speaks for all
        show_study(result, path, as_json)


def train_beside(config: Path, path: Path, names: list[str], progress: ProgressKind) -> None:
    """Train a run and those beside it, which differ in their seed alone: arms of an ablation."""
    from calibtrain.config import load_config
    from calibtrain.evaluation import train_together
    from calibtrain.terminal import make_view
    from calibtrain.training.loop import Member

    with make_view(progress.value) as view:

        def member(name: str) -> Member:
            settings = load_config(config.with_name(f"{name}.yaml"), ())
            folder = path.with_name(name)
            return Member(settings, folder, lambda event: view(name, event))

        train_together([member(name) for name in (path.name, *names)])


@app.command()
def ablate(
    config: ConfigPath,
    overrides: Overrides = None,
    run: Annotated[
        str | None, typer.Option(help="Study folder; default runs/NAME. Resumed if it is there.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Arms to run side by side.")] = 1,
    as_json: AsJson = False,
    progress: Progress = ProgressKind.auto,
) -> None:
    """Run an ablation: a base configuration times a grid, under stated controls, and report on it.

    Arms that are done are not run again; a failed arm is reported and the others go on.

    Example: calibtrain ablate configs/kjv-ablation.yaml base.budget.bytes=2e6 --jobs 2
    """
    path = place(run or Path("runs") / config.stem)
    with leaving(path):
        from calibtrain.config import load_study

        study = load_study(config, overrides or ())
        from calibtrain.ablation import run_study
        from calibtrain.terminal import make_view

        command = shlex.join(["calibtrain", *sys.argv[1:]])
        with make_view(progress.value) as view:
            result = run_study(study, path, jobs=jobs, command=command, observer=view)
    show_study(result, path, as_json)


def show_study(result: dict[str, Any], path: Path, as_json: bool) -> None:
    """Write a study's report; print its results, and what went wrong."""
    from calibtrain.terminal import print_table, study_table

    statuses = [arm["status"] for arm in result["arms"]]
    report_path = write_report(path) if "done" in statuses else None
    if as_json:
        print_json(result)
    elif report_path:
        print_table(study_table(result))
    for arm in result["arms"]:
        if arm["status"] == "failed":
            say(f"arm {arm['name']} failed: {arm['error']}")
    if "stopped" in statuses:
        say("stopped and saved; the same command goes on from there")
    if report_path:
        say(f"report: {report_path}")
    if "failed" in statuses:
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder, or gs://BUCKET/PATH.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="kjv, pydoc, markov, files:GLOB or tfds:NAME[/CONFIG]; default the run's own. "
            "Given twice or more: a table of all, raw and with a temperature fitted in domain."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option("--bytes", min=1, help="Score about so many bytes of text; default all."),
    ] = None,
    events: Annotated[
        Events,
        typer.Option(
            help="What is predicted: token; or byte or word, the same for every vocabulary."
        ),
    ] = Events.token,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Tokenisations followed for --events byte or word; default 5."
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="None followed below this share of the best; default 0.05."
        ),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="Name of a head that was fitted to the run (temperature fit)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's latest checkpoint on a corpus: bits per byte, calibration, entropy rate.

    By tokens, or by bytes or words over all tokenisations: then vocabularies can be compared.

    Example: calibtrain evaluate runs/tiny --corpus kjv --corpus pydoc
    """
    from calibtrain.evaluation import evaluate_domains, evaluate_run, evaluate_run_on_text
    from calibtrain.terminal import domains_table, print_table, results_table, show_counting

    by_tokens = events is Events.token
    if by_tokens and (beam is not None or ratio is not None):
        raise UserError(
            "--beam, --ratio: are for --events byte or word; leave them out, or name one"
        )
    if corpus and len(corpus) > 1:
        if temperature is not None:
            raise UserError(
                f"--temperature: {temperature!r} takes one --corpus, and {len(corpus)} are named; "
                "several, with every head: calibtrain temperature compare"
            )
        if not by_tokens:
            raise UserError(
                f"--corpus: {len(corpus)} are named; --events {events.value} takes one at a time"
            )
        found = evaluate_domains(place(run), corpus, split=split, limit=limit)
        if as_json:
            print_json(found)
        else:
            print_table(domains_table(found))
        return
    asked: dict[str, Any] = {
        "corpus": corpus[0] if corpus else None,
        "split": split,
        "limit": limit,
        "temperature": temperature,
    }
    if by_tokens:
        evaluation = evaluate_run(place(run), **asked)
    else:
        with show_counting("bytes read") as progress:
            evaluation = evaluate_run_on_text(
                place(run), **asked, events=events.value, width=beam, ratio=ratio, progress=progress
            )
    if as_json:
        print_json(evaluation.to_dict())
    else:
        name = f"{evaluation.about['corpus']}-{split}"
        print_table(results_table([(name, evaluation.results)], "evaluation"))


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="A run or study folder, or gs://BUCKET/PATH.")],
    as_json: AsJson = False,
) -> None:
    """Write report.html, one self-contained page, from the files of a run or a study."""
    path = write_report(place(folder))
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)


@app.command("compile")
def compile_(
    config: ConfigPath,
    overrides: Overrides = None,
    topology: Annotated[
        str, typer.Option(help="Devices: v5e:4x4 or v5e-16 (v4, v5e, v5p, v6e); h100:8 (GPUs).")
    ] = ...,  # type: ignore[assignment]
    slices: Annotated[
        int, typer.Option(min=1, max=1024, help="How many such slices or hosts are joined.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Compile a run's training step and evaluation for devices that are not here: do they fit?

    Example: calibtrain compile configs/tpu/v5e-8.yaml --topology v5e:2x4
    """
    from calibtrain.ahead.target import find_target, prepare
    from calibtrain.config import load_config

    target = find_target(topology, slices)
    settings = load_config(config, overrides or ())
    prepare(target)
    from calibtrain.ahead.programs import compile_ahead
    from calibtrain.data.disk import cache_directory
    from calibtrain.terminal import compilation_table, print_table
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


@tokenizer_app.command("train")
def tokenizer_train(
    config: ConfigPath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for it; default tokenizers/CORPUS-KIND-SIZE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a configuration's tokenizer on the training split, and check it to be lossless.

    Example: calibtrain tokenizer train configs/tiny.yaml tokenizer.vocab_size=2048
    """
    from calibtrain.config import load_config
    from calibtrain.data.corpus import open_corpus
    from calibtrain.data.disk import cache_directory
    from calibtrain.data.tokenizer import obtain_tokenizer

    settings = load_config(config, overrides or ())
    corpus = open_corpus(settings.corpus, cache_directory())
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, cache_directory())
    kind = corpus.provenance.name.partition(":")[0]
    name = f"{kind}-{settings.tokenizer.kind}-{tokenizer.vocab_size}"
    folder = out or Path("tokenizers") / name
    tokenizer.save(folder)
    say(f"saved: {folder}")
    show_tokenizer(tokenizer, as_json)


@tokenizer_app.command("inspect")
def tokenizer_inspect(
    path: Annotated[Path, typer.Argument(help="A tokenizer folder.")], as_json: AsJson = False
) -> None:
    """Show what a tokenizer is: sizes, hashes, bytes a token, longest pieces."""
    from calibtrain.data.tokenizer import Tokenizer

    show_tokenizer(Tokenizer.load(path), as_json)


@config_app.command("schema")
def config_schema(
    study: Annotated[bool, typer.Option("--study", help="That of an ablation.")] = False,
) -> None:
    """Print the JSON schema of configurations, for editors."""
    from calibtrain.config import Config, StudyConfig, json_schema

    print_json(json_schema(StudyConfig if study else Config))


@config_app.command("show")
def config_show(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a configuration with every default filled in."""
    from calibtrain.config import load_config, load_study, read_tree, to_yaml

    load = load_study if "grid" in read_tree(config) else load_config
    print(to_yaml(load(config, overrides or ())), end="")


def show_tokenizer(tokenizer: Any, as_json: bool) -> None:
    """Print a tokenizer's description."""
    from calibtrain.data.tokenizer_facts import describe

    facts = describe(tokenizer)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        text = (
            value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        )
        print(f"{key}: {text}")


def write_report(folder: Path) -> Path:
    """The report of a run or a study."""
    from calibtrain.report import write_report as write

    return write(folder)


def drop_output() -> None:
    """Send what is still to be written nowhere, so that the interpreter's end does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_tpu_compiler_alone() -> bool:
    """Whether libtpu is here for `compile` and no TPU is: JAX would look for one, for minutes."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    if list(importlib.metadata.entry_points(group="jax_plugins")):  # of GPUs
        return False
    from calibtrain.parallel.tpu import has_chips

    return not has_chips()


def main() -> None:
    """Entry point: a user's mistake becomes one line and exit status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if is_tpu_compiler_alone():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command = typer.main.get_command(app)
    try:
        with interruptible():
            code = command.main(standalone_mode=False)
            sys.stdout.flush()
    except UserError as error:
        say("calibtrain: " + " ".join(str(error).split("\n")))
        code = 2
    except Interrupted as stop:
        say(f"calibtrain: stopped by {signal.Signals(stop.number).name}{stop.left}")
        code = 128 + stop.number
    except BrokenPipeError:  # the reader of our output went away
        drop_output()
        code = 141
    except OSError as error:  # of standard output: files have their own messages
        drop_output()
        say(f"calibtrain: {error.filename or 'output'}: {error.strerror or error}")
        code = 2
    except typer.exceptions.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        typed = shlex.join(["calibtrain", *sys.argv[1:]])
        say(f"calibtrain: {' '.join(message.split())} In: {typed} (see --help)")
        code = error.exit_code
    except typer.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
