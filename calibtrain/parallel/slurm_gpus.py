"""Which GPUs of its node a Slurm task computes on.

Slurm says in CUDA_VISIBLE_DEVICES which GPUs a task sees: those that are bound to the task alone
(`--gpus-per-task`), or all that the job has on the node (`--gres=gpu:8`). JAX by itself takes the
one GPU with the task's number on the node, which is an eighth of the node in the second case and
none in the first.

References:
    Slurm's pages on generic resources (GRES) and on srun's environment variables.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from calibtrain.errors import UserError

CHOSEN = "JAX_LOCAL_DEVICE_IDS"
"""JAX's variable by which a user says which GPUs a process computes on; it wins."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def local_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[int] | None:
    """Returns which of the GPUs that this task sees it computes on.

    A task that is alone on its node takes all of them. Tasks that each see GPUs of their own take
    those; tasks that see the same GPUs share them out evenly.

    Args:
        environment: variables of a Slurm task.
        devices: where GPUs are files, where Slurm does not name them.

    Returns:
        Positions among the GPUs that the task sees; None where there are none, or the user chose.

    Raises:
        UserError: for GPUs that the tasks of a node cannot share out evenly.

    Example:
        >>> local_gpus({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_TASKS_PER_NODE": "1(x2)"})
        [0, 1, 2, 3]
    """
    if environment.get(CHOSEN):
        return None
    seen = _seen(environment, devices)
    if seen == 0:
        return None
    tasks, rank = _tasks_here(environment), int(environment.get("SLURM_LOCALID") or 0)
    of_job = environment.get("SLURM_GPUS_ON_NODE", "")
    bound = of_job.isdigit() and seen < int(of_job)
    if tasks == 1 or seen == 1 or bound:
        return list(range(seen))
    if seen % tasks:
        raise UserError(
            f"{_VISIBLE}={environment.get(_VISIBLE, '')[:200]}: {tasks} tasks of a node cannot "
            f"share {seen} GPUs evenly; start one task on each node, bind GPUs to tasks "
            f"(--gpus-per-task), or set {CHOSEN}"
        )
    share = seen // tasks
    return list(range(rank * share, (rank + 1) * share))


def _seen(environment: Mapping[str, str], devices: Path) -> int:
    """Returns how many GPUs this task sees."""
    named = environment.get(_VISIBLE)
    if named is None:
        return sum(1 for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    count = 0
    for name in named.split(","):  # numbers, or UUIDs: GPU-..., MIG-...
        if not re.fullmatch(r"\s*(\d+|GPU-\S+|MIG-\S+)\s*", name):
            break  # CUDA stops at the first that it does not know: -1, NoDevFiles
        count += 1
    return count


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Returns how many tasks of this step are on this node: in "2(x3),1", nodes 0 to 2 have 2."""
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        counts: list[int] = []
        for part in environment.get(name, "").split(","):
            if found := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part):
                counts += [int(found[1])] * min(int(found[2] or 1), 100_000)
        node = int(environment.get("SLURM_NODEID") or 0)
        if counts:
            return max(1, counts[min(node, len(counts) - 1)])
    return 1
