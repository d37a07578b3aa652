"""Several processes as one run, for real: on loopback, with gloo collectives."""

import functools
import http.server
import importlib.util
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import TINY, assert_same, tiny

from calibtrain.config import Config, to_yaml, validate
from calibtrain.errors import TransientError, UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.parallel import hosts, meeting
from calibtrain.runs.checkpoint import steps_saved
from calibtrain.runs.folder import RunFolder

pytestmark = pytest.mark.long


def start(
    count: int,
    config: Path,
    run: Path,
    *,
    only: int | None = None,
    folders: Sequence[Path] = (),
    most_bytes: Sequence[int | None] = (),
    **environment: str,
) -> list[subprocess.Popen[str]]:
    """The processes of one run, or only one of them.

    If given, each has a folder of its own, and may write files of so many bytes.
    """

    def limit(most: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "calibtrain", "train", config, "--run", run, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folders[number] if folders else None,
            preexec_fn=functools.partial(limit, most)
            if most_bytes and (most := most_bytes[number])
            else None,
            env={
                **os.environ,
                **environment,
                "CALIBTRAIN_COORDINATOR": f"localhost:{port}",
                "CALIBTRAIN_PROCESSES": str(count),
                "CALIBTRAIN_PROCESS": str(number),
            },
        )
        for number in (range(count) if only is None else [only])
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for all; what each said on standard output."""
    said = [process.communicate(timeout=240) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]


def wait_for(run: Path, step: int) -> None:
    """Until a checkpoint of this step, or of a later one, is whole."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if max(steps_saved(run / "checkpoints"), default=0) >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration's file, and a run of it by two processes."""
    folder = tmp_path_factory.mktemp("hosts")
    config = folder / "config.yaml"
    config.write_text(to_yaml(tiny(batch={"rows": 8}, budget={"steps": 60})))
    said = finish(start(2, config, folder / "run"))
    assert '"status": "done"' in said[0]
    assert said[1] == ""  # one speaks for all
    return config, folder / "run"


def test_one_killed_the_run_started_again_ends_the_same(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, whole = undisturbed
    run = tmp_path / "run"
    processes = start(2, config, run)
    wait_for(run, 12)
    processes[1].kill()
    processes[0].kill()  # as an engine does with the rest; alone it would give up by itself
    for process in processes:
        process.communicate()
    assert steps_saved(run / "checkpoints")[-1] < 60
    finish(start(2, config, run))
    assert_same(run, whole)


def test_several_processes_write_under_any_name_of_a_folder(tmp_path: Path) -> None:
    """Each gives Orbax the folder by a link of its own."""
    config, run = tmp_path / "config.yaml", tmp_path / "v[1] *" / "run"
    config.write_text(to_yaml(tiny(batch={"rows": 8}, budget={"steps": 6})))
    finish(start(2, config, run))
    assert steps_saved(run / "checkpoints") == [6]
    assert evaluate_run(run, limit=300).about["step"] == 6


def test_sigterm_to_one_stops_all_at_the_same_step(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, whole = undisturbed
    run = tmp_path / "run"
    processes = start(2, config, run)
    wait_for(run, 12)
    processes[1].send_signal(signal.SIGTERM)
    said = finish(processes)
    assert '"status": "stopped"' in said[0]
    assert steps_saved(run / "checkpoints")[-1] < 60
    finish(start(2, config, run))
    assert_same(run, whole)


def test_hosts_with_other_texts_end_before_the_first_step(tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    text = {"name": "files", "paths": ["texts/*.txt"]}
    config.write_text(
        to_yaml(validate(Config, {**TINY, "corpus": text, "tokenizer": {"vocab_size": 290}}))
    )
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, word in zip(folders, ("words", "wards"), strict=True):
        (folder / "texts").mkdir(parents=True)
        for number in range(30):
            lines = [f"{number * line} {word} of a text, and line {line}\n" for line in range(90)]
            (folder / "texts" / f"{number}.txt").write_text("".join(lines))
    processes = start(2, config, run, folders=folders)
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 2, errors
        assert "corpus: process(es) 1 of this run have another text than process 0" in errors
    assert not run.exists()


def test_a_save_that_fails_on_one_host_ends_all_at_once(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """The others do not wait for what the one would have written."""
    config, _ = undisturbed
    run = tmp_path / "run"
    processes = start(2, config, run, most_bytes=(None, 2_000))
    began = time.monotonic()
    said = [process.communicate(timeout=240)[1].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert "another process of this run failed" in said[0]
    assert "cannot write: the file would be larger than the system allows" in said[1]
    assert time.monotonic() - began < 200  # Orbax would wait for 300 s
    assert steps_saved(run / "checkpoints") == []


def test_four_processes(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    from test_mesh import assert_close

    config, whole = undisturbed
    finish(start(4, config, tmp_path / "run"))
    assert_close(whole, tmp_path / "run")


def test_one_that_waits_alone_says_so_and_ends_in_time(tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny()))
    for number in (0, 1):  # the one that others come to, and one that comes to it
        (alone,) = start(2, config, run, only=number, CALIBTRAIN_WAIT="2")
        output, errors = alone.communicate(timeout=60)
        assert alone.returncode == 75, errors
        awaited = rf"calibtrain: process {number} of 2 waits for the other one at localhost:\d+"
        said = errors.splitlines()
        assert len(said) == 2, errors
        assert re.fullmatch(rf"{awaited}, for at most 2 s \(CALIBTRAIN_WAIT\)", said[0])
        assert re.match(f"{awaited}: not all came within 2 s", said[1])
        assert output == ""
        assert not run.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_waits_alone_obeys_signals(number: signal.Signals, tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny()))
    (alone,) = start(2, config, run, only=number % 2)
    assert alone.stderr is not None
    assert "waits for" in alone.stderr.readline()
    began = time.monotonic()
    alone.send_signal(number)
    _, errors = alone.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert alone.returncode == 128 + number
    left = "before training began; nothing was left"
    assert errors == f"calibtrain: stopped by {number.name} {left}\n"


@pytest.mark.parametrize(("lost", "how"), [(0, signal.SIGKILL), (1, signal.SIGKILL)])
def test_one_that_lost_the_other_ends_in_one_line(
    lost: int, how: signal.Signals, tmp_path: Path
) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny(batch={"rows": 8}, budget={"steps": 5000})))
    processes = start(2, config, run, CALIBTRAIN_LOST="10")
    wait_for(run, 6)
    processes[lost].send_signal(how)
    _, errors = processes[1 - lost].communicate(timeout=60)
    processes[lost].communicate()
    assert processes[1 - lost].returncode == 75, errors
    assert "calibtrain: another process of this run is lost" in errors.splitlines()[-1]
    assert errors.count("is lost") == 1
    for trace in ("Traceback", "***", "F1", "Gloo]"):
        assert trace not in errors
    summary = RunFolder(run).read_summary()
    assert summary is None or summary.status != "failed"


def test_what_the_runtime_writes_after_a_loss_was_noticed_is_not_passed_on() -> None:
    script = """if True:
        import os, time
        from calibtrain.parallel import meeting
        from calibtrain.process.output import say
        meeting.catch_aborts()
        os.write(2, b"E1129 before\\n")
        time.sleep(0.3)
        assert meeting.lost(ValueError("of another kind")) is None
        say(str(meeting.lost(RuntimeError("UNAVAILABLE: Connection reset by peer"))))
        os.write(2, b"E1129 coordination_service_agent.cc:289] Polled an error\\n")
    """
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    before, told = ended.stderr.splitlines()
    assert before == "E1129 before"
    assert told.startswith("another process of this run is lost")


@pytest.mark.parametrize(
    ("name", "value"),
    [("CALIBTRAIN_WAIT", "soon"), ("CALIBTRAIN_WAIT", "0"), ("CALIBTRAIN_LOST", "-3")],
)
def test_seconds_to_wait_are_numbers(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}={value}: must be a number of seconds"):
        meeting.join({})


def test_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hosts.ADDRESS, "localhost:1")
    with pytest.raises(UserError, match="CALIBTRAIN_PROCESSES: is required"):
        hosts.start()
    monkeypatch.setenv(hosts.COUNT, "2")
    monkeypatch.setenv(hosts.NUMBER, "2")
    with pytest.raises(UserError, match=r"CALIBTRAIN_PROCESS=2: must be in 0\.\.1"):
        hosts.start()
    for count in ("0", "100001"):
        monkeypatch.setenv(hosts.COUNT, count)
        with pytest.raises(UserError, match=rf"CALIBTRAIN_PROCESSES={count}: must be in 1\.\."):
            hosts.start()
    for count in ("99999999999999999999", "0x2", "-1", "1e1"):
        monkeypatch.setenv(hosts.COUNT, count)
        with pytest.raises(UserError, match=f"CALIBTRAIN_PROCESSES={count}, .*must be numbers"):
            hosts.start()
    monkeypatch.setenv(hosts.ADDRESS, "localhost")
    with pytest.raises(UserError, match="CALIBTRAIN_COORDINATOR=localhost: must be HOST:PORT"):
        hosts.start()


def test_replicas_are_divided_over_processes(tmp_path: Path) -> None:
    """A seed a process, saved by both, is what the seed is by itself; and goes on on one host."""
    from test_mesh import assert_close

    config, run = tmp_path / "config.yaml", tmp_path / "run"
    settings = tiny(batch={"rows": 8}, train={"replicas": 2})
    config.write_text(to_yaml(settings))
    processes = start(2, config, run)
    wait_for(run / "seed=1", 6)
    processes[0].send_signal(signal.SIGTERM)
    said = finish(processes)
    assert '"status": "stopped"' in said[0]
    assert said[1] == ""
    finish(start(2, config, run))
    for seed in (0, 1):
        train_run(tiny(batch={"rows": 8}, seed=seed), tmp_path / str(seed))
        assert_close(run / f"seed={seed}", tmp_path / str(seed))


class TpuVm(http.server.BaseHTTPRequestHandler):
    """The metadata server of a TPU VM, on loopback."""

    attributes: dict[str, str]
    asked: list[str]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.asked.append(name)
        assert self.headers["Metadata-Flavor"] == "Google"
        text = self.attributes.get(name)
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def tpu_vm(**attributes: str) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked."""
    asked: list[str] = []
    facts = {key.replace("_", "-"): value for key, value in attributes.items()}
    handler = type("Handler", (TpuVm,), {"attributes": facts, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def with_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TPUs and libtpu."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(hosts, "has_chips", lambda: True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == "libtpu" or find_spec(name)
    )
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)


def test_a_metadata_server_that_fails_may_answer_later(
    with_chips: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setattr(hosts.time, "sleep", lambda seconds: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fails) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        with pytest.raises(TransientError, match="cannot say which TPU VMs belong together"):
            hosts.start()
        server.shutdown()


def test_a_slice_whose_first_host_is_not_there_yet_says_so_and_may_try_again() -> None:
    variables = {
        "TPU_WORKER_HOSTNAMES": "run-slice-1-0.run,run-slice-1-1.run",
        "TPU_WORKER_ID": "1",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "run-slice-0-0.run.invalid",
        "CALIBTRAIN_WAIT": "1",
        "JAX_PLATFORMS": "cpu",
    }
    script = """if True:
        import jax
        from jax._src.clusters import cloud_tpu_cluster
        cloud_tpu_cluster.running_in_cloud_tpu_vm = True
        from calibtrain.parallel import hosts
        hosts.start()
    """
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    who = "slice 1 of 2, host 1 of 2, waits for slices 0 at run-slice-0-0.run.invalid"
    assert f"calibtrain: {who}, for at most 1 s (CALIBTRAIN_WAIT)\n" in ended.stderr
    assert f"TransientError: {who}: not all came within 1 s" in ended.stderr


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Failed to recognize coordinator address slice-0", TransientError),
        ("UNAVAILABLE: failed to connect", TransientError),
        ("ABORTED: connected with a different incarnation", TransientError),
        ("INVALID_ARGUMENT: unexpected task", UserError),
    ],
)
def test_those_that_did_not_meet_may_meet_later_unless_they_do_not_belong_together(
    said: str, kind: type[UserError], monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    def fail(**arguments: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match=said.partition(":")[0]) as error:
        meeting.join({})
    assert type(error.value) is kind


TOGETHER = """
import sys
from calibtrain.errors import TransientError, UserError
from calibtrain.parallel import hosts
hosts.start()
import jax
said = sys.argv[1].split(",")[jax.process_index()]
kind = {"2": UserError, "75": TransientError, "0": None}[said]
try:
    with hosts.together():
        if kind:
            raise kind("mine")
    status = 0
except UserError as error:
    status = error.status
print(status, flush=True)
hosts.wait("the end")
"""


@pytest.mark.parametrize(
    ("raised", "ends"), [("0,2", 2), ("0,75", 75), ("75,2", 2), ("75,75", 75), ("0,0", 0)]
)
def test_all_end_with_one_status(raised: str, ends: int) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, raised],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "CALIBTRAIN_COORDINATOR": f"localhost:{port}",
                "CALIBTRAIN_PROCESSES": "2",
                "CALIBTRAIN_PROCESS": str(number),
            },
        )
        for number in range(2)
    ]
    assert finish(processes) == [f"{ends}\n"] * 2


MEGASCALE = "ACCELERATOR_TYPE: 'v5litepod-4'\nMEGASCALE_NUM_SLICES: '{}'\nWORKER_ID: '0'"


@pytest.mark.parametrize(
    ("attributes", "many"),
    [
        ({"worker_network_endpoints": "a:0:10.0.0.1,b:1:10.0.0.2"}, True),
        ({"worker_network_endpoints": "10.0.0.1"}, False),
        ({"worker_network_endpoints": "h", "tpu_env": MEGASCALE.format(2)}, True),
        ({"worker_network_endpoints": "h", "tpu_env": MEGASCALE.format(1)}, False),
        ({}, False),
    ],
)
def test_tpu_vms_of_one_slice_find_each_other(
    attributes: dict[str, str], many: bool, with_chips: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tpu_vm(**attributes) as (address, _):
        monkeypatch.setenv("GCE_METADATA_IP", address)
        assert hosts._arguments() == ({} if many else None)


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "cpu"},
        {"TPU_SKIP_MDS_QUERY": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {hosts.ADDRESS: "a:1", hosts.COUNT: "1", hosts.NUMBER: "0"},
    ],
)
def test_no_server_is_asked_where_the_environment_says_enough(
    environment: dict[str, str], with_chips: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tpu_vm(worker_network_endpoints="a,b") as (address, asked):
        for name, value in {**environment, "GCE_METADATA_IP": address}.items():
            monkeypatch.setenv(name, value)
        assert hosts._arguments() != {}
    assert asked == []


def test_without_tpus_no_server_is_asked(monkeypatch: pytest.MonkeyPatch, with_chips: None) -> None:
    monkeypatch.setattr(hosts, "has_chips", lambda: False)
    with tpu_vm(worker_network_endpoints="a,b") as (address, asked):
        monkeypatch.setenv("GCE_METADATA_IP", address)
        assert hosts._arguments() is None
    assert asked == []


JOINS = """
import importlib.util, os
import jax
os.environ.pop("TPU_SKIP_MDS_QUERY", None)  # set by jax, which sees no TPUs here
from jax._src.clusters import cloud_tpu_cluster
cloud_tpu_cluster.running_in_cloud_tpu_vm = True
from calibtrain.parallel import hosts, meeting
hosts.has_chips = lambda: True
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: name == "libtpu" or find_spec(name)
del os.environ["JAX_PLATFORMS"]
hosts.start()
jax.config.update("jax_platforms", "cpu")
print(jax.process_index(), jax.process_count(), flush=True)
hosts.wait("the end")
"""


def test_jax_joins_the_tpu_vms_that_were_found() -> None:
    pytest.importorskip("requests", reason="jax asks the metadata server through it")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        processes = []
        for number in range(2):
            endpoints = "w0:0:127.0.0.1,w1:1:127.0.0.1"
            vm = tpu_vm(
                worker_network_endpoints=endpoints,
                agent_worker_number=str(number),
                tpu_env=MEGASCALE.format(1),
            )
            address, _ = stack.enter_context(vm)
            environment = {"GCE_METADATA_IP": address, "JAX_COORDINATOR_PORT": str(port)}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", JOINS],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
                )
            )
        assert finish(processes) == ["0 2\n", "1 2\n"]
