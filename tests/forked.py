"""Code in forked children of one process that has imported everything: no Python starts anew.

The parent imports JAX but never asks it for a device, and no module that it imports starts a thread
of Python, which a child would miss (`preload` makes sure); so a child is what a fresh process is
after its imports. What needs JAX to prepare or to read a case is done in a child, too.
"""

import atexit
import ctypes
import importlib
import logging
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMPORTED_LATE = (
    "orbax.checkpoint.v1",
    "pyarrow.parquet",
    "grain",
    "plotly.graph_objects",
    "safetensors.numpy",
    "gguf",
    "tokenizers",
    "scipy.stats",
    "sentencepiece",
    "rich.progress",
    "jax.experimental.compilation_cache.compilation_cache",
)
"""What commands import while they work."""


def preload() -> None:
    """Import all that commands may need.

    Raises:
        RuntimeError: where that started a device or a thread of Python, which no fork survives.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import calibtrain

    for module in pkgutil.walk_packages(calibtrain.__path__, "calibtrain."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in IMPORTED_LATE:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    logging.getLogger().handlers.clear()  # which an import that no command makes has left
    from jax._src import xla_bridge

    if xla_bridge._backends or threading.active_count() > 1:
        raise RuntimeError("importing calibtrain started a device or a thread: nothing can fork")


def share_programs(compiled: Path) -> None:
    """Keep every compiled program where the other children find it, however short it took."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    update = jax.config.update

    def update_others(name: str, value: Any) -> None:
        if "_cache_" not in name:
            update(name, value)

    jax.config.update = update_others  # type: ignore[method-assign]


def child(
    run: Callable[[], None], out: Path, err: Path, seconds: float
) -> tuple[int | None, float]:
    """Run a function in a forked child with output of its own; its status and seconds.

    It is killed after so many seconds of an idle machine; on a busy one it has longer.
    """
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number == 0:
        os._exit(_inside(run, out, err))
    status, limit = None, seconds * busyness()
    while status is None and time.monotonic() - began < limit:
        found, code = os.waitpid(number, os.WNOHANG)
        if found:
            status = os.waitstatus_to_exitcode(code)
        else:
            time.sleep(0.01)
    took = time.monotonic() - began
    if status is None:
        os.killpg(number, signal.SIGKILL)
        os.waitpid(number, 0)
    return status, took


def end_with_parent() -> None:
    """Let this process be killed when the one that forked it ends; where the system is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def busyness() -> float:
    """How many times longer a command takes here than on an idle machine, from 1 to 10."""
    return min(10.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def _inside(run: Callable[[], None], out: Path, err: Path) -> int:
    """What a child does; returns its status, as the interpreter would end with it."""
    try:
        end_with_parent()
        os.setpgid(0, 0)
        for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
            flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0)
            os.dup2(os.open(path, flags, 0o644), number)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status: Any = 0
        try:
            run()
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        return status if isinstance(status, int) else int(status is not None)
    except BaseException:
        return 120
