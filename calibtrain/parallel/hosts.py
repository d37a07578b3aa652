"""Many processes as one run: their start, who writes, and waiting for each other."""

import importlib.util
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from calibtrain.errors import TransientError, UserError
from calibtrain.parallel import meeting
from calibtrain.parallel.tpu import has_chips
from calibtrain.process.output import rewired

ADDRESS, COUNT, NUMBER = (
    "CALIBTRAIN_COORDINATOR",
    "CALIBTRAIN_PROCESSES",
    "CALIBTRAIN_PROCESS",
)
"""Environment variables for processes that nothing else started: HOST:PORT, how many, which."""
MOST_PROCESSES = 100_000
"""More than any cluster has: a larger number is a mistake."""
met = False
"""Whether this process began to meet others; they wait for what it does at its end."""
METADATA_SECONDS = 5.0
"""How long a machine with TPUs waits for its metadata server, which answers in milliseconds."""


def start() -> None:
    """Join the other processes of this run, where there are any. Call before any computation.

    Found by the variables above; or by what Slurm and GKE set for a job of several processes, or
    the metadata server of a TPU VM knows of its slice (`jax.distributed` reads the rest there).

    Raises:
        UserError: for variables that do not fit.
        TransientError: when the others did not come.
    """
    arguments = _arguments()
    if arguments is None:
        return
    global met
    if met:
        return
    met = True
    meeting.catch_aborts()  # before JAX is imported, to be there until JAX has ended
    _keep_libraries_off_stdout()
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours to handle
    meeting.join(arguments)


def _arguments() -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be called with; None for a run of one process."""
    given = {name: os.environ.get(name) for name in (ADDRESS, COUNT, NUMBER)}
    if any(given.values()):
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise UserError(f"{missing[0]}: is required beside {ADDRESS}, {COUNT} and {NUMBER}")
        address = given[ADDRESS] or ""
        if not re.fullmatch(r"\S+:[0-9]{1,5}", address) or int(address.rpartition(":")[2]) > 65535:
            raise UserError(
                f"{ADDRESS}={address[:200]}: must be HOST:PORT, an address of process 0 and a free "
                "port there"
            )
        counts = [given[COUNT] or "", given[NUMBER] or ""]
        if not all(re.fullmatch("[0-9]{1,9}", text) for text in counts):
            raise UserError(f"{COUNT}={counts[0][:80]}, {NUMBER}={counts[1][:80]}: must be numbers")
        count, number = map(int, counts)
        if not 0 < count <= MOST_PROCESSES:
            raise UserError(f"{COUNT}={given[COUNT]}: must be in 1..{MOST_PROCESSES}")
        if not 0 <= number < count:
            raise UserError(f"{NUMBER}={given[NUMBER]}: must be in 0..{count - 1}")
        return {
            "coordinator_address": given[ADDRESS],
            "num_processes": count,
            "process_id": number,
        }
    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    if all(name in os.environ for name in step):  # else no step of srun's, but a script's process
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"])
        if int(tasks) > 1:
            return {}
    slices = int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1
    if (workers := os.environ.get("TPU_WORKER_HOSTNAMES")) is not None:  # as GKE says
        return {} if slices or "," in workers else None
    return {} if slices or _is_one_of_many_tpu_vms() else None


def _is_one_of_many_tpu_vms() -> bool:
    """Whether this is a TPU VM of a slice with several hosts, or of several slices.

    Where there are no TPUs, or they are not to be used, no server is asked.
    """
    platforms = os.environ.get("JAX_PLATFORMS") or "tpu"
    skip = "TPU_SKIP_MDS_QUERY" in os.environ or "tpu" not in platforms.split(",")
    if skip or not has_chips() or importlib.util.find_spec("libtpu") is None:
        return False
    workers = _attribute("worker-network-endpoints")
    slices = re.search(r"^MEGASCALE_NUM_SLICES:\s*'?(\d+)", _attribute("tpu-env"), re.MULTILINE)
    return "," in workers or (slices is not None and int(slices[1]) > 1)


def _attribute(name: str) -> str:
    """What the metadata server of this machine says of it; empty where it, or a server, is not.

    Raises:
        UserError: for a server that fails.
    """
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")  # as for JAX
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for pause in (1.0, 2.0, None):
        try:
            with direct.open(request, timeout=METADATA_SECONDS) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return ""
            if pause is None:
                raise UserError(
                    f"{server}: cannot say which TPU VMs belong together ({error}); start again, "
                    f"or give {ADDRESS}, {COUNT} and {NUMBER}"
                ) from None
            time.sleep(pause)
        except OSError:
            break
    return ""


def _keep_libraries_off_stdout() -> None:
    """Gloo greets on standard output, which belongs to results: send what is not ours to stderr."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = rewired(sys.stdout, ours)


def is_primary() -> bool:
    """Whether this process writes logs and results."""
    import jax

    return jax.process_index() == 0


def are_many() -> bool:
    """Whether the run has several processes."""
    import jax

    return jax.process_count() > 1


@contextmanager
def losses() -> Iterator[None]:
    """Where something fails because another process is lost, raise what says so.

    Raises:
        TransientError: for a collective that failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if met and (loss := meeting.lost(error)):
            raise loss from None
        raise


@losses()
def agreed(value: int) -> int:
    """The primary's value on every host: what each reads from a shared disk may be stale."""
    if not are_many():
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextmanager
def together() -> Iterator[None]:
    """Where what is inside fails on one host, all of them raise; every host must come here.

    Raises:
        UserError: the host's own, or one that says that another failed.
    """
    mine: UserError | None = None
    try:
        yield
    except TransientError:  # the others are not there to be told
        raise
    except UserError as error:
        mine = error
    if are_many() and _any(mine is not None) and mine is None:
        raise UserError("another process of this run failed; what it said tells why")
    if mine is not None:
        raise mine


@losses()
def _any(mine: bool) -> bool:
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))


@losses()
def wait(name: str) -> None:
    """Wait until every process is here."""
    if are_many():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
