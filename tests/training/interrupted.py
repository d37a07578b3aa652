"""Train the configuration in argv[1] into argv[2], and die by SIGKILL at the place argv[3] names.

Places are NAME:COUNT, the COUNT-th time that the named thing happens:
    batch        while a batch is being read, in mid-step
    saving       while Orbax is writing a checkpoint
    saved        after Orbax wrote it, before its checksums are there
    evaluation   while a window of an evaluation is being read
    results      while the result of an evaluation is being written
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from calibtrain.ablation.replicas import train_replicas
from calibtrain.config import load_config
from calibtrain.data.batches import stream as batches
from calibtrain.data.batches import windows
from calibtrain.evaluation import train_run
from calibtrain.runs import checkpoint, document_rows


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], at: int, act: Callable[[], None]) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            act()
        return function(*arguments, **options)

    return wrapped


def main() -> None:
    config, run, place = sys.argv[1:]
    name, _, count = place.partition(":")
    at = int(count)
    later = threading.Timer(0.01, die)
    targets = {
        "batch": (batches.TrainingBatches, "__getitem__", die),
        "saving": (ocp, "save_async", later.start),
        "saved": (checkpoint, "write_checksums", die),
        "evaluation": (windows.EvaluationWindows, "__getitem__", die),
        "results": (document_rows, "write_whole", die),
    }
    owner, attribute, act = targets[name]
    setattr(owner, attribute, dying(getattr(owner, attribute), at, act))
    settings = load_config(config)
    (train_replicas if settings.train.replicas > 1 else train_run)(settings, Path(run))


if __name__ == "__main__":
    main()
