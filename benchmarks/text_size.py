"""What does a corpus cost before its first training step, at several sizes?

python -m benchmarks.text_size --text FOLDER ... [--counts 12500 50000] [--kind unigram bpe]

Documents of about 20 kB are made of the paragraphs of the text files below the folders, drawn anew
for each document. Then `calibtrain train` runs for one step and a short evaluation, with an empty
cache, and its memory is read ten times a second: the resident memory of all its processes together,
in which pages that they share count several times. `seconds_of` says what took how long.
"""

import argparse
import bisect
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".txt", ".md", ".rst", ".py", ".c", ".h", ".html", ".pl", ".js", ".ts", ".rs", ".go")
PER_FOLDER = 1_000
SETTINGS = (
    "context.tokens=128",
    "model.width=64",
    "model.depth=2",
    "model.heads=2",
    "budget.steps=1",
    "evaluation.times=1",
    "evaluation.bytes=40000",
    "evaluation.final_bytes=100000",
)


def paragraphs(folders: Sequence[str]) -> list[list[bytes]]:
    """The paragraphs of each file in UTF-8 below folders, each file once."""
    found = dict[bytes, None]()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and path.stat().st_size < 400_000:
                data = path.read_bytes()
                try:
                    data.decode()
                except UnicodeDecodeError:
                    continue
                found[data] = None
    if not found:
        sys.exit(f"benchmarks.text_size: no text files below {', '.join(folders)}")
    return [data.split(b"\n\n") for data in found]


def make_documents(folder: Path, count: int, source: Sequence[list[bytes]]) -> None:
    """Writes documents of 10 to 30 kB: stretches of paragraphs of files, drawn by their size."""
    draw = random.Random(count)
    ends = list(itertools.accumulate(sum(map(len, own)) for own in source))
    for number in range(count):
        wanted, text = draw.randint(10_000, 30_000), b""
        while len(text) < wanted:
            own = source[bisect.bisect(ends, draw.random() * ends[-1])]
            first = draw.randrange(len(own))
            text += b"\n\n".join(own[first : first + draw.randint(20, 200)]) + b"\n\n"
        inner = folder / f"{number // PER_FOLDER:04d}"
        inner.mkdir(exist_ok=True, parents=True)
        text = text[:wanted].decode("utf-8", "ignore").encode()
        (inner / f"{number:07d}.txt").write_bytes(text)


def tree(process: int) -> Iterator[int]:
    """A process and all that it started, directly or not."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))
    except OSError:  # it has ended
        return


def resident(process: int) -> tuple[int, int]:
    """Resident memory of a process, and its part without pages of files, in bytes."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}
    return sizes.get("VmRSS", 0), sizes.get("RssAnon", 0)


def measure(documents: Path, kind: str, vocab: int, folder: Path) -> dict[str, Any]:
    """Trains one step on documents, with an empty cache, and reads memory and times."""
    size = sum(path.stat().st_size for path in documents.glob("*/*.txt"))
    config = folder / "config.yaml"
    paths = json.dumps([f"{documents}/*/*.txt"])
    config.write_text(
        f"corpus: {{name: files, paths: {paths}}}\n"
        f"tokenizer: {{kind: {kind}, vocab_size: {vocab}}}\nbudget: {{steps: 1}}\n"
    )
    command = [sys.executable, "-m", "calibtrain", "train", str(config), *SETTINGS]
    command += ["--run", str(folder / "run"), "--progress", "json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CALIBTRAIN_CACHE": str(folder / "cache")},
    )
    events: list[tuple[float, dict[str, Any]]] = []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{"):
                events.append((time.monotonic() - began, json.loads(line)))
            else:
                print(line, end="", file=sys.stderr)

    reader = threading.Thread(target=read)
    reader.start()
    peak = anonymous = processes = 0
    while process.poll() is None:
        sizes = [resident(each) for each in tree(process.pid)]
        peak = max(peak, sum(each for each, _ in sizes))
        anonymous = max(anonymous, sum(each for _, each in sizes))
        processes = max(processes, len(sizes))
        time.sleep(0.1)
    reader.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds_of: dict[str, float] = {}
    for _, event in events:
        if event["event"] == "phase":
            seconds_of[event["what"]] = round(event["seconds"], 1)
    return {
        "benchmark": "text_size",
        "tokenizer": kind,
        "vocab": vocab,
        "bytes": size,
        "documents": sum(1 for _ in documents.glob("*/*.txt")),
        "status": process.returncode,
        "peak_resident_bytes": peak,
        "peak_without_files_bytes": anonymous,
        "processes": processes,
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(
            used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "longest_silence_seconds": round(silence([at for at, _ in events]), 1),
        "seconds_of": seconds_of,
    }


def silence(times: Sequence[float]) -> float:
    """The longest time between two events, from the start on."""
    return max(after - before for before, after in itertools.pairwise([0.0, *times]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_size", description=__doc__)
    parser.add_argument("--text", nargs="+", required=True, help="folders of text files")
    parser.add_argument("--counts", nargs="+", type=int, default=[12_500, 50_000])
    parser.add_argument("--kind", nargs="+", default=["unigram"])
    parser.add_argument("--vocab", type=int, default=4_096)
    parser.add_argument("--keep", type=Path, help="where documents are kept, and found again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kept = given.keep or Path(name)
        for count in given.counts:
            documents = kept / f"documents-{count}"
            if not documents.exists():
                make_documents(documents, count, paragraphs(given.text))
            for kind in given.kind:
                with tempfile.TemporaryDirectory(dir=kept) as folder:
                    print(json.dumps(measure(documents, kind, given.vocab, Path(folder))))
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
