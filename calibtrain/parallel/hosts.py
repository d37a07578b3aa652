"""Runs of several processes: how they start, which one writes, and how they wait for each other."""

import hashlib
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

from calibtrain.errors import LostError, TransientError, UserError
from calibtrain.parallel import meeting
from calibtrain.parallel.slurm_gpus import local_gpus
from calibtrain.parallel.tpu import has_chips
from calibtrain.process.output import rewired

ADDRESS, COUNT, NUMBER = (
    "CALIBTRAIN_COORDINATOR",
    "CALIBTRAIN_PROCESSES",
    "CALIBTRAIN_PROCESS",
)
"""Environment variables for processes started by hand: HOST:PORT, how many, and which one."""
MOST_PROCESSES = 100_000
"""Upper bound of processes; a larger number is a mistake."""
met = False
"""Whether this process began to join others, which then wait for it when it ends."""
METADATA_SECONDS = 5.0
"""How long a machine with TPUs waits for its metadata server, which answers in milliseconds."""


def start() -> None:
    """Joins the other processes of this run, if any. Call it before any computation.

    They are found by the variables above, by those that Slurm and GKE set for a job of several
    processes, or by the metadata server of a TPU VM (`jax.distributed` reads the rest there).

    Raises:
        UserError: for variables that contradict each other.
        TransientError: when the others did not join in time.
    """
    arguments = _arguments()
    if arguments is None:
        return
    global met
    if met:
        return
    met = True
    meeting.catch_aborts()  # before JAX is imported, so that it outlives JAX
    _keep_libraries_off_stdout()
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours to handle
    meeting.join(arguments)


def _arguments() -> dict[str, Any] | None:
    """Returns the arguments for `jax.distributed.initialize`; None for a run of one process."""
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
    if all(name in os.environ for name in step):  # otherwise a script's process, not a step of srun
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"])
        if int(tasks) > 1:
            gpus = local_gpus(os.environ)
            return {} if gpus is None else {"local_device_ids": gpus}
    slices = int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1
    if (workers := os.environ.get("TPU_WORKER_HOSTNAMES")) is not None:  # set by GKE
        return {} if slices or "," in workers else None
    return {} if slices or _is_one_of_many_tpu_vms() else None


def _is_one_of_many_tpu_vms() -> bool:
    """Returns whether this is a TPU VM of a slice with several hosts, or of several slices.

    Where there are no TPUs, or they are not used, the metadata server is not asked.
    """
    platforms = os.environ.get("JAX_PLATFORMS") or "tpu"
    skip = "TPU_SKIP_MDS_QUERY" in os.environ or "tpu" not in platforms.split(",")
    if skip or not has_chips() or importlib.util.find_spec("libtpu") is None:
        return False
    workers = _attribute("worker-network-endpoints")
    slices = re.search(r"^MEGASCALE_NUM_SLICES:\s*'?(\d+)", _attribute("tpu-env"), re.MULTILINE)
    return "," in workers or (slices is not None and int(slices[1]) > 1)


def _attribute(name: str) -> str:
    """Returns an attribute from this machine's metadata server; "" if there is none, or no server.

    Raises:
        TransientError: where the server fails.
    """
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")  # as in JAX
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
                raise TransientError(
                    f"{server}: cannot say which TPU VMs belong together ({error}); start again, "
                    f"or give {ADDRESS}, {COUNT} and {NUMBER}"
                ) from None
            time.sleep(pause)
        except OSError:
            break
    return ""


def _keep_libraries_off_stdout() -> None:
    """Sends what libraries (Gloo) print on standard output, which is for results, to stderr."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = rewired(sys.stdout, ours)


def is_primary() -> bool:
    """Returns whether this process writes logs and results."""
    import jax

    return jax.process_index() == 0


def are_many() -> bool:
    """Returns whether the run has several processes."""
    import jax

    return jax.process_count() > 1


@contextmanager
def losses() -> Iterator[None]:
    """Turns a failure that is due to a lost process into an error that says so.

    Raises:
        LostError: for a collective that failed.
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
    """Returns the primary's value on every host, because reads from a shared disk may be stale."""
    if not are_many():
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@losses()
def gathered(arrays: Any) -> Any:
    """Returns a tree of arrays, which devices of any host may hold, on this host's own memory."""
    import jax

    if not are_many():
        return jax.device_get(arrays)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(arrays, tiled=True)


@contextmanager
def together() -> Iterator[None]:
    """Makes all hosts raise where the body fails on one of them; every host must enter it.

    All end with the same exit status, so that an engine that starts a run again, or gives it up,
    does not depend on which host it looks at first.

    Raises:
        UserError: the host's own error, or one that says that another host failed.
        TransientError: likewise, where every error is one that another start may mend.
    """
    mine: UserError | None = None
    try:
        yield
    except LostError:  # the others cannot be told
        raise
    except UserError as error:
        mine = error
    if are_many():
        statuses = _all_of(0 if mine is None else mine.status) - {0}
        final = statuses - {TransientError.status}
        if statuses and mine is None:
            told = "another process of this run failed; what it said tells why"
            raise UserError(told) if final else TransientError(told)
        if final and isinstance(mine, TransientError):
            raise UserError(f"{mine}; another process of this run failed too, for good") from mine
    if mine is not None:
        raise mine


@losses()
def _all_of(mine: int) -> set[int]:
    from jax.experimental import multihost_utils

    found = multihost_utils.process_allgather(np.asarray(mine, np.int32))
    return {int(value) for value in np.ravel(found)}


@losses()
def differing(text: str) -> list[int]:
    """Returns the numbers of the processes whose text is not the primary's; on every host alike."""
    if not are_many():
        return []
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    found = multihost_utils.process_allgather(digest)
    return [number for number, other in enumerate(found) if not np.array_equal(other, found[0])]


def largest(value: int) -> int:
    """Returns the largest of all hosts' values."""
    return max(_all_of(value)) if are_many() else value


@losses()
def wait(name: str) -> None:
    """Waits until every process is here."""
    if are_many():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
