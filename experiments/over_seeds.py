"""What the experiments share: arms of studies, measured once each, and means over their seeds.

The figures of every arm go to one small JSON file, which is committed beside the script. An arm
that the file holds by the same protocol is not measured again; without runs, the table is that of
the file.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from calibtrain.analysis.of_run import Opened, opened_to_analyse
from calibtrain.metrics.student import student_half_width
from calibtrain.runs.analysis_records import AnalysisRecord, analysis_file
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import STUDY_FILE
from calibtrain.storage.disk import write_whole

DIGITS = 6  # of a figure in the file


def run_parser(about: str | None, out: Path) -> argparse.ArgumentParser:
    """Returns a parser of runs and studies; `measured_runs` reads what it found."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", help="run folders, or studies")
    parser.add_argument("--vocabularies", type=int, nargs="+", help="of a study's arms; or all")
    parser.add_argument("--seeds", type=int, nargs="+", help="of a study's arms; or all")
    parser.add_argument("--out", type=Path, default=out, help=f"default {out.name}, beside this")
    return parser


def vocabulary(run: RunFolder) -> int:
    """Returns the size of a run's vocabulary; 256 for bytes, whose two marks are left out."""
    tokenizer = run.require_summary().tokenizer
    return 256 if tokenizer.kind == "byte" else tokenizer.vocab_size


def chosen_runs(given: argparse.Namespace) -> list[Path]:
    """Returns the runs that are named, and the finished arms of the studies that are.

    Raises:
        SystemExit: where runs are named and none is asked for.
    """
    found = []
    for folder in given.runs:
        if not (folder / STUDY_FILE).exists():
            found.append(folder)
            continue
        for file in sorted(folder.glob("*/run.json")):
            run = RunFolder(file.parent)
            own, seed = vocabulary(run), run.read_config().seed
            wanted = given.vocabularies or [own], given.seeds or [seed]
            if run.require_summary().status == "done" and own in wanted[0] and seed in wanted[1]:
                found.append(file.parent)
    if given.runs and not found:
        raise SystemExit(
            f"{', '.join(map(str, given.runs))}: hold no finished run that is asked for"
        )
    return found


def measured_runs(
    given: argparse.Namespace,
    protocol: Mapping[str, Any],
    measure: Callable[[Path], Mapping[str, Any]],
    arm: Callable[[Path], Mapping[str, Any]] = lambda run: {},
) -> list[Any]:
    """Returns the figures of every arm in the file `--out`, those of the runs given among them.

    Args:
        given: what the command line says.
        protocol: what is asked for; arms of another protocol are not mixed with new ones.
        measure: from a run folder to its figures, as JSON.
        arm: from a run folder to what tells its arm apart beside corpus, model, vocabulary and
            seed.

    Raises:
        SystemExit: where the file holds arms of another protocol, or nothing is there to show.
    """
    found: list[dict[str, Any]] = []
    if given.out.exists():
        found = json.loads(given.out.read_text("utf-8"))["arms"]
    asked = json.loads(json.dumps(protocol))
    if given.runs and any(each["protocol"] != asked for each in found):
        raise SystemExit(
            f"{given.out}: holds arms that were measured by another protocol; remove it, or take "
            "another --out"
        )
    for path in chosen_runs(given):
        run = RunFolder(path)
        facts = {
            "corpus": asked.get("corpus") or run.require_summary().corpus.name,
            "model": run.read_config().model.kind,
            "vocab_size": vocabulary(run),
            "seed": run.read_config().seed,
            **arm(path),
        }
        if any(facts.items() <= each.items() for each in found):
            print(f"{path}: read from {given.out}", file=sys.stderr)
            continue
        print(f"{path}: measured", file=sys.stderr)
        found.append({**facts, "protocol": asked, **_rounded(measure(path))})
        found.sort(key=lambda each: [each[key] for key in facts])
        given.out.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in found)
        write_whole(given.out, '{"arms": [\n' + lines + "\n]}\n")
    if not found:
        raise SystemExit(f"{given.out}: is not there; name runs or studies to measure")
    return json.loads(json.dumps(found), object_hook=lambda tree: SimpleNamespace(**tree))


def analysed(
    run: Path,
    kind: type[AnalysisRecord],
    name: str,
    protocol: Mapping[str, Any],
    measure: Callable[[Opened], tuple[AnalysisRecord, Any]],
) -> dict[str, Any]:
    """Returns the analysis in a run's folder where it is of this protocol, else a new one.

    Args:
        run: its folder.
        kind: of its record.
        name: entropy, memory or typicality.
        protocol: of the analysis.
        measure: makes it of the opened run, and writes it there.
    """
    file = analysis_file(run, name, RunFolder(run).require_summary().corpus.name, "test")
    if file.exists():
        record = kind.read(file)
        if record.protocol == dict(protocol):
            return record.document()
    with opened_to_analyse(run) as found:
        return measure(found)[0].document()


def _rounded(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _rounded(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_rounded(each) for each in tree]
    return float(f"{tree:.{DIGITS}g}") if isinstance(tree, float) else tree


STAGES = ("base", "sft", "dpo")
"""How far a run of experiments/consistency is tuned; its folder is called by that."""


def stage(run: Path) -> dict[str, str]:
    """Returns how far a run is tuned, by the name of its folder."""
    name = run.name.partition("-")[0]
    return {"stage": name if name in STAGES else STAGES[0]}


def of_stages(found: Sequence[Any]) -> dict[str, list[Any]]:
    """Returns the arms of each stage, in the order of their seeds."""
    return {
        name: own
        for name in STAGES
        if (own := sorted((e for e in found if e.stage == name), key=lambda e: e.seed))
    }


def paired(
    after: Sequence[Any], before: Sequence[Any], figure: Callable[[Any], float]
) -> list[float]:
    """Returns the change of a figure from an arm to that of the same seed, seed by seed."""
    known = {each.seed: figure(each) for each in before}
    return [figure(each) - known[each.seed] for each in after if each.seed in known]


def print_stages(
    stages: Mapping[str, Sequence[Any]], figures: Mapping[str, Callable[[Any], float]]
) -> list[tuple[str, Sequence[Any], Sequence[Any]]]:
    """Prints a row for each stage, and one for each change between two, paired over seeds.

    Returns:
        The changes: a name, the arms after, and those before.
    """
    rows = [
        [
            name,
            *(over_seeds(own, lambda e, f=figure: estimate(f(e))) for figure in figures.values()),
        ]
        for name, own in stages.items()
    ]
    print_table(["stage", *figures], rows)
    changes = [
        (f"{after} less {before}", stages[after], stages[before])
        for after, before in (("sft", "base"), ("dpo", "sft"), ("dpo", "base"))
        if after in stages and before in stages
    ]
    rows = [
        [name, *(decided(paired(*pair, figure), 1)[0] for figure in figures.values())]
        for name, *pair in changes
    ]
    print_table(["change", *figures], rows)
    return changes


def decided(values: Sequence[float], side: int) -> tuple[str, str]:
    """Returns the mean of changes with Student's 95 % interval, and what the rule says of it.

    Args:
        values: one per seed.
        side: of 0 on which the claim has them: 1 above, -1 below.
    """
    mean, half = math.fsum(values) / len(values), student_half_width(values) or math.inf
    said = "not decided"
    if abs(mean) > half:
        said = "reproduced" if mean * side > 0 else "refuted"
    return f"{mean:+.3f} ±{half:.3f}", said


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    print("| " + " | ".join(headings) + " |")
    print("|---" * len(headings) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def kinds(found: Sequence[Any]) -> dict[str, list[Any]]:
    """Returns the arms of each kind (corpus, model and vocabulary); one per seed."""
    groups: dict[str, list[Any]] = {}
    for each in sorted(found, key=lambda each: (each.corpus, each.model, each.vocab_size)):
        model = "" if each.model == "transformer" else f", {each.model}"
        groups.setdefault(f"{each.corpus}{model}, {each.vocab_size:,}", []).append(each)
    return groups


def over_seeds(
    found: Sequence[Any], figure: Callable[[Any], Any], decimals: int = 3, signed: bool = False
) -> str:
    """Returns the mean of a figure over seeds with Student's 95 % interval.

    A single seed has the figure's own interval over documents.

    Args:
        found: one per seed.
        figure: from an arm to its figure; None and NaN are left out.
        decimals: that are shown.
        signed: whether a plus is shown.
    """
    form = f"{'+' if signed else ''}.{decimals}f"
    own = [
        each for each in map(figure, found) if each is not None and not math.isnan(each.estimate)
    ]
    if not own:
        return "-"
    if len(own) == 1:
        (only,) = own
        ends = "" if only.lower is None else f" ({only.lower:{form}} to {only.upper:{form}})"
        return f"{only.estimate:{form}}{ends}"
    values = [each.estimate for each in own]
    mean, half = math.fsum(values) / len(values), student_half_width(values) or 0.0
    return f"{mean:{form}} ±{half:.{decimals}f}"


def estimate(value: float, lower: float | None = None, upper: float | None = None) -> Any:
    """Returns a figure as `over_seeds` takes it."""
    return SimpleNamespace(estimate=value, lower=lower, upper=upper)


def without(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Returns a JSON object without some keys."""
    return {key: value for key, value in tree.items() if key not in keys}
