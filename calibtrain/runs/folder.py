"""A run is a folder: its layout, the lock that keeps it to one process, and its metrics file.

On a disk a run is made in one move. A bucket cannot move files: there the configuration is written
last, and a folder without one is not a run.
"""

import dataclasses
import glob
import io
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from calibtrain.config import WAYS_TO_COMPUTE, Config, config_hash, read_tree, to_yaml, validate
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError
from calibtrain.runs.listing import LOCK_FILE, arms_of
from calibtrain.runs.records import RUN_FILE, RunRecord
from calibtrain.storage.bucket_lock import BucketLock, held
from calibtrain.storage.disk import disk_errors, make_folder, write_whole
from calibtrain.storage.disk_lease import Lease
from calibtrain.storage.disk_lock import held_to_read, held_to_write
from calibtrain.storage.growing import GrowingFile
from calibtrain.storage.metrics import fingerprint, read_metrics
from calibtrain.storage.places import in_bucket, reached, remove_tree

IMPORTED = "imported"
"""Status of a run whose parameters came from elsewhere."""
_MOST_ARMS = 12
"""How many arms of a study a message names."""


@dataclasses.dataclass
class _Writing:
    """What a process that writes a run keeps from call to call."""

    metrics: GrowingFile | None = None
    lock: BucketLock | Lease | None = None


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder.
        writes: whether this process writes the run. One of several does; in the others, methods
            that write do nothing.
    """

    path: Path
    writes: bool = True
    _writing: _Writing = dataclasses.field(
        default_factory=_Writing, init=False, repr=False, compare=False
    )

    @property
    def checkpoints(self) -> Path:
        """Holds one Orbax folder per step."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Holds CORPUS-SPLIT-STEP.json, and .parquet with a row per document."""
        return self.path / "evaluations"

    @property
    def heads(self) -> Path:
        """Holds NAME/, a temperature head fitted afterwards (`temperature.saved_head`)."""
        return self.path / "temperature"

    @property
    def traces(self) -> Path:
        """Holds NAME.parquet, a row per token of generated or given text (`runs.traces`)."""
        return self.path / "traces"

    @property
    def ensembles(self) -> Path:
        """Holds what the run showed as the first member of an ensemble: NAME.parquet, a row per
        step and member (`runs.ensemble_traces`), and NAME.json, its scores."""
        return self.path / "ensembles"

    @property
    def metrics(self) -> Path:
        """Holds one JSON object per line, without times: a function of the configuration alone."""
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        """Holds the tokenizer, and how often each entry is a target in the training text."""
        return self.path / "tokenizer"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        path = self.path / "config.yaml"
        with reached(self.path):
            if in_bucket(path):
                return path.exists()
            return os.path.isfile(path)  # False for a name that is too long, too

    def read_config(self) -> Config:
        """Returns the resolved configuration.

        Raises:
            UserError: where there is no run, or its configuration is not valid.
        """
        if not self.exists:
            raise UserError(self._no_run())
        path = self.path / "config.yaml"
        return validate(Config, read_tree(path), str(path))

    def _no_run(self) -> str:
        """Returns why the folder is not a run; for a study, with the names of its arms."""
        if not (arms := arms_of(self.path)):
            return f"{self.path}: is no run folder (it has no config.yaml)"
        more = f" and {len(arms) - _MOST_ARMS:,} more" if len(arms) > _MOST_ARMS else ""
        names = ", ".join(shlex.quote(name) for name in arms[:_MOST_ARMS])
        return (
            f"{self.path}: is no run folder but holds {len(arms)}; name one, as "
            f"{shlex.quote(str(self.path / arms[0]))}; they are {names}{more}"
        )

    def read_tokenizer(self) -> Tokenizer:
        """Returns the run's own tokenizer."""
        return Tokenizer.load(self.tokenizer)

    def write_target_counts(self, counts: Int[np.ndarray, " vocab"]) -> None:
        """Writes how often each vocabulary entry is a target in the training text."""
        if not self.writes:
            return
        buffer = io.BytesIO()
        np.save(buffer, counts)
        write_whole(self.tokenizer / "target_counts.npy", buffer.getvalue())

    def read_target_counts(self, vocab_size: int) -> Int[np.ndarray, " vocab"]:
        """Returns how often each vocabulary entry is a target in the training text.

        Raises:
            UserError: when the file is missing or damaged.
        """
        path = self.tokenizer / "target_counts.npy"
        try:
            with reached(path):
                content = path.read_bytes()
            counts = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            if counts.shape == (vocab_size,) and counts.dtype.kind == "i" and counts.sum() > 0:
                return counts
            reason = f"it does not hold {vocab_size} counts"
        except (OSError, ValueError) as error:
            reason = str(error)
        raise UserError(
            f"{path}: cannot be read ({reason}); the command that trained the run restores it, "
            f"for example {self.resuming}"
        )

    def create(self, config: Config, fill: Callable[[Path], None]) -> None:
        """Makes the folder, with its configuration and what `fill` puts into it.

        Raises:
            UserError: where something else is there, or it cannot be written.
        """
        if not self.writes:
            return
        if in_bucket(self.path):
            self._create_in_bucket(config, fill)
            return
        with disk_errors(self.path):
            path = self.path.resolve()
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(
                    f"{self.path}: is there already and is no run folder; choose another --run"
                )
            if path == Path.cwd():  # to be replaced, under the feet of the shell
                raise UserError(
                    f"{self.path}: is the folder you are in; name one inside, as --run ./mine"
                )
            make_folder(path.parent)
            for stale in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
                with suppress(UserError, OSError), RunFolder(stale).locked():  # its maker is dead
                    shutil.rmtree(stale)
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
            try:
                with RunFolder(temporary).locked():
                    temporary.chmod(0o755)
                    (temporary / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
                    fill(temporary)
                    temporary.rename(path)  # takes the place of an empty folder
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def _create_in_bucket(self, config: Config, fill: Callable[[Path], None]) -> None:
        with self.locked(), reached(self.path):
            there = {path.name for path in self.path.iterdir()}  # at least the lock
            if there - {LOCK_FILE, self.tokenizer.name}:  # which a creator that died leaves, too
                raise UserError(
                    f"{self.path}: is there already and is no run folder; choose another --run"
                )
            try:
                fill(self.path)
                write_whole(self.path / "config.yaml", to_yaml(config))
            except BaseException:
                remove_tree(self.tokenizer)
                raise

    def remove(self) -> None:
        """Removes the run; in a bucket its configuration first: what is left is then not a run."""
        if not self.writes:
            return
        if in_bucket(self.path):
            with suppress(UserError), reached(self.path):
                (self.path / "config.yaml").unlink(missing_ok=True)
                for path in self.path.iterdir():
                    if path.name != LOCK_FILE:
                        remove_tree(path)
        else:
            remove_tree(self.path)

    def check_trained_here(self) -> None:
        """Raises a UserError where the run holds a model that was imported, not trained."""
        if self.is_imported:
            raise UserError(
                f"{self.path}: holds an imported model, which has no training to go on with; "
                "choose another --run to train a model of your own"
            )

    @property
    def is_imported(self) -> bool:
        """Whether the model came from elsewhere, by run.json or a checkpoint of step 0.

        Raises:
            UserError: as `read_summary` does.
        """
        summary = self.read_summary()
        return (summary is not None and summary.status == IMPORTED) or self._holds_import

    @property
    def _holds_import(self) -> bool:
        """Whether there is a checkpoint of step 0, which training never makes."""
        return (self.checkpoints / "0").exists()

    def check_config(self, config: Config) -> None:
        """Raises a UserError that names the keys in which the run's configuration differs."""
        mine, theirs = (
            _flatten(each.model_dump(mode="json", exclude=WAYS_TO_COMPUTE))
            for each in (config, self.read_config())
        )
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            shown = ", ".join(
                f"{key} ({theirs.get(key)!r} there, {mine[key]!r} asked)" for key in differing[:3]
            )
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise UserError(
                f"{self.path}: holds a run with another configuration: {shown}{more}; choose "
                "another --run, or remove that folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process.

        Raises:
            TransientError: when another process has it. In a bucket, and on a disk without locks, a
                living process is told from a dead one by a lock that it writes again and again
                (`storage.bucket_lock`, `storage.disk_lease`).
        """
        if not self.writes:
            yield
            return
        if in_bucket(self.path):
            with held(self.path / LOCK_FILE) as lock:
                self._writing.lock = lock
                try:
                    yield
                    self.settle()
                finally:
                    if self._writing.metrics is not None:
                        self._writing.metrics.wait()  # another may have the run once this ends
                    self._writing.lock = None
            return
        with held_to_write(self.path / LOCK_FILE) as lease:
            self._writing.lock = lease
            try:
                yield
            finally:
                self._writing.lock = None

    @contextmanager
    def locked_to_read(self) -> Iterator[None]:
        """Holds the run for reading, even where it may not be written.

        On a disk several processes may read it at once; in a bucket one, as with `locked`.

        Raises:
            UserError: when another process is writing it.
        """
        with self.locked() if in_bucket(self.path) else held_to_read(self.path / LOCK_FILE):
            yield

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends one line of metrics."""
        if not self.writes:
            return
        self._growing().append(json.dumps(line, allow_nan=False))

    def settle(self) -> None:
        """Makes sure that all metrics are on disk, before something is written that implies it.

        Raises:
            UserError: where they cannot be written, or another process may have the run by now.
        """
        if self._writing.lock is not None:
            self._writing.lock.require()
        if self._writing.metrics is not None:
            self._writing.metrics.flush()

    def metrics_fingerprint(self) -> dict[str, Any]:
        """Returns the `storage.metrics.fingerprint` of all lines so far, written or not."""
        return fingerprint(self._growing().text())

    def _growing(self) -> GrowingFile:
        if self._writing.metrics is None:
            self._writing.metrics = GrowingFile(self.metrics)
        return self._writing.metrics

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns every whole line; a last line that a killed process cut short is left out.

        Raises:
            UserError: naming a line that is damaged.
        """
        self.settle()
        with reached(self.path):
            return read_metrics(self.metrics) if self.metrics.is_file() else []

    def rewind_metrics(self, count: int) -> None:
        """Keeps the first `count` lines; those that follow will be written again."""
        if not self.writes:
            return
        kept = self.read_metrics()[:count]
        self._growing().replace("".join(json.dumps(line) + "\n" for line in kept))

    def write_summary(self, summary: RunRecord) -> None:
        """Writes run.json."""
        if not self.writes:
            return
        self.settle()
        summary.write(self.path / RUN_FILE)

    def read_summary(self) -> RunRecord | None:
        """Returns what run.json says; None where there is none yet.

        Raises:
            UserError: when it is damaged, or of a format that this version does not know.
        """
        path = self.path / RUN_FILE
        with reached(path):
            return self.require_summary() if path.exists() else None

    def require_summary(self) -> RunRecord:
        """Returns what run.json says, which must be there.

        Raises:
            UserError: as `read_summary` does, and when it is missing.
        """
        again = "the command that made the run writes it again, such as " + self.resuming
        if self._holds_import:
            again = "import the model again, with another --run"
        return RunRecord.read(self.path / RUN_FILE, again)

    @property
    def resuming(self) -> str:
        """The command that goes on with the run."""
        path = shlex.quote(str(self.path))
        with suppress(UserError):
            if self.read_config().finetune is not None:
                return f"calibtrain finetune CONFIG --run {path}"
        return f"calibtrain train {shlex.quote(str(self.path / 'config.yaml'))} --run {path}"

    def is_done(self, config: Config) -> bool:
        """Whether this very run was finished here."""
        summary = self.read_summary()
        return (
            summary is not None
            and summary.status == "done"
            and summary.config_hash == config_hash(config)
        )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
