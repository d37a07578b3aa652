"""The entry of the command line. All work is done by functions that a notebook can call too.

Results go to standard output, everything else to standard error. A user's mistake is one line and
exit status 2. Heavy imports happen inside the commands, so that `--help` is fast.
"""

import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

import calibtrain
from calibtrain.cli.analysing import entropy, lookahead, memory, typicality
from calibtrain.cli.asking import qa
from calibtrain.cli.compiling import compile_
from calibtrain.cli.configurations import config_app
from calibtrain.cli.consistency import consistency
from calibtrain.cli.ensembling import ensemble
from calibtrain.cli.evaluating import evaluate, report
from calibtrain.cli.generating import generate
from calibtrain.cli.launching import launch_app
from calibtrain.cli.lens import lens
from calibtrain.cli.listing import runs
from calibtrain.cli.measuring import measure
from calibtrain.cli.models import export, import_
from calibtrain.cli.options import as_typed
from calibtrain.cli.temperature import temperature_app
from calibtrain.cli.tokenizers import tokenizer_app
from calibtrain.cli.tracing import trace
from calibtrain.cli.training import ablate, finetune, train
from calibtrain.errors import TransientError, UserError, one_line
from calibtrain.parallel.tpu import backend_failure
from calibtrain.process.interruption import end_now, interruptible, unwinding
from calibtrain.process.limits import lacks_memory, require_room
from calibtrain.process.output import OutputError, drop_output, end, prepare_streams, say, telling
from calibtrain.storage.places import bucket_failure

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Does vocabulary size change how well a language model knows what it knows?\n\n"
    "Start with: **calibtrain ablate quickstart**, then open the report it names.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "ablate": ablate,
    "finetune": finetune,
    "evaluate": evaluate,
    "measure": measure,
    "generate": generate,
    "ensemble": ensemble,
    "entropy": entropy,
    "memory": memory,
    "typicality": typicality,
    "lookahead": lookahead,
    "trace": trace,
    "consistency": consistency,
    "lens": lens,
    "qa": qa,
    "report": report,
    "runs": runs,
    "compile": compile_,
    "import": import_,
    "export": export,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(temperature_app, name="temperature")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(config_app, name="config")
app.add_typer(launch_app, name="launch")
LESS_MEMORY = (
    "lower batch.rows, context or model.width, set batch.accumulate, or raise the limit (ulimit -v)"
)
LIGHT = ("report", "runs", "config")
"""Commands that only read and write files."""


def show_version(asked: bool) -> None:
    """Prints the version and ends the command, if it is asked for."""
    if asked:
        print(f"calibtrain {calibtrain.__version__}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Checks threads and memory before a command loads JAX."""
    if context.invoked_subcommand not in LIGHT:
        require_room()


def demanded_platforms() -> str | None:
    """Returns what JAX_PLATFORMS should be where libtpu is here; None leaves the choice to JAX.

    Without a TPU, JAX would look for one for minutes. With one, JAX would compute on the CPU in
    silence where it cannot use it.
    """
    if importlib.util.find_spec("libtpu") is None:
        return None
    from calibtrain.parallel.tpu import has_chips, has_tpus

    if has_tpus():
        return "tpu,cpu"
    gpus = list(importlib.metadata.entry_points(group="jax_plugins"))
    return None if gpus or has_chips() else "cpu"


def main() -> None:
    """Runs the command and exits with its status."""
    prepare_streams()
    with interruptible():
        code = run()
    sys.exit(code)


def run() -> int:
    """Runs the command that was typed; an error is printed in one line.

    Returns:
        The exit status: 0, 2 for a user's mistake, 75 where the command may succeed when started
        again, or that of another failure.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if platforms := demanded_platforms():
            os.environ.setdefault("JAX_PLATFORMS", platforms)
        with telling(say):
            code = typer.main.get_command(app).main(standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        if stop := unwinding():
            number, left = stop
            end_now(number, left)
        told = _told(error)
        if told is None:
            if _has_met_others():
                traceback.print_exc()
                end("", 1)  # without waiting for the others, which notice that this process is gone
            raise
        text, code = told
        if text:
            text = "calibtrain: " + one_line(text)
        # threads that lack memory, or wait for other processes, would not end
        if code == TransientError.status or _has_met_others() or lacks_memory(error):
            end(text, code)
        if text:
            say(text)
        return code


def _told(error: BaseException) -> tuple[str, int] | None:
    """Returns the line and the exit status for an error; None for one that needs a traceback."""
    match error:
        case UserError():
            return str(error), error.status
        case OutputError(__cause__=BrokenPipeError()):  # the reader of our output has ended
            drop_output()
            return "", 141
        case OutputError():
            drop_output()
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            return (
                f"standard output: the result could not be printed ({reason}); files that the "
                "command wrote are whole",
                2,
            )
        case typer.exceptions.TyperException():
            formatted = getattr(error, "format_message", error.__str__)()
            return f"{' '.join(formatted.split())} In: {as_typed()} (see --help)", error.exit_code
        case typer.Abort():
            return "", 130
        case _ if lacks_memory(error):
            return f"memory: not enough for this ({_first_line(error)}); {LESS_MEMORY}", 2
        case _ if failure := bucket_failure(error) or backend_failure(error):
            return str(failure), failure.status
        case OSError():  # files have their own messages
            return f"{error.filename or 'input or output'}: {error.strerror or error}", 2
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _has_met_others() -> bool:
    """Returns whether this process has joined others, which wait for it when it ends."""
    hosts: Any = sys.modules.get("calibtrain.parallel.hosts")
    return hosts is not None and hosts.met
