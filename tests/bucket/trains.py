"""Train argv[1] into argv[2] with locks that are soon stale; argv[3] may say where to die.

The client of the bucket waits between its tries for a fortieth of the usual time. Where argv[3] is
`outage:N`, the gate in front of the bucket (`gate.py`) is shut before the N-th checkpoint.
"""

import asyncio
import os
import sys
import types
from pathlib import Path

from calibtrain.process.interruption import interruptible
from calibtrain.process.output import prepare_streams
from calibtrain.storage import bucket_lock

bucket_lock.REFRESH, bucket_lock.STALE, bucket_lock.WATCH = 0.5, 6.0, 0.1

if __name__ == "__main__":
    prepare_streams()
    import gcsfs.retry  # it writes to the streams that there are now

    gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 40))
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    place = sys.argv[3] if len(sys.argv) == 4 else ""
    if place and not place.startswith("outage"):
        import interrupted

        interrupted.main()
    else:
        from calibtrain.cli.main import run
        from calibtrain.runs import checkpoint

        if place:
            import gate
            import interrupted

            address = os.environ["STORAGE_EMULATOR_HOST"]
            at = int(place.partition(":")[2])
            shut = interrupted.dying(checkpoint.begin, at, lambda: gate.shut(address))
            checkpoint.begin = shut
        sys.argv = ["calibtrain", "train", sys.argv[1], "--run", sys.argv[2], "--json"]
        with interruptible():
            status = run()
        sys.exit(status)
