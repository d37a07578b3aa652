"""`python -m calibtrain` is `calibtrain`: signals are handled before anything heavy is imported."""

# ruff: noqa: E402

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # not a traceback, for the moment until `main`

import gc
import sys

from calibtrain.process.interruption import Interrupted, end_now, interruptible
from calibtrain.process.output import prepare_streams


def main() -> None:
    """Entry point."""
    # JAX makes objects by the million; looking for cycles at every 700 takes a tenth of a command
    gc.set_threshold(10_000)
    prepare_streams()  # before anything gets the number of a stream that is closed
    with interruptible():
        try:
            from calibtrain.cli.main import run

            code = run()
        except Interrupted as stop:
            end_now(stop.number)
    gc.freeze()  # what is left needs no search for cycles
    sys.exit(code)


if __name__ == "__main__":
    main()
