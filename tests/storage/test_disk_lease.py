"""Locks where the file system has none: `flock` fails in these processes, as on Lustre."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
FAILS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = ENOSYS; return -1; }
"""
HOLDS = """if True:
    import sys, time
    from pathlib import Path
    from calibtrain.errors import UserError
    from calibtrain.storage import disk, disk_lease
    from calibtrain.storage.disk_lock import held_to_read, held_to_write, is_held_to_write
    disk_lease.REFRESH, disk_lease.STALE, disk_lease.WATCH = 0.1, 1.5, 0.05
    path, does = Path(sys.argv[1]) / ".lock", sys.argv[2]
    try:
        if does == "cache":
            with disk.locked(path):
                print("held", flush=True)
        elif does == "read":
            with held_to_read(path):
                print("read", is_held_to_write(path), flush=True)
        else:
            with held_to_write(path) as lease:
                print("held", flush=True)
                sys.stdin.readline()
                lease.require()
    except UserError as error:
        print(error.status, error, flush=True)
"""


@pytest.fixture(scope="module")
def without_flock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the C library's `flock` fails as it does on Lustre."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to replace flock with")
    folder = tmp_path_factory.mktemp("flock")
    (folder / "flock.c").write_text(FAILS)
    library = folder / "flock.so"
    command = [compiler, "-shared", "-fPIC", "-o", library, folder / "flock.c"]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def begun(folder: Path, does: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder, does],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_lease_keeps_others_out_until_its_holder_dies(
    tmp_path: Path, without_flock: dict[str, str]
) -> None:
    first = begun(tmp_path, "write", without_flock)
    assert said(first) == "held\n"
    second, reader = (begun(tmp_path, does, without_flock) for does in ("write", "read"))
    for refused in (second, reader):
        line = said(refused)
        assert line.startswith(f"75 {tmp_path}: is being written by another process"), line
        refused.communicate()
    waits = begun(tmp_path, "cache", without_flock)
    first.kill()
    first.communicate()
    assert said(waits) == "held\n"  # not before the lease was stale, and long before a minute
    waits.communicate()
    third = begun(tmp_path, "write", without_flock)
    assert said(third) == "held\n"
    third.communicate("\n")
    assert third.returncode == 0
    assert not (tmp_path / ".lock.lease").exists()
    assert said(begun(tmp_path, "read", without_flock)) == "read False\n"


def test_a_lease_that_was_taken_over_is_noticed(
    tmp_path: Path, without_flock: dict[str, str]
) -> None:
    first = begun(tmp_path, "write", without_flock)
    assert said(first) == "held\n"
    (tmp_path / ".lock.lease").write_text('{"id": "another"}')
    time.sleep(1)  # its holder looks at it every tenth of a second
    output, _ = first.communicate("\n", timeout=20)
    assert "another may write the run now" in output
    assert (tmp_path / ".lock.lease").exists()  # it is the other's
