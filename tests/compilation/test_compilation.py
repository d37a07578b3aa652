"""Compilation for TPUs and GPUs that are not here."""

import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import call, tiny

from calibtrain.compilation.target import find_target
from calibtrain.compilation.traffic import traffic
from calibtrain.config import load_config, to_yaml
from calibtrain.errors import UserError
from calibtrain.models.size import count_parameters
from calibtrain.parallel.tpu import find_slice

pytestmark = pytest.mark.long

PRESETS = sorted((Path(__file__).parents[2] / "configs" / "tpu").glob("*.yaml"))
HERE = importlib.util.find_spec("libtpu") is not None
CUDA = any(
    plugin.name.startswith("xla_cuda")
    for plugin in importlib.metadata.entry_points(group="jax_plugins")
)


def test_traffic_counts_what_collectives_hand_over() -> None:
    program = """
      %a = f32[8,4]{1,0} all-reduce(%x), replica_groups={}
      %b = (bf16[4,4]{1,0}, bf16[16,4]{1,0}) all-gather-start(%y), dimensions={0}
      %c = bf16[16,4]{1,0} all-gather-done(%b)
      %d = (f32[2]{0}, s32[3]{0}) all-reduce(%e, %f), to_apply=%sum
      %g = f32[128]{0} add(%h, %i)
      %j = (f32[10]{0}, f8e4m3fn[20]{0}) all-reduce-start(%k, %l), to_apply=%sum
      %m = (u8[2]{0}, u8[3]{0}, u8[4]{0}, u8[6]{0}) all-gather-start(%n, %o), dimensions={0}
      %p = (f32[7]{0}, f32[7]{0}, u32[], u32[]) collective-permute-start(%q)
    """
    assert traffic(program) == {
        "all-reduce": (8 * 4 * 4) + (2 * 4 + 3 * 4) + (10 * 4 + 20),
        "all-gather": 16 * 4 * 2 + (4 + 6),
        "collective-permute": 7 * 4,
    }


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_divide_among_their_chips(preset: Path) -> None:
    config = load_config(preset)
    line = next(line for line in preset.read_text().splitlines() if "--topology" in line)
    words = line.split()
    tpu = find_slice(words[words.index("--topology") + 1])
    slices = int(words[words.index("--slices") + 1]) if "--slices" in words else 1
    chips = tpu.chips * slices
    assert chips % config.mesh.fsdp == 0
    assert config.batch.rows % chips == 0


@pytest.mark.skipif(HERE, reason="libtpu is installed")
def test_without_libtpu_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(tiny()))
    done = call("compile", tmp_path / "c.yaml", "--topology", "v5e:2x2")
    assert done.returncode == 2
    assert "tpu-compile" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_topology_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(tiny()))
    done = call("compile", tmp_path / "c.yaml", "--topology", "v5e:3x3")
    assert done.returncode == 2
    assert "--topology: 'v5e:3x3' is no size of v5e" in done.stderr


@pytest.mark.skipif(CUDA, reason="JAX's CUDA plugin is installed")
def test_without_the_cuda_plugin_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(tiny()))
    done = call("compile", tmp_path / "c.yaml", "--topology", "h100:2")
    assert done.returncode == 2
    assert "calibtrain[cuda12]" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("h100:9", "N from 1 to 8"),
        ("h100", "write h100:N"),
        ("h100:0", "N from 1 to 8"),
        ("p100:8", "GPUs: a100-40gb, a100, h100, h200, b200"),
        ("tpu", "TPUs: v4, v5e, v5p, v6e, tpu7x"),
    ],
)
def test_what_is_no_topology_is_told(name: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as error:
        find_target(name)
    assert str(error.value).startswith("--topology: ")


def check_both_programs(found: dict[str, Any], devices: int) -> None:
    """What holds of a run of 8 rows, whatever it is compiled for."""
    training, evaluation = found["training"], found["evaluation"]
    assert found["devices"] == devices
    assert found["fits"]
    assert training["rows"] == 8
    assert evaluation["rows"] == 4  # of 3, so that the devices have as many each
    # AdamW's two moments a parameter stay where they are; the parameters are shared by fsdp: 2
    parameters = count_parameters(tiny().model, found["vocab_size"]).total
    assert parameters * 4 <= evaluation["memory"]["held"] < parameters * 4 * 1.2
    assert training["memory"]["held"] == 0
    for program in (training, evaluation):
        memory = program["memory"]
        held = memory["arguments"] + memory["temporaries"] + memory["held"]
        assert held <= memory["needed"] + memory["aliased"]
    # gradients are summed over the devices in training alone
    assert set(training["collectives"]) & {"all-reduce", "reduce-scatter"}
    assert evaluation["flops"]["analytic"] == pytest.approx(training["flops"]["analytic"] / 6)


SMALL = {
    "batch": {"rows": 8},
    "mesh": {"fsdp": 2},
    "context": {"tokens": 128},
    "evaluation": {"rows": 3},
}


@pytest.mark.skipif(not HERE, reason="libtpu, which holds the TPU compiler, is not installed")
def test_both_programs_compile_for_a_slice(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(tiny(**SMALL)))
    done = call("compile", tmp_path / "c.yaml", "--topology", "v5e:2x2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_both_programs(found, devices=4)
    assert found["attention"] == "splash"


@pytest.mark.skipif(
    not CUDA, reason="JAX's CUDA plugin, which holds the compiler, is not installed"
)
def test_both_programs_compile_for_gpus(tmp_path: Path) -> None:
    config = tiny(**SMALL, model={"attention": "xla"})  # cuDNN's needs cuDNN besides
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    done = call("compile", tmp_path / "c.yaml", "--topology", "h100:4", "--json")
    assert done.returncode == 0, done.stderr
    check_both_programs(json.loads(done.stdout), devices=4)


@pytest.mark.skipif(
    not CUDA, reason="JAX's CUDA plugin, which holds the compiler, is not installed"
)
def test_a_memory_that_is_too_small_is_said(tmp_path: Path) -> None:
    """The logits' chunk alone does not: 2^18 rows x 128 tokens x 16 wide in and out of a layer."""
    config = tiny(batch={"rows": 2**18}, context={"tokens": 128}, model={"attention": "xla"})
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    done = call("compile", tmp_path / "c.yaml", "--topology", "a100-40gb:1", "--json")
    assert done.returncode == 1
    assert "batch.rows" in done.stderr
    found = json.loads(done.stdout)
    assert (found["training"]["fits"], found["evaluation"]["fits"]) == (False, True)
