"""A Slurm cluster of one node, this one: Debian's packages, a configuration of our own, loopback.

Nothing of it outlives the `with`, except the packages if they had to be installed.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")


class Unavailable(Exception):
    """Slurm cannot be had here; the message says why."""


def install() -> None:
    """Install Slurm and munge where they are missing and packages may be installed."""
    if all(_program(name) for name in PROGRAMS):
        return
    if os.geteuid() != 0:
        raise Unavailable("Slurm is not installed, and only root can install it")
    if shutil.which("apt-get") is None:
        raise Unavailable("Slurm is not installed, and there is no apt-get to install it")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ["slurm-wlm", "munge"]
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
    ):
        try:
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{' '.join(command)}: took longer than 240 s") from None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise Unavailable(f"{' '.join(command)}: {' '.join(last)}")


@contextlib.contextmanager
def running() -> Iterator[None]:
    """A cluster that answers; SLURM_CONF leads to it.

    Raises:
        Unavailable: where it cannot be installed or started.
    """
    if os.geteuid() != 0:
        raise Unavailable("a slurmd that runs others' jobs needs root")
    install()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: it holds a socket
    folder.chmod(0o755)
    environment = {**os.environ, "SLURM_CONF": str(_configure(folder))}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        program, *arguments = command
        log = (folder / f"{program}.out").open("wb")
        daemons.append(
            subprocess.Popen(
                [_program(program), *arguments], stdout=log, stderr=log, env=environment
            )
        )

    old = os.environ.get("SLURM_CONF")
    try:
        start("munged", "--foreground", "--force", *_munge(folder))
        _wait_for(lambda: (folder / "munge.socket").exists(), "munged", folder)
        start("slurmctld", "-D", "-i")
        start("slurmd", "-D")
        os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
        _wait_for(lambda: "idle" in _sinfo(), "slurmd", folder)
        yield
    finally:
        if daemons:
            subprocess.run(["scancel", f"--user={_user()}"], capture_output=True, timeout=60)
            _wait_until(lambda: not squeue(), 30)
        for daemon in reversed(daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(15)
            daemon.kill()
            daemon.wait()
        os.environ.pop("SLURM_CONF", None)
        if old is not None:
            os.environ["SLURM_CONF"] = old
        shutil.rmtree(folder, ignore_errors=True)


def squeue(*arguments: str) -> str:
    """What squeue prints, without its heading."""
    done = subprocess.run(
        ["squeue", "--noheader", *arguments], capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def _sinfo() -> str:
    done = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=60)
    return done.stdout


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""


def _munge(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {"key": key, "log": folder / "munge.log", "pid": folder / "munge.pid"}
    seed = folder / "munge.seed"
    options = [f"--{kind}-file={path}" for kind, path in {**files, "seed": seed}.items()]
    return [f"--socket={folder / 'munge.socket'}", *options]


def _configure(folder: Path) -> Path:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    cores = len(os.sched_getaffinity(0))
    found = subprocess.run([_program("slurmd"), "-C"], capture_output=True, text=True).stdout
    cpus = re.search(r"CPUs=(\d+)", found)
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        # a job put back starts again only when the credential of its first start has run out
        "AuthInfo": f"socket={folder / 'munge.socket'},cred_expire=5",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "KillWait": 90,
        "SchedulerParameters": "sched_interval=5,batch_sched_delay=0",
    }
    lines = [f"{key}={value}" for key, value in settings.items()]
    count = cpus[1] if cpus else str(cores)
    lines.append(f"NodeName={host} NodeAddr=127.0.0.1 CPUs={count} State=UNKNOWN")
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    path = folder / "slurm.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _wait_for(condition: Callable[[], object], what: str, folder: Path) -> None:
    if _wait_until(condition, 30):
        return
    said = [
        line
        for file in sorted(folder.glob("*.out"))
        for line in file.read_text(errors="replace").splitlines()
        if "error" in line.lower() or "fatal" in line.lower()
    ]
    raise Unavailable(f"{what} does not answer after 30 s: {' / '.join(said[-3:])}")
