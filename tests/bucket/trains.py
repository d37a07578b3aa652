"""Train argv[1] into argv[2] with locks that are soon stale; argv[3] may say where to die."""

import sys
from pathlib import Path

from calibtrain.storage import bucket_lock

bucket_lock.REFRESH, bucket_lock.STALE, bucket_lock.WATCH = 0.5, 6.0, 0.1

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    if len(sys.argv) == 4:
        import interrupted

        interrupted.main()
    else:
        from calibtrain.cli.main import main

        sys.argv = ["calibtrain", "train", sys.argv[1], "--run", sys.argv[2], "--json"]
        main()
