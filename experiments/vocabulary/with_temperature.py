"""Fits one temperature to every finished arm of a study, and measures tokens and bytes with it.

python with_temperature.py STUDY [STUDY ...]

What is there already is not measured again, so that the same command goes on where it stopped.
"""

import sys
import time
from pathlib import Path

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


def main() -> None:
    for study in map(Path, sys.argv[1:]):
        arms = sorted(path.parent for path in study.glob("*/run.json"))
        for number, arm in enumerate(arms, 1):
            run = ct.open_run(arm)
            if run.status != "done":
                print(f"{arm}: {run.status}, left out", file=sys.stderr)
                continue
            began = time.monotonic()
            if measured(arm, run.config.evaluation.event_bytes.byte):
                seconds = time.monotonic() - began
                print(f"{arm.name}: {number} of {len(arms)}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
