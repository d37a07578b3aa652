"""Threads and address space, tried before libraries are loaded that hang or abort without them.

Some libraries start threads when they are loaded; where that fails, they wait for a lock forever
and ignore signals. So a command first asks the system for as many threads, and as much address
space, as the smallest training takes.
"""

import mmap
import os
import re
import resource
import threading

from calibtrain.errors import UserError

THREADS = 80
"""Threads that a small training starts on any machine; 64 of them read records."""
THREADS_PER_CORE = 12
ADDRESS_SPACE = 2048 << 20
"""Bytes of address space that libraries and a small training take beside their threads' stacks."""
STACK = 1 << 20
"""Bytes of stack below which a thread that compiles overflows."""
_USUAL_STACK = 8 << 20


def require_room() -> None:
    """Refuses to begin where stack, threads or address space do not suffice for a small training.

    Raises:
        UserError: where one does not; it names the limit, its value, and what is needed.
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if 0 <= stack < STACK:
        raise UserError(
            f"ulimit -s: {stack >> 10} KiB of stack are too few; at least {STACK >> 10} are needed "
            f"({_USUAL_STACK >> 10} are usual)"
        )
    threads = THREADS + THREADS_PER_CORE * (os.cpu_count() or 1)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space >= 0:
        needed = ADDRESS_SPACE + threads * (stack if stack >= 0 else _USUAL_STACK)
        try:
            mmap.mmap(-1, max(1, needed - _taken()), prot=mmap.PROT_READ).close()
        except OSError:
            raise UserError(
                f"ulimit -v: {space >> 10} KiB of address space are too few; at least "
                f"{needed >> 10} are needed for the smallest run, or: ulimit -v unlimited"
            ) from None
    started = _can_start(threads)
    if started < threads:
        raise UserError(
            f"threads: the system grants {started} and {threads} are needed; raise the limit "
            "(ulimit -u, a container's --pids-limit, a cgroup's pids.max), or lower ulimit -s"
        )


def lacks_memory(error: BaseException) -> bool:
    """Returns whether an exception of Python or JAX says that memory or threads ran out."""
    if isinstance(error, MemoryError):
        return True
    pattern = r"RESOURCE_EXHAUSTED|[Oo]ut of memory|bad_alloc|start new thread|[Cc]annot allocate"
    return isinstance(error, RuntimeError | ValueError | OSError) and bool(
        re.search(pattern, str(error))
    )


def _taken() -> int:
    """Returns the bytes of address space that this process has."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return 0


def _can_start(count: int) -> int:
    """Returns how many of `count` threads the system lets run at once."""
    gate, started = threading.Event(), []
    try:
        for _ in range(count):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:  # "can't start new thread"
        pass
    finally:
        gate.set()
        for thread in started:
            thread.join()
    return len(started)
