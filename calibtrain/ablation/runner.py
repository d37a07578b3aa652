"""Runs the arms of a study, each in its own process, several at a time.

With one process per arm, a crash or a lack of memory stops only that arm. A finished arm is not run
again; a failed one is reported and the others go on. If the base sets `train.replicas`, up to that
many arms that differ only in their seed share a process and its program.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.ablation.controls import ControlledArm, apply_controls, held_fixed
from calibtrain.ablation.records import describe_arm, is_done, require_same_text, result_of
from calibtrain.ablation.result import write_result
from calibtrain.ablation.study import expand, with_seeds
from calibtrain.config import StudyConfig, config_hash, resolved_yaml
from calibtrain.errors import UserError
from calibtrain.parallel import hosts
from calibtrain.process.interruption import handled
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import ArmRecord
from calibtrain.runs.seeds import SEED
from calibtrain.storage.disk import cache_directory, disk_errors, write_whole
from calibtrain.storage.places import in_bucket, place

StudyObserver = Callable[[str, Mapping[str, Any]], None]
"""Called with (arm, event). Events are those of `run_writer.Observer`, "preparing", "arms", and
"finished" (with the arm's status and error)."""


def run_study(
    study: StudyConfig,
    folder: Path,
    *,
    jobs: int = 1,
    command: str = "",
    cache: Path | None = None,
    observer: StudyObserver = lambda arm, event: None,
) -> dict[str, Any]:
    """Runs every arm that is not done, and writes ablation.json.

    Args:
        study: base, grid and controls.
        folder: the study's folder; each arm has a run folder in it.
        jobs: arms run at once; each gets its share of the CPU cores.
        command: the command line, for the record.
        cache: folder of prepared data.
        observer: called with every event.

    Raises:
        UserError: for a study that cannot be prepared. An arm that fails does not raise.
    """
    if in_bucket(folder := place(folder)):
        raise UserError(
            f"{folder}: an ablation runs its arms on this machine, in a folder of its disk; name "
            "one with --run, or start the arms on a cluster: calibtrain launch gke"
        )
    cache = cache or cache_directory()
    study = with_seeds(study)
    _keep_off_accelerators()
    arms, impossible = apply_controls(
        study, cache, lambda name: observer(name, {"event": "preparing"})
    )
    names = [arm.name for arm in expand(study)]
    with disk_errors(folder):
        if folder.is_dir() and RunFolder(folder).exists:
            raise UserError(f"{folder}: is the folder of a single run; choose another --run")
        folder.mkdir(parents=True, exist_ok=True)
    require_same_text(arms, folder)
    with RunFolder(folder).locked(), _Children() as children:
        (folder / "configs").mkdir(exist_ok=True)
        write_whole(folder / "study.yaml", resolved_yaml(study))
        observer("", {"event": "arms", "names": names})
        slots: deque[int] = deque(range(jobs))
        records: dict[str, ArmRecord] = {}
        fixed = held_fixed(study, arms)

        def finish(record: ArmRecord) -> None:
            records[record.name] = record
            observer(record.name, {"event": "finished", **record.document()})

        def run(arms: Sequence[ControlledArm]) -> None:
            slot = slots.popleft()
            try:
                for record in _run_together(arms, folder, cache, slot, jobs, children, observer):
                    finish(record)
            finally:
                slots.append(slot)

        for arm in impossible:
            finish(describe_arm(arm, "failed", arm.error))
        with ThreadPoolExecutor(jobs) as pool:
            # Seeds in the outer order: later seeds find their programs in the compilation cache.
            # Of a seed's arms the largest first, so that the last to end are short.
            seeds = study.grid.get(SEED, [])
            order = sorted(arms, key=lambda arm: (_place(arm, seeds), -arm.plan.budget.flops))
            groups = together(order, study.base.train.replicas)
            groups.sort(key=lambda group: order.index(group[0]))
            for future in [pool.submit(run, group) for group in groups]:
                future.result()
        return write_result(folder, study, command, fixed, [records[name] for name in names])


def together(arms: Sequence[ControlledArm], replicas: int) -> list[list[ControlledArm]]:
    """Returns groups of at most `replicas` arms that differ only in their seed."""
    alike: dict[str, list[ControlledArm]] = {}
    for arm in arms:
        alike.setdefault(config_hash(arm.config.model_copy(update={SEED: 0})), []).append(arm)
    return [
        group[start : start + replicas]
        for group in alike.values()
        for start in range(0, len(group), replicas)
    ]


def _place(arm: ControlledArm, seeds: Sequence[Any]) -> int:
    return seeds.index(arm.settings[SEED]) if seeds else 0


def _keep_off_accelerators() -> None:
    """Keeps this process, which only plans, off the accelerator, which the arms use."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _run_together(
    arms: Sequence[ControlledArm],
    folder: Path,
    cache: Path,
    slot: int,
    jobs: int,
    children: "_Children",
    observer: StudyObserver,
) -> list[ArmRecord]:
    """Trains the arms that are not done, and returns the records of all."""
    records: dict[str, ArmRecord] = {}
    left = []
    for arm in arms:
        try:
            if is_done(arm, folder):
                records[arm.name] = result_of(arm, folder)
            else:
                left.append(arm)
        except UserError as error:  # a damaged file in its folder
            records[arm.name] = describe_arm(arm, "failed", str(error))
    if left and not children.stopping:
        wrong = _train(left, folder, cache, slot, jobs, children, observer)
        records.update((arm.name, result_of(arm, folder, wrong)) for arm in left)
    return [records.get(arm.name) or describe_arm(arm, "stopped") for arm in arms]


def _train(
    arms: Sequence[ControlledArm],
    folder: Path,
    cache: Path,
    slot: int,
    jobs: int,
    children: "_Children",
    observer: StudyObserver,
) -> str | None:
    """Trains arms in a child process; returns a message if the process failed, else None."""
    name = arms[0].name
    for arm in arms:
        write_whole(folder / "configs" / f"{arm.name}.yaml", resolved_yaml(arm.config))
    command = [sys.executable, "-m", "calibtrain", "train"]
    command += [str(folder / "configs" / f"{name}.yaml"), "--run", str(folder / name)]
    for arm in arms[1:]:
        command += ["--beside", arm.name]
    process = subprocess.Popen(
        [*command, "--progress", "json", "--quiet-result"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**_own_environment(), "CALIBTRAIN_CACHE": str(cache)},
        start_new_session=True,  # so that Ctrl-C reaches the arms only once, through us
    )
    share_cores(process.pid, slot, jobs)
    said: deque[str] = deque(maxlen=40)
    with children.holding(process):
        assert process.stderr is not None
        for line in process.stderr:
            event = _event(line)
            if event is None:
                said.append(line.rstrip())
            else:
                observer(event.pop("arm", name), event)
        code = process.wait()
    stopped = children.stopping and code in (-signal.SIGTERM, 128 + signal.SIGTERM)
    if code == 0 or stopped:
        return None
    lines = [line for line in said if line.strip()] or [""]
    if code == 2:
        return lines[-1].removeprefix("calibtrain: ")
    log = folder / f"{name}.log"
    write_whole(log, "\n".join(said) + "\n")
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{how}: {lines[-1]} (see {log})"


def _own_environment() -> dict[str, str]:
    """Returns the environment without variables that would make an arm join other processes."""
    joining = (hosts.ADDRESS, hosts.COUNT, hosts.NUMBER, "SLURM_STEP_NODELIST")
    return {name: value for name, value in os.environ.items() if name not in joining}


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"event"'):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def share_cores(pid: int, slot: int, jobs: int) -> None:
    """Pins the job in a slot to its share of the cores, where the system supports it."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[slot % len(cores) :: jobs] or [cores[slot % len(cores)]]
    try:
        os.sched_setaffinity(pid, mine)
    except OSError:
        return  # the child has ended, or the system forbids it: it runs on all cores


class _Children:
    """The running child processes; SIGTERM and SIGINT are passed on to them, so that they save."""

    def __init__(self) -> None:
        self.stopping = False
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._signals = handled(lambda number, frame: self.stop(), patience=lambda: None)

    def __enter__(self) -> "_Children":
        self._signals.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()
        self._signals.__exit__(*error)

    def stop(self) -> None:
        """Asks every child to save and end."""
        self.stopping = True
        for process in list(self._running):
            process.terminate()

    @contextmanager
    def holding(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Registers a process as running."""
        with self._lock:
            self._running.add(process)
        try:
            if self.stopping:
                process.terminate()
            yield
        finally:
            with self._lock:
                self._running.discard(process)
