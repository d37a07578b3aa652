"""Run every case, some side by side; show the time left and a summary; status 1 if any fails."""

import argparse
import dataclasses
import json
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import forked

from fuzz import children, configs, data, imports, runs
from fuzz.verdict import (
    Case,
    Verdict,
    tree,
    wrong_with_ending,
    wrong_with_figures,
    wrong_with_files,
)

KINDS: dict[str, ModuleType] = {"configs": configs, "data": data, "runs": runs, "imports": imports}


def one(
    kind: ModuleType, number: int, seed: int, base: Path, place: Path, seconds: float
) -> Verdict:
    """Make a case, run its commands and judge them."""
    wanted = json.loads((base / "wanted.json").read_text())
    made = place.parent / f"{place.name}.case.json"

    def make() -> None:
        case = kind.make(number, random.Random(f"{kind.__name__} {seed} {number}"), base, place)
        made.write_text(json.dumps(dataclasses.asdict(case)))

    error = place.parent / f"{place.name}.make.err"
    status, _ = forked.child(make, Path(os.devnull), error, 120)
    if status != 0:
        raise RuntimeError(f"case {number} cannot be made: {error.read_text()[-2000:]}")
    document = json.loads(made.read_text())
    steps = tuple(kind.Step(**_tuples(step)) for step in document.pop("steps"))
    case = Case(steps=steps, **_tuples(document))
    return judge(kind, case, wanted, base, place, seconds)


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}


def judge(
    kind: ModuleType, case: Case, wanted: dict[str, Any], base: Path, place: Path, seconds: float
) -> Verdict:
    """Run a case's commands; stop at the first that fails."""
    environment = {"CALIBTRAIN_CACHE": str(place / "cache")}
    compiled = base.parent / "compiled"
    outcome, wrong, shown, took = "ok", [], "", 0.0
    said: list[str] = []
    commands = tuple("calibtrain " + shlex.join(step.arguments)[:300] for step in case.steps)
    for step in case.steps:
        before = tree(place)
        ended = children.command(
            step.arguments, place, seconds=seconds, compiled=compiled, environment=environment
        )
        took = max(took, ended.seconds)
        shown = (ended.stderr.strip() or ended.stdout.strip())[-1500:]
        wrong += wrong_with_ending(ended)
        wrong += wrong_with_files(ended, before, tree(place), step.makes)
        said.append(ended.stderr)
        if ended.status == 0 and step.figures is not None:
            try:
                got = kind.of(step, place, ended.stdout)
            except (RuntimeError, ValueError, OSError) as error:
                wrong.append(f"the result cannot be read: {' '.join(str(error).split())[-300:]}")
                break
            found = wrong_with_figures("\n".join(said), got, wanted[step.figures], case)
            wrong += found
            if not found and got != wanted[step.figures] and not case.changes:
                outcome = "note"
        if ended.status != 0:
            outcome = "refused"
            break
        if wrong:
            break
    return Verdict(
        "FAIL" if wrong else outcome, case.what, tuple(wrong), shown, round(took, 2), commands
    )


def main() -> int:
    """Parse, prepare, run, sum up."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--only", choices=KINDS, action="append", help="kinds; may be given again")
    parser.add_argument("--count", type=int, help="cases of each kind; default 500 or 100")
    parser.add_argument("--case", type=int, help="this one alone, with all that it said")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=30.0, help="a command may take")
    parser.add_argument("--keep", type=Path, help="a folder for the cases, which stay there")
    parser.add_argument("--json", type=Path, help="write every verdict into this file")
    asked = parser.parse_args()
    began = time.monotonic()
    forked.preload()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="calibtrain-fuzz-"))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        queue = []
        for name in asked.only or KINDS:
            base = folder / name / "base"
            tell(f"{name}: preparing, {time.monotonic() - began:.0f} s")
            if not (base / "wanted.json").exists():
                shutil.rmtree(base.parent, ignore_errors=True)
                base.mkdir(parents=True)
                wanted = KINDS[name].prepare(base, base.parent / "compiled")
                (base / "wanted.json").write_text(json.dumps(wanted))
            count = asked.count or KINDS[name].COUNT
            numbers = range(count) if asked.case is None else [asked.case]
            queue += [(name, number) for number in numbers]
        random.Random(0).shuffle(queue)  # so that the time left is known early
        verdicts = run_all(queue, folder, asked.seed, asked.jobs, asked.seconds, bool(asked.keep))
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        document = {f"{k} {n}": dataclasses.asdict(v) for (k, n), v in sorted(verdicts.items())}
        asked.json.write_text(json.dumps(document, indent=1))
    if asked.case is not None:
        for found in verdicts.values():
            print(f"{found.what}\n" + "\n".join(found.commands) + f"\n{found.shown}")
    return summary(verdicts, asked.seed, time.monotonic() - began)


def run_all(
    queue: list[tuple[str, int]], folder: Path, seed: int, jobs: int, seconds: float, keep: bool
) -> dict[tuple[str, int], Verdict]:
    """Every case, `jobs` at a time; each in a process that forks its commands."""
    began, told = time.monotonic(), 0.0
    waiting, running = list(queue), {}
    verdicts: dict[tuple[str, int], Verdict] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name, number = waiting.pop()
            place = folder / name / str(number) / "place"
            shutil.rmtree(place.parent, ignore_errors=True)
            place.parent.mkdir(parents=True)
            running[_start(name, number, seed, folder, place, seconds)] = (name, number)
        pid, _ = os.waitpid(-1, 0)
        if pid not in running:
            continue
        name, number = running.pop(pid)
        answer = folder / name / str(number) / "verdict.json"
        if answer.exists():
            verdicts[name, number] = Verdict(**_tuples(json.loads(answer.read_text())))
        else:
            verdicts[name, number] = Verdict("FAIL", wrong=("the harness died",))
        if verdicts[name, number].outcome == "FAIL":
            tell(f"{name} {number}: {'; '.join(verdicts[name, number].wrong)[:300]}")
        if not keep:
            shutil.rmtree(folder / name / str(number), ignore_errors=True)
        spent = time.monotonic() - began
        if spent - told > 15:
            told = spent
            left = spent / len(verdicts) * (len(queue) - len(verdicts))
            tell(f"{len(verdicts)} of {len(queue)}, about {left:.0f} s left")
    return verdicts


def _start(name: str, number: int, seed: int, folder: Path, place: Path, seconds: float) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        forked.end_with_parent()
        found = one(KINDS[name], number, seed, folder / name / "base", place, seconds)
    except BaseException:
        found = Verdict("FAIL", wrong=("the harness failed",), shown=traceback.format_exc())
    (place.parent / "verdict.json").write_text(json.dumps(dataclasses.asdict(found)))
    os._exit(0)


def summary(verdicts: dict[tuple[str, int], Verdict], seed: int, seconds: float) -> int:
    """Print what was found; the exit status."""
    failed = {
        key: verdict for key, verdict in sorted(verdicts.items()) if verdict.outcome == "FAIL"
    }
    for (name, number), verdict in failed.items():
        print(f"\nFAIL {name} {number}: {'; '.join(verdict.wrong)}\n  {verdict.what[:400]}")
        print(f"  {' && '.join(verdict.commands)[:400]}")
        last = verdict.shown.strip().splitlines()[-1:] or [""]
        print(f"  {last[0][:400]}")
        print(f"  again: python -m fuzz --seed {seed} --only {name} --case {number}")
    print()
    for name in KINDS:
        counts = Counter(verdict.outcome for (kind, _), verdict in verdicts.items() if kind == name)
        if counts:
            said = ", ".join(f"{counts[each]} {each}" for each in ("ok", "refused", "note", "FAIL"))
            longest = max(v.seconds for (kind, _), v in verdicts.items() if kind == name)
            print(f"{name}: {said}; the longest command took {longest:.1f} s")
    print(f"{len(verdicts)} cases in {seconds:.0f} s")
    return 1 if failed else 0


def tell(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
