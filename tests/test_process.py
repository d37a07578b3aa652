"""How a process ends: its streams, its signals and what the system grants it."""

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from calibtrain.cli.result_tables import print_table, results_tables
from calibtrain.config import load_config
from calibtrain.errors import TransientError, UserError
from calibtrain.launch.worker import STOPPED, watch
from calibtrain.process import limits, output

pytestmark = pytest.mark.long

CALIBTRAIN = f"{sys.executable} -m calibtrain"
UNPRINTED = "calibtrain: standard output: the result could not be printed"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash."""
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">&-", 2, f"{UNPRINTED} (Bad file descriptor); files that the command wrote are whole\n"),
        ("> /dev/full", 2, f"{UNPRINTED} (No space left on device)"),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&-", 0, ""),
        ("<&- 2>&- >&-", 2, ""),
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_streams_that_are_closed_or_full(redirection: str, status: int, said: str) -> None:
    done = shell(f"{CALIBTRAIN} config schema {redirection}")
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == (1 if said else 0)


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a library prints would then be written into it."""
    code = (
        "from calibtrain.process.output import prepare_streams; prepare_streams(); import os; "
        f"fd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY); os._exit(fd)"
    )
    assert shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-').returncode > 2


def test_a_configuration_that_is_printed_in_ascii_is_read_back(tmp_path: Path) -> None:
    path, shown = tmp_path / "x.yaml", tmp_path / "shown.yaml"
    path.write_text("corpus: {name: files, paths: ['吾輩.txt', '1e3', '0o7']}", encoding="utf-8")
    done = shell(f"{CALIBTRAIN} config show {path} > {shown}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert shown.read_bytes().isascii()
    assert load_config(shown) == load_config(path)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_ascii_and_tables_degrade(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    output.prepare_streams()
    output.print_json({"name": "吾輩 ± – \udce9"})
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode("ascii")) == {"name": "吾輩 ± – \udce9"}
    written.truncate(0)
    written.seek(0)
    print_table(results_tables([("吾輩 é ±", {"bits_per_byte": 1.5})])[0])
    print("file \udce9")
    sys.stdout.flush()
    text = written.getvalue()
    assert b"\\u543e\\u8f29" in text
    assert b"1.5000" in text
    assert b"file \xe9\n" in text  # the byte that a file's name holds
    output.say("吾輩")


def test_a_configuration_is_printed_as_yaml_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from calibtrain.cli.configurations import config_show

    config = tmp_path / "config.yaml"
    config.write_text("corpus: {name: files, paths: ['吾輩/*.txt']}\n", "utf-8")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    config_show(config)
    sys.stdout.flush()
    assert yaml.safe_load(written.getvalue())["corpus"]["paths"] == ["吾輩/*.txt"]


def test_too_little_address_space_is_refused() -> None:
    done = shell(f"ulimit -v 2000000; {CALIBTRAIN} train any.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("calibtrain: ulimit -v: 2000000 KiB of address space are too few")
    assert done.stderr.count("\n") == 1


def test_too_few_threads_or_too_small_a_stack_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limits.require_room()
    start, count = threading.Thread.start, iter(range(50))

    def limited(thread: threading.Thread) -> None:
        if next(count, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(UserError, match=r"threads: the system grants 50 and \d+ are needed"):
        limits.require_room()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (512 << 10, -1))
    with pytest.raises(UserError, match="ulimit -s: 512 KiB of stack are too few"):
        limits.require_room()


def test_lack_of_memory_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from calibtrain import config; from calibtrain.cli import main as cli\n"
        "def load(*ignored): raise MemoryError\n"
        "config.load_config = load\n"
        "sys.argv = ['calibtrain', 'train', 'any.yaml']\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("calibtrain: memory: not enough for this (MemoryError); lower")
    assert done.stderr.count("\n") == 1


STUCK = """
import ctypes, sys, time
from calibtrain import config
from calibtrain.cli import main as cli
from calibtrain.process import interruption
interruption.PATIENCE = 0.5
def stuck(*ignored):
    print("here", flush=True)
    c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    {what}
config.load_config = stuck
sys.argv = ["calibtrain", "train", "any.yaml", "--run", "run"]
cli.main()
"""
IN_C = "c.pthread_mutex_lock(lock); c.pthread_mutex_lock(lock)"
UNWINDING_HANGS = """
    try: time.sleep(60)
    finally: time.sleep(60)
"""
WRAPPED = """
    try: time.sleep(60)
    except BaseException: raise RuntimeError("INTERNAL: Interrupted") from None
"""


@pytest.mark.parametrize("what", [IN_C, UNWINDING_HANGS, WRAPPED])
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_signal_ends_what_does_not_come_to_it(
    what: str, numbers: list[signal.Signals], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(what=what)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + numbers[0]
    left = "before training began; nothing was left"
    assert errors == f"calibtrain: stopped by {numbers[0].name} {left}\n"


def test_an_engine_starts_again_what_lost_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def lost(arguments: list[str], **options: object) -> "subprocess.Popen[str]":
        code = f"raise SystemExit({TransientError.status})"
        return popen([sys.executable, "-c", code], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", lost)
    assert watch(["train"]) == STOPPED


def test_a_log_that_is_full_does_not_make_a_finished_run_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    popen = subprocess.Popen

    def done(arguments: list[str], **options: object) -> "subprocess.Popen[str]":
        code = 'print(\'{"status": "done"}\')'
        return popen([sys.executable, "-c", code], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", done)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert watch(["train"]) == 0
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def test_an_unbuffered_stream_stays_so() -> None:
    """What is said before a process ends at once would be lost otherwise."""
    code = (
        "from calibtrain.process.output import prepare_streams, rewired; prepare_streams(); "
        "import os, sys; "
        "print('out'); sys.stderr = rewired(sys.stderr, os.dup(2)); "
        "sys.stderr.write('said\\n'); os._exit(0)"
    )
    done = shell(f'{sys.executable} -c "{code}"', PYTHONUNBUFFERED="1")
    assert (done.stdout, done.stderr) == ("out\n", "said\n")
