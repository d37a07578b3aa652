"""Memory by huge pages, which the C library asks for only where a process starts with that setting.

A step on a CPU gets its temporary arrays from the C library, which gives large ones back to the
system when the step is done. So every step touches them anew, and the kernel clears and maps them 4
KiB at a time. Where Linux gives huge pages to those who ask, glibc asks if `GLIBC_TUNABLES` says so
when the process starts (Linux, Documentation/admin-guide/mm/transhuge.rst; glibc's manual, "Memory
Allocation Tunables").
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_HUGE = "glibc.malloc.hugetlb"
_BEFORE = "CALIBTRAIN_TUNABLES_BEFORE"
"""Holds, for the command that is started again, what the user had in `GLIBC_TUNABLES`."""

_OF_LINUX = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_COMMANDS = ("calibtrain", "__main__.py")


def use_huge_pages() -> None:
    """Starts this command again, as the same process, with huge pages asked for.

    It returns where that changes nothing: after it was started so, where the user's own setting
    says yes or no, where Linux gives such pages to all or to none, and for another C library. A
    program that only calls the command is never started again.
    """
    mine = os.environ.get(_TUNABLES, "")
    if (before := os.environ.pop(_BEFORE, None)) is not None:
        # glibc has read it; programs that this one starts get the user's environment
        os.environ[_TUNABLES] = before
        if not before:
            del os.environ[_TUNABLES]
        return
    if not _was_typed() or _HUGE in mine or not _are_for_those_who_ask():
        return
    tunables = f"{mine}:{_HUGE}=1" if mine else f"{_HUGE}=1"
    environment = {**os.environ, _TUNABLES: tunables, _BEFORE: mine}
    with suppress(OSError):  # it works without, only slower
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _was_typed() -> bool:
    """Whether this process was started with the words of this command, and no debugger watches."""
    first, typed = len(sys.orig_argv) - len(sys.argv), sys.orig_argv[-len(sys.argv) :]
    named = sys.executable and first > 0 and Path(typed[0]).name in _COMMANDS
    return bool(named) and typed[1:] == sys.argv[1:] and sys.gettrace() is None


def _are_for_those_who_ask() -> bool:
    """Whether glibc can ask (from 2.35 on) and Linux answers."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        asks = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
        return asks and "[madvise]" in _OF_LINUX.read_text(encoding="ascii")
    except (ValueError, OSError, AttributeError):  # another C library, or another system
        return False
