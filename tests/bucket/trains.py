"""Train argv[1] into argv[2] with locks that are soon stale; argv[3] may say where to die.

The client of the bucket waits between its tries for a fortieth of the usual time. Where argv[3] is
`outage:N`, the gate in front of the bucket (`gate.py`) is shut before the N-th checkpoint. Where it
is `gaps`, two lines of JSON tell when each checkpoint was begun and whole, and when each step was
dispatched; where it is `hits`, a line tells how many programs JAX found in its cache.
"""

import asyncio
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

from calibtrain.process.interruption import interruptible
from calibtrain.process.output import prepare_streams
from calibtrain.storage import bucket_lock

saves: list[tuple[float, float]] = []
steps: list[float] = []
events: list[str] = []


def watch_steps_and_saves() -> None:
    """Note the times of steps, and of checkpoints from their copy to their seal."""
    from calibtrain.runs import checkpoint
    from calibtrain.training.group import Group

    count, begin, seal = Group.count, checkpoint.begin, checkpoint.Unsealed.seal
    begun: dict[str, float] = {}

    def counts(group: Any, metrics: Any) -> None:
        count(group, metrics)
        steps.append(time.monotonic())

    def begins(*arguments: Any) -> checkpoint.Unsealed:
        save = begin(*arguments)
        begun[str(save.path)] = time.monotonic()
        return save

    def seals(save: checkpoint.Unsealed) -> None:
        seal(save)
        saves.append((begun[str(save.path)], time.monotonic()))

    Group.count, checkpoint.begin, checkpoint.Unsealed.seal = counts, begins, seals


bucket_lock.REFRESH, bucket_lock.STALE, bucket_lock.WATCH = 0.5, 6.0, 0.1

if __name__ == "__main__":
    prepare_streams()
    import gcsfs.retry  # it writes to the streams that there are now

    gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 40))
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    place = sys.argv[3] if len(sys.argv) == 4 else ""
    if place and place not in ("gaps", "hits") and not place.startswith("outage"):
        import interrupted

        interrupted.main()
    else:
        from calibtrain.cli.main import run
        from calibtrain.runs import checkpoint

        if place == "gaps":
            watch_steps_and_saves()
        elif place == "hits":
            import jax

            jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
        elif place:
            import gate
            import interrupted

            address = os.environ["STORAGE_EMULATOR_HOST"]
            at = int(place.partition(":")[2])
            shut = interrupted.dying(checkpoint.begin, at, lambda: gate.shut(address))
            checkpoint.begin = shut
        sys.argv = ["calibtrain", "train", sys.argv[1], "--run", sys.argv[2], "--json"]
        with interruptible():
            status = run()
        if place == "gaps":
            print(json.dumps(saves), json.dumps(steps), sep="\n")
        if place == "hits":
            print(events.count("/jax/compilation_cache/cache_hits"))
        sys.exit(status)
