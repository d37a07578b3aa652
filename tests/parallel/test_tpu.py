"""TPUs that are there are demanded, so that nothing is computed on the CPU in silence."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny

from calibtrain.cli.main import demanded_platforms
from calibtrain.config import to_yaml
from calibtrain.errors import TransientError, UserError
from calibtrain.parallel import tpu
from calibtrain.parallel.tpu import backend_failure, has_tpus

BUSY = (
    "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process with pid "
    "4711. Not attempting to load libtpu.so in this process."
)
"""What JAX says, with the words of libtpu."""


def pci(folder: Path, **devices: tuple[str, str]) -> Path:
    """A folder as /sys/bus/pci/devices: vendor and device number of each slot."""
    for slot, numbers in devices.items():
        (folder / slot).mkdir()
        for name, number in zip(("vendor", "device"), numbers, strict=True):
            (folder / slot / name).write_text(f"{number}\n")
    return folder


def test_chips_are_known_by_their_numbers(tmp_path: Path) -> None:
    network, gpu = ("0x1ae0", "0x0042"), ("0x10de", "0x2330")  # Google's network card
    folder = pci(tmp_path, a=network, b=gpu)
    assert not has_tpus(folder)
    assert has_tpus(pci(folder, c=("0x1ae0", "0x0063")))
    assert not has_tpus(folder / "none")


@pytest.mark.parametrize(
    ("libtpu", "chips", "devices", "demanded"),
    [
        (True, True, True, "tpu,cpu"),
        (True, False, False, "cpu"),  # the compiler alone
        (True, False, True, None),  # something else that is passed through
        (False, True, True, None),
    ],
)
def test_chips_with_libtpu_are_demanded(
    libtpu: bool,
    chips: bool,
    devices: bool,
    demanded: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: libtpu or None if name == "libtpu" else find_spec(name),
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **group: [])
    monkeypatch.setattr(tpu, "has_tpus", lambda: chips)
    monkeypatch.setattr(tpu, "has_chips", lambda: devices)
    assert demanded_platforms() == demanded


def test_what_jax_says_of_a_backend_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    busy = backend_failure(RuntimeError(BUSY))
    assert isinstance(busy, TransientError)
    assert "4711" in str(busy)
    other = backend_failure(RuntimeError("Unable to initialize backend 'tpu': no libtpu.so"))
    assert type(other) is UserError
    assert backend_failure(RuntimeError("of another kind")) is None


STUB = f"""if True:
    import sys
    from jax._src import xla_bridge
    def fail():
        raise RuntimeError({BUSY.partition(": ")[2]!r})
    xla_bridge.register_backend_factory("tpu", fail, priority=300)
    from calibtrain.cli.main import main
    sys.argv = ["calibtrain", "train", *sys.argv[1:]]
    main()
"""


@pytest.mark.long
def test_chips_that_another_process_holds_end_in_one_line(tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny()))
    ended = subprocess.run(
        [sys.executable, "-c", STUB, config, "--run", run],
        env={**os.environ, "JAX_PLATFORMS": "tpu,cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 75, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("calibtrain: JAX_PLATFORMS=tpu,cpu: the TPUs cannot be used (ABORTED")
    assert "Traceback" not in ended.stderr
    assert not run.exists()
