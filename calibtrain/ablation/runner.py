"""Run the arms of a study, each in a process of its own, some side by side.

A process an arm keeps a crash, or memory that runs out, to that arm; a finished arm is not run
again; a failed one is reported and the others go on.
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

from calibtrain.ablation.controls import ControlledArm, FailedArm, apply_controls, held_fixed
from calibtrain.ablation.result import write_result
from calibtrain.ablation.study import expand
from calibtrain.config import StudyConfig, to_yaml
from calibtrain.data.disk import cache_directory, disk_errors, write_whole
from calibtrain.errors import UserError
from calibtrain.evaluation.result import TABLES, evaluation_name, read_evaluation
from calibtrain.parallel import hosts
from calibtrain.places import in_bucket, place
from calibtrain.training.run import RunFolder

StudyObserver = Callable[[str, Mapping[str, Any]], None]
"""Is told (arm, event); events are those of `training.loop.Observer`, and "preparing", "arms",
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
    """Run every arm that is not done, and write ablation.json.

    Args:
        study: base, grid and controls.
        folder: the study's folder; each arm is a run folder inside.
        jobs: arms run at once; each is given its share of the CPU cores.
        command: how it was called, for the record.
        cache: where prepared data is kept.
        observer: is told what happens.

    Raises:
        UserError: for a study that cannot be prepared. An arm that fails does not raise.
    """
    if in_bucket(folder := place(folder)):
        raise UserError(
            f"{folder}: an ablation runs its arms on this machine, in a folder of its disk; name "
            "one with --run, or start the arms on a cluster: calibtrain launch gke"
        )
    cache = cache or cache_directory()
    _keep_off_accelerators()
    arms, impossible = apply_controls(
        study, cache, lambda name: observer(name, {"event": "preparing"})
    )
    names = [arm.name for arm in expand(study)]
    with disk_errors(folder):
        if folder.is_dir() and RunFolder(folder).exists:
            raise UserError(f"{folder}: is the folder of a single run; choose another --run")
        folder.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder).locked(), _Children() as children:
        (folder / "configs").mkdir(exist_ok=True)
        write_whole(folder / "study.yaml", to_yaml(study))
        observer("", {"event": "arms", "names": names})
        slots: deque[int] = deque(range(jobs))
        records: dict[str, dict[str, Any]] = {}
        fixed = held_fixed(study, arms)

        def finish(record: dict[str, Any]) -> None:
            records[record["name"]] = record
            observer(record["name"], {"event": "finished", **record})

        def run(arm: ControlledArm) -> None:
            slot = slots.popleft()
            try:
                finish(_run_arm(arm, folder, cache, slot, jobs, children, observer))
            except UserError as error:  # a damaged file in its folder
                finish(_record(arm, "failed", str(error)))
            finally:
                slots.append(slot)

        for arm in impossible:
            finish(_record(arm, "failed", arm.error))
        with ThreadPoolExecutor(jobs) as pool:
            # seeds outermost: later ones find their programs in the compilation cache
            seeds = study.grid.get("seed", [])
            order = sorted(arms, key=lambda arm: _place(arm, seeds))
            for future in [pool.submit(run, arm) for arm in order]:
                future.result()
        return write_result(folder, study, command, fixed, [records[name] for name in names])


def _place(arm: ControlledArm, seeds: Sequence[Any]) -> int:
    return seeds.index(arm.settings["seed"]) if seeds else 0


def _keep_off_accelerators() -> None:
    """This process only plans; the accelerator is for the arms."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _run_arm(
    arm: ControlledArm,
    folder: Path,
    cache: Path,
    slot: int,
    jobs: int,
    children: "_Children",
    observer: StudyObserver,
) -> dict[str, Any]:
    """Train one arm, unless it is done; returns its record."""
    run = RunFolder(folder / arm.name)
    scored = all(path.is_file() for path in _evaluation_files(arm, run).values())
    done = scored and run.is_done(arm.config)
    if not done and children.stopping:
        return _record(arm, "stopped")
    if not done and (error := _train(arm, folder, cache, slot, jobs, children, observer)):
        return _record(arm, "failed", error)
    summary = run.read_summary()
    status = summary.get("status", "stopped")
    if status != "done":
        return _record(arm, "stopped" if status == "running" else status, summary.get("error"))
    return _record(arm, "done", evaluations=_evaluations(arm, run))


def _train(
    arm: ControlledArm,
    folder: Path,
    cache: Path,
    slot: int,
    jobs: int,
    children: "_Children",
    observer: StudyObserver,
) -> str | None:
    """Train one arm in a child process; returns its error, if any."""
    path = folder / arm.name
    config = folder / "configs" / f"{arm.name}.yaml"
    write_whole(config, to_yaml(arm.config))
    command = [sys.executable, "-m", "calibtrain", "train", str(config), "--run", str(path)]
    process = subprocess.Popen(
        [*command, "--progress", "json", "--quiet-result"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**_own_environment(), "CALIBTRAIN_CACHE": str(cache)},
        start_new_session=True,  # a Ctrl-C reaches the arms once, through us
    )
    _share_cores(process.pid, slot, jobs)
    said: deque[str] = deque(maxlen=40)
    with children.holding(process):
        assert process.stderr is not None
        for line in process.stderr:
            event = _event(line)
            if event is None:
                said.append(line.rstrip())
            else:
                observer(arm.name, event)
        code = process.wait()
    stopped = children.stopping and code in (-signal.SIGTERM, 128 + signal.SIGTERM)
    if code == 0 or stopped:
        return None
    lines = [line for line in said if line.strip()] or [""]
    if code == 2:
        return lines[-1].removeprefix("calibtrain: ")
    log = folder / f"{arm.name}.log"
    write_whole(log, "\n".join(said) + "\n")
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{how}: {lines[-1]} (see {log})"


def _own_environment() -> dict[str, str]:
    """The environment without what would make an arm join other processes."""
    joining = (hosts.ADDRESS, hosts.COUNT, hosts.NUMBER, "SLURM_STEP_NODELIST")
    return {name: value for name, value in os.environ.items() if name not in joining}


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"event"'):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _share_cores(pid: int, slot: int, jobs: int) -> None:
    """Give the job in a slot its share of the cores, where the system can."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[slot % len(cores) :: jobs] or [cores[slot % len(cores)]]
    try:
        os.sched_setaffinity(pid, mine)
    except OSError:
        return  # the child is gone already, or the system forbids it: it runs on all cores


def _evaluation_files(arm: ControlledArm, run: RunFolder) -> dict[str, Path]:
    """The files of an arm's final evaluations, by corpus and split."""
    name, step = arm.plan.corpus.provenance.name, arm.plan.budget.steps
    return {
        f"{name}-{split}": run.evaluations
        / f"{evaluation_name({'corpus': name, 'split': split, 'step': step})}.json"
        for split in arm.config.evaluation.final_splits
    }


def _evaluations(arm: ControlledArm, run: RunFolder) -> dict[str, Any]:
    """The single figures of an arm's final evaluations."""
    found = {name: read_evaluation(path) for name, path in _evaluation_files(arm, run).items()}
    return {
        name: {key: value for key, value in figures.items() if key not in TABLES}
        for name, figures in found.items()
    }


def _record(
    arm: ControlledArm | FailedArm,
    status: str,
    error: str | None = None,
    evaluations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An arm as ablation.json holds it."""
    return {
        "name": arm.name,
        "folder": arm.name,
        "settings": arm.settings,
        "status": status,
        "error": error,
        "vocab_size": arm.plan.tokenizer.vocab_size if isinstance(arm, ControlledArm) else None,
        "evaluations": evaluations or {},
    }


class _Children:
    """The running processes; SIGTERM and SIGINT are passed on, so that they save and end."""

    def __init__(self) -> None:
        self.stopping = False
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_Children":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, lambda number, frame: self.stop())
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Ask every child to save and end."""
        self.stopping = True
        for process in list(self._running):
            process.terminate()

    @contextmanager
    def holding(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Count a process as running."""
        with self._lock:
            self._running.add(process)
        try:
            if self.stopping:
                process.terminate()
            yield
        finally:
            with self._lock:
                self._running.discard(process)
