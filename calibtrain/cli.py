"""The command line: parse, call, print. All work is done by functions that a notebook can call.

Results go to standard output, everything else to standard error. A user's mistake is one line and
exit status 2. Heavy imports happen inside the commands, so that `--help` is quick.
"""

import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Callable

import typer

from calibtrain.commands.compiling import compile_
from calibtrain.commands.configurations import config_app
from calibtrain.commands.evaluating import evaluate, report
from calibtrain.commands.launching import launch_app
from calibtrain.commands.models import export, import_
from calibtrain.commands.options import as_typed
from calibtrain.commands.temperature import temperature_app
from calibtrain.commands.tokenizers import tokenizer_app
from calibtrain.commands.training import ablate, finetune, train
from calibtrain.errors import UserError, one_line
from calibtrain.interruption import Interrupted, interruptible
from calibtrain.output import say, telling

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Does vocabulary size change how well a language model knows what it knows?\n\n"
    "Start with: **calibtrain ablate configs/quickstart.yaml**, then open the report it names.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "ablate": ablate,
    "finetune": finetune,
    "evaluate": evaluate,
    "report": report,
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
        with interruptible(), telling(say):
            code = command.main(standalone_mode=False)
            sys.stdout.flush()
    except UserError as error:
        say("calibtrain: " + one_line(str(error)))
        code = 2
    except Interrupted as stop:
        say(f"calibtrain: stopped by {signal.Signals(stop.number).name}{stop.left}")
        code = 128 + stop.number
    except BrokenPipeError:  # the reader of our output went away
        drop_output()
        code = 141
    except OSError as error:  # of standard output: files have their own messages
        drop_output()
        say("calibtrain: " + one_line(f"{error.filename or 'output'}: {error.strerror or error}"))
        code = 2
    except typer.exceptions.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        say("calibtrain: " + one_line(f"{' '.join(message.split())} In: {as_typed()} (see --help)"))
        code = error.exit_code
    except typer.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
