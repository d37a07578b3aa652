"""Fits one temperature to every finished arm of a study, and measures tokens and bytes with it.

python with_temperature.py [--jobs N] STUDY [STUDY ...]

What is there already is not measured again, so that the same command goes on where it stopped.
"""

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import calibtrain as ct

HEAD = "global"


def measured(path: Path, event_bytes: int) -> bool:
    """Fits and measures one arm; returns whether there was anything to do."""
    run = ct.open_run(path)
    done = {
        each.record.event
        for each in run.evaluations
        if each.record.split == "test" and each.record.temperature == HEAD
    }
    if not (path / "temperature" / HEAD).exists():
        run.fit_head(HEAD, name=HEAD, progress=None)
    if "token" not in done:
        run.evaluate(temperature=HEAD, progress=None)
    if "byte" not in done:
        run.evaluate(events="byte", bytes=event_bytes, temperature=HEAD, progress=None)
    return done != {"token", "byte"}


def begin(cores: Any) -> None:
    """Gives a process its share of the cores, before JAX counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores.get())


def finished(studies: list[Path]) -> list[Path]:
    """Returns the arms that are done, and says which are not."""
    arms = []
    for study in studies:
        for arm in sorted(path.parent for path in study.glob("*/run.json")):
            if (status := ct.open_run(arm).status) == "done":
                arms.append(arm)
            else:
                print(f"{arm}: {status}, left out", file=sys.stderr)
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY")
    parser.add_argument("--jobs", type=int, default=1, help="arms measured side by side")
    given = parser.parse_args()
    arms = finished(given.studies)
    context = multiprocessing.get_context("spawn")
    cores, all_cores = context.Queue(), sorted(os.sched_getaffinity(0))
    for job in range(given.jobs):
        cores.put(all_cores[job :: given.jobs] or all_cores)
    began = time.monotonic()
    with ProcessPoolExecutor(given.jobs, context, begin, (cores,)) as pool:
        tasks = {
            pool.submit(measured, arm, ct.open_run(arm).config.evaluation.event_bytes.byte): arm
            for arm in arms
        }
        for number, task in enumerate(as_completed(tasks), 1):
            if task.result():
                seconds = time.monotonic() - began
                left = seconds / number * (len(arms) - number)
                arm = tasks[task]
                print(
                    f"{arm.parent.name}/{arm.name}: {number} of {len(arms)}, {left:.0f} s left",
                    flush=True,
                )


if __name__ == "__main__":
    main()
