"""A run is a folder: its layout, the lock that keeps it to one process, and its metrics file."""

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.config import Config, read_tree, to_yaml, validate
from calibtrain.data.disk import disk_errors, write_whole
from calibtrain.data.tokenizer import Tokenizer
from calibtrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """One Orbax folder a step."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """CORPUS-SPLIT-STEP.json, and .parquet with a row a document."""
        return self.path / "evaluations"

    @property
    def metrics(self) -> Path:
        """One JSON object a line; a function of the configuration alone, so no times in it."""
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer, and how often each of its entries is a target in the training text."""
        return self.path / "tokenizer"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.yaml").is_file()

    def read_config(self) -> Config:
        """The resolved configuration.

        Raises:
            UserError: where there is no run, or its configuration is not valid.
        """
        if not self.exists:
            raise UserError(f"{self.path}: is no run folder (it has no config.yaml)")
        path = self.path / "config.yaml"
        return validate(Config, read_tree(path), str(path))

    def read_tokenizer(self) -> Tokenizer:
        """The run's own tokenizer."""
        return Tokenizer.load(self.tokenizer)

    def create(self, config: Config, fill: Callable[[Path], None]) -> None:
        """Make the folder in one move, with its configuration and what `fill` puts into it."""
        if self.path.exists() and any(self.path.iterdir()):
            raise UserError(
                f"{self.path}: is there already and is no run folder; choose another --run"
            )
        with disk_errors(self.path):
            parent = self.path.absolute().parent
            parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.tmp-", dir=parent))
            try:
                temporary.chmod(0o755)
                (temporary / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
                fill(temporary)
                if self.path.exists():
                    self.path.rmdir()
                temporary.rename(self.path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def check_config(self, config: Config) -> None:
        """Raise a UserError that names the keys in which the run's configuration differs."""
        mine, theirs = (
            _flatten(config.model_dump(mode="json")),
            _flatten(self.read_config().model_dump(mode="json")),
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
        """Hold the run for this process.

        Raises:
            UserError: when another process has it.
        """
        with disk_errors(self.path):
            handle = (self.path / ".lock").open("a+")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise UserError(
                    f"{self.path}: is being written by another process (pid {handle.read().strip()}"
                    "); wait for it, stop it, or choose another --run"
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        with disk_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole line; a last line that a killed process cut short is left out."""
        if not self.metrics.is_file():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                lines.append(json.loads(text))
            except ValueError:
                raise UserError(f"{self.metrics}: line {len(lines) + 1} is no JSON") from None
        return lines

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines of later steps, which will be written again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_whole(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_whole(self.path / "run.json", json.dumps(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """Read run.json; empty where there is none yet."""
        path = self.path / "run.json"
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path}: is no JSON; remove it, it is written anew") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
