"""What a checkpoint holds can be read: under any name of a folder, and from a disk that fails."""

import gc
import json
import os
import resource
import shutil
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny
from orbax.checkpoint import v1 as ocp

from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.runs import checkpoint
from calibtrain.runs.array_store import import_orbax, read_arrays, write_arrays
from calibtrain.runs.checkpoint import Identity, begin, restore, save, steps_saved

OWN = Identity("config", "tokenizer", "corpus")
RNG = np.random.default_rng(0)
STATE: dict[str, Any] = {
    "a": jnp.asarray(RNG.random((64, 33)), jnp.float32),
    "b": {"c": jnp.asarray(RNG.random(70_000), jnp.bfloat16), "step": jnp.int32(3)},
    "zeros": jnp.zeros((4, 4)),
}
ODD = ["v[1]", "x*y?", "{a,b}", "a b#c", "p%20q", "é ü", os.fsdecode(b"n\xff"), "in [2]/deep"]


def leaves(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ODD)
def test_a_checkpoint_is_read_under_any_name_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder, temporary = tmp_path / name / "checkpoints", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    save(folder, 3, STATE, OWN)
    assert steps_saved(folder) == [3]
    assert (folder / "3" / "state" / "manifest.ocdbt").is_file()
    assert leaves(restore(folder, 3, STATE, OWN)) == leaves(STATE)
    moved = folder.rename(tmp_path / "plain")
    assert leaves(restore(moved, 3, STATE, OWN)) == leaves(STATE)
    assert not list(temporary.iterdir())


def test_a_large_state_is_written_in_pieces_and_without_another_copy(tmp_path: Path) -> None:
    """A bucket takes many objects at once; and the host's memory may hold no second state."""
    arrays = {"a": np.arange(40 * 2**20, dtype=np.float32), "b": np.ones(1000, np.float32)}
    folder = tmp_path / "1"
    import_orbax()
    tracemalloc.start()
    try:
        write_arrays(folder, arrays, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < arrays["a"].nbytes / 8
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    assert sum(sizes) >= sum(array.nbytes for array in arrays.values())
    assert max(sizes) < 100 * 2**20
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one) for name, a in arrays.items()
    }
    for name, found in read_arrays(folder, wanted).items():
        assert np.array_equal(found, arrays[name])


def test_steps_that_reuse_memory_change_nothing_of_a_checkpoint_that_is_being_written(
    tmp_path: Path,
) -> None:
    state = {"a": jax.numpy.arange(1 << 20, dtype=np.float32), "b": jax.numpy.ones(1000)}
    saved = {name: np.array(array) for name, array in state.items()}
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    begun = begin(tmp_path, 1, state, OWN)
    writer = threading.Thread(target=begun.write)
    writer.start()
    for _ in range(20):
        state = jax.block_until_ready(step(state))
    writer.join()
    begun.seal()
    found = restore(tmp_path, 1, state, OWN)
    for name, array in saved.items():
        assert np.array_equal(found[name], array)


def test_a_working_directory_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proj [v2]").mkdir()
    monkeypatch.chdir(tmp_path / "proj [v2]")
    save(Path("checkpoints"), 3, STATE, OWN)
    assert leaves(restore(Path("checkpoints"), 3, STATE, OWN)) == leaves(STATE)


def _without_index(path: Path) -> None:
    (path / "state" / "manifest.ocdbt").unlink()


def _without_data(path: Path) -> None:
    max(path.glob("state/ocdbt.process_0/d/*"), key=lambda file: file.stat().st_size).unlink()


def _cut(path: Path) -> None:
    file = max(path.glob("state/ocdbt.process_0/d/*"), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a store break just after Orbax wrote it, before it is sealed."""
    write = checkpoint.write_arrays

    def set_up(harm: Callable[[Path], None], at: int) -> None:
        def write_and_harm(path: Path, arrays: Any, about: Any) -> None:
            write(path, arrays, about)
            if path.name == str(at):
                harm(path)

        monkeypatch.setattr(checkpoint, "write_arrays", write_and_harm)

    return set_up


@pytest.mark.parametrize("harm", [_without_index, _without_data, _cut, _empty])
def test_a_store_that_breaks_under_a_save_is_noticed(
    tmp_path: Path, breaking: Callable[..., None], harm: Callable[[Path], None]
) -> None:
    save(tmp_path, 1, STATE, OWN)
    breaking(harm, at=2)
    with pytest.raises(UserError, match="/2: was written, but cannot be read back") as error:
        save(tmp_path, 2, STATE, OWN)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert leaves(restore(tmp_path, 1, STATE, OWN)) == leaves(STATE)


def test_numbers_that_are_not_those_of_the_state_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write_arrays

    def changed(path: Path, arrays: Any, about: Any) -> None:
        write(path, {**arrays, "['a']": np.nextafter(arrays["['a']"], np.float32(2))}, about)

    monkeypatch.setattr(checkpoint, "write_arrays", changed)
    with pytest.raises(UserError, match=r"\['a'\] does not hold the numbers"):
        save(tmp_path, 2, STATE, OWN)


def test_a_run_whose_checkpoint_breaks_ends_in_one_line_and_keeps_the_others(
    tmp_path: Path, breaking: Callable[..., None]
) -> None:
    breaking(_without_index, at=12)
    with pytest.raises(UserError, match="checkpoints/12: was written, but cannot be read back"):
        train_run(tiny(), tmp_path / "run")
    assert steps_saved(tmp_path / "run" / "checkpoints") == [6]
    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert summary["status"] == "failed"
    assert 12 <= summary["step"] <= 18  # the next checkpoint waits for that of step 12


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    old = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, old)


# Where the last file that may be opened is one of an event loop's two sockets, Python complains of
# its half-made loop when it is collected; pytest counts that as a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_that_fails_is_one_line_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Orbax alone would print some ten tracebacks, some of them when they are collected."""
    save(tmp_path, 1, STATE, OWN)  # imports what it needs
    with (
        limited(resource.RLIMIT_FSIZE, 20_000),
        pytest.raises(UserError, match=r"/2: cannot write: the file would be larger .*ulimit -f"),
    ):
        save(tmp_path, 2, STATE, OWN)
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 30
    with (
        limited(resource.RLIMIT_NOFILE, opened + 4),
        pytest.raises(UserError, match=r"/2: cannot write: too many files are open; .*ulimit -n"),
    ):
        save(tmp_path, 2, STATE, OWN)
    gc.collect()
    assert capfd.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_folder_that_goes_while_a_checkpoint_is_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, *more: Any, **options: Any) -> None:
        shutil.rmtree(tmp_path / "run")
        (path / "file").write_text("x")

    monkeypatch.setattr(ocp, "save_async", gone)
    with pytest.raises(UserError, match=r"checkpoints/2: cannot write: a folder above it was rem"):
        save(tmp_path / "run" / "checkpoints", 2, STATE, OWN)


def test_a_file_too_many_is_said_to_be_one(tmp_path: Path) -> None:
    save(tmp_path, 1, STATE, OWN)
    (tmp_path / "1" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"1/notes\.txt: lies in a checkpoint and was not written"):
        restore(tmp_path, 1, STATE, OWN)
    (tmp_path / "1" / "notes.txt").unlink()
    (tmp_path / "1" / "state" / "_METADATA").unlink()
    with pytest.raises(UserError, match=r"damaged \(state/_METADATA is missing\)"):
        restore(tmp_path, 1, STATE, OWN)


@pytest.mark.parametrize("text", ["{}", "[]", "3", "[" * 100_000, '{"a": ' + "1" * 5_000 + "}"])
def test_checksums_that_are_none_are_said(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1, STATE, OWN)
    (tmp_path / "1" / "checksums.json").write_text(text)
    with pytest.raises(UserError, match=r"1: checkpoint is damaged \(checksums\.json: "):
        restore(tmp_path, 1, STATE, OWN)


def test_a_step_that_no_run_reaches_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1, STATE, OWN)
    shutil.copytree(tmp_path / "1", tmp_path / "99999999999999999999")
    with pytest.raises(UserError, match=r"/99999999999999999999: is named .* 2,147,483,647;"):
        steps_saved(tmp_path)
