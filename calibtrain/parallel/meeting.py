"""Joins the processes of a run, and notices when one of them is lost.

JAX's runtime waits for processes inside C++, where signals are not handled, and aborts with a trace
when one is lost. So the runtime is started in a thread that the main thread waits for, and its
abort is replaced by one line.
"""

import atexit
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from calibtrain.errors import LostError, TransientError, UserError
from calibtrain.process.output import end, rewired, say

WAIT, LOST = "CALIBTRAIN_WAIT", "CALIBTRAIN_LOST"
"""Environment variables: seconds to wait for the others, and seconds until a silent one is lost."""
WAIT_SECONDS, LOST_SECONDS = 300, 100
LEAST_SECONDS = {WAIT: 1, LOST: 5}
_BEGIN_AGAIN = "start every process of the run again"
_LOST_LINE = (
    "another process of this run is lost, or cannot be reached; "
    f"{_BEGIN_AGAIN}: the same command goes on from the last checkpoint"
)
_MISFIT = re.compile("INVALID_ARGUMENT|OUT_OF_RANGE|FAILED_PRECONDITION")
"""What the coordination service answers to a process that does not belong to the others."""
_LOSS = re.compile(
    r"[Gg]loo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED"
    r"|[Cc]onnection (closed|reset|refused)|[Cc]oordination ?[Ss]ervice|heartbeat"
)
_FATAL = re.compile(r"F\d{4} |terminate called after|\*\*\* Check failure")
_FATAL_LOSS = re.compile(r"distributed service|[Cc]oordination|heartbeat|UNAVAILABLE")
_GREETING = "[Gloo] Rank"
_noticed = threading.Event()
"""Set once a loss was noticed: what the runtime writes about it afterwards is not passed on."""


def join(arguments: Mapping[str, Any]) -> None:
    """Waits until all processes have joined; first says who is awaited, and for how long.

    Args:
        arguments: arguments of `jax.distributed.initialize`, without those that it finds itself.

    Raises:
        TransientError: when they did not all join in time, or could not reach each other.
        UserError: for processes that do not fit together.
    """
    wait, lost = _seconds(WAIT, WAIT_SECONDS), _seconds(LOST, LOST_SECONDS)
    awaited = _awaited(arguments)
    say(f"calibtrain: {awaited}, for at most {wait} s ({WAIT})")
    failures: list[BaseException] = []

    def initialize() -> None:
        import jax

        try:
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=wait
                + 60,  # our own wait, which can be interrupted, ends first
                heartbeat_timeout_seconds=lost,
                shutdown_timeout_seconds=lost,
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=initialize, name="meeting", daemon=True)
    thread.start()
    thread.join(wait)
    if thread.is_alive():
        raise TransientError(
            f"{awaited}: not all came within {wait} s; see whether they run and reach that "
            f"address, and {_BEGIN_AGAIN}"
        )
    for error in failures:
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) or (
            isinstance(error, RuntimeError) and _MISFIT.search(text)
        ):
            raise UserError(
                f"{awaited}: they did not meet ({text}); start all with one address, whose port "
                "is free, and one number of processes"
            ) from None
        if isinstance(error, RuntimeError | OSError):
            raise TransientError(f"{awaited}: they did not meet ({text}); {_BEGIN_AGAIN}") from None
        raise error


def lost(error: Exception) -> LostError | None:
    """Returns the error to raise where a collective failed because a process is lost, or None."""
    text = str(error)
    if not isinstance(error, RuntimeError | ValueError | OSError) or not _LOSS.search(text):
        return None
    _noticed.set()
    first = text.strip().splitlines()[0]
    return LostError(f"{_LOST_LINE} ({first[:300]})")


def _seconds(name: str, default: int) -> int:
    """Returns a number of seconds from the environment."""
    given, least = os.environ.get(name), LEAST_SECONDS[name]
    if given is None:
        return default
    if not re.fullmatch(r"[0-9]{1,6}", given) or int(given) < least:
        raise UserError(f"{name}={given[:80]}: must be a number of seconds, {least} to 999999")
    return int(given)


def _awaited(arguments: Mapping[str, Any]) -> str:
    """Returns a message that says who waits for whom."""
    if "num_processes" not in arguments:
        return _awaited_by_engine(os.environ)
    count, number = arguments["num_processes"], arguments["process_id"]
    others = "the other one" if count == 2 else f"the {count - 1} others"
    return f"process {number} of {count} waits for {others} at {arguments['coordinator_address']}"


def _awaited_by_engine(environment: Mapping[str, str]) -> str:
    """Returns who waits for whom, by the variables of GKE or Slurm."""
    slices = environment.get("MEGASCALE_NUM_SLICES", "")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    host = f"host {environment.get('TPU_WORKER_ID', '?')} of {len(hosts)}"
    if slices.isdigit() and int(slices) > 1:
        own = environment.get("MEGASCALE_SLICE_ID", "?")
        others = ", ".join(str(n) for n in range(min(int(slices), 9)) if str(n) != own)
        first = environment.get("MEGASCALE_COORDINATOR_ADDRESS", "slice 0")
        return f"slice {own} of {slices}, {host}, waits for slices {others} at {first}"
    if len(hosts) > 1:
        return f"{host} waits for the others at {hosts[0]}"
    if "SLURM_PROCID" in environment:
        tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "?")
        nodes = environment.get("SLURM_STEP_NODELIST", "")
        return f"task {environment['SLURM_PROCID']} of {tasks} waits for the others on {nodes}"
    return "waits for the other processes of this job"


def catch_aborts() -> None:
    """Makes the runtime's abort end the process with one line, if it is about a lost process.

    What C++ writes to standard error goes through a thread, which holds back the text of an abort,
    and what follows a loss that was noticed already: the line that tells of it is the last one.
    The handler of the abort runs in the aborting thread, which is not a Python thread.
    """
    global _on_abort
    sys.stderr.flush()
    real = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = rewired(sys.stderr, os.dup(real))
    held: list[bytes] = []

    def forward() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                text = line.decode("utf-8", "replace")
                if held or _FATAL.match(text):
                    held.append(line)
                elif not text.startswith(_GREETING) and not _noticed.is_set():
                    os.write(real, line)

    thread = threading.Thread(target=forward, name="standard error", daemon=True)
    thread.start()

    def aborted(number: int) -> None:
        time.sleep(0.3)  # the thread needs time to read what was written
        text = b"".join(held)
        if _FATAL_LOSS.search(text.decode("utf-8", "replace")):
            end(f"calibtrain: {_LOST_LINE}", TransientError.status)
        os.write(real, text)

    def restore() -> None:
        os.dup2(real, 2)
        thread.join(1)
        for line in held:
            os.write(real, line)

    atexit.register(restore)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _on_abort = kind(aborted)
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = [ctypes.c_int, kind], ctypes.c_void_p
    install(signal.SIGABRT, _on_abort)


_on_abort: Any = None
