"""Which GPUs a Slurm task takes, from the variables that Slurm sets in each way to ask for them."""

from pathlib import Path

import pytest

from calibtrain.errors import UserError
from calibtrain.parallel.slurm_gpus import local_gpus

UUIDS = ",".join(f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(8))


def tasks(visible: str | None, on_node: int, counts: str, rank: int = 0) -> dict[str, str]:
    """The variables of a task."""
    variables = {
        "SLURM_STEP_TASKS_PER_NODE": counts,
        "SLURM_GPUS_ON_NODE": str(on_node),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
    }
    return variables if visible is None else {**variables, "CUDA_VISIBLE_DEVICES": visible}


def test_one_task_of_a_node_takes_all_its_gpus() -> None:
    for visible in ("0,1,2,3,4,5,6,7", UUIDS):  # --gres=gpu:8 --ntasks-per-node=1
        assert local_gpus(tasks(visible, 8, "1(x2)")) == list(range(8))


def test_a_task_takes_the_gpus_that_are_bound_to_it() -> None:
    for rank in range(8):  # --ntasks-per-node=8 --gpus-per-task=1: each sees its own as number 0
        for visible in ("0", UUIDS.split(",")[rank], "MIG-1b2c"):
            assert local_gpus(tasks(visible, 8, "8(x2)", rank)) == [0]
    assert local_gpus(tasks("4,5", 8, "4(x2)", 2)) == [0, 1]  # --gpus-per-task=2


def test_tasks_that_see_the_same_gpus_share_them_out() -> None:
    for visible in ("0,1,2,3,4,5,6,7", UUIDS):  # --gres=gpu:8 --ntasks-per-node=4
        shares = [local_gpus(tasks(visible, 8, "4(x2)", rank)) for rank in range(4)]
        assert shares == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(UserError, match="3 tasks of a node cannot share 8 GPUs evenly"):
        local_gpus(tasks(UUIDS, 8, "3(x2)", 2))


def test_a_nodes_own_number_of_tasks_counts() -> None:
    """The fourth node of "2(x3),1" has one task."""
    variables = {**tasks("0,1", 2, "2(x3),1"), "SLURM_NODEID": "3"}
    assert local_gpus(variables) == [0, 1]
    assert local_gpus({**variables, "SLURM_NODEID": "2"}) == [0]


def test_the_users_own_choice_wins() -> None:
    assert local_gpus({**tasks(UUIDS, 8, "1(x2)"), "JAX_LOCAL_DEVICE_IDS": "3"}) is None


def test_gpus_that_slurm_does_not_name_are_counted(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert local_gpus(tasks(None, 0, "1(x2)"), tmp_path) == [0, 1]
    for nothing in ("", "NoDevFiles", "-1"):
        assert local_gpus(tasks(nothing, 0, "1(x2)"), tmp_path) is None


def test_jax_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from calibtrain.parallel import hosts

    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1"}
    for name, value in {**step, **tasks(UUIDS, 8, "1(x2)"), "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    assert hosts._arguments() == {"local_device_ids": list(range(8))}
