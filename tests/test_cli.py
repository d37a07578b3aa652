"""The command line and the package as a stranger meets them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call, tiny

import calibtrain
from calibtrain.config import to_yaml

ROOT = Path(__file__).parent.parent
COMMANDS = ["train", "ablate", "evaluate", "report", "tokenizer", "config"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finished_lstm: Path) -> Path:
    return Path(shutil.copytree(finished_lstm, tmp_path_factory.mktemp("cli") / "run"))


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import calibtrain; "
        "took = time.perf_counter() - start; "
        "heavy = {'tensorflow', 'tensorflow_datasets', 'plotly', 'jax'} & set(sys.modules); "
        "print(took < 1.0, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


def test_every_part_can_be_reached_from_the_package() -> None:

    assert calibtrain.metrics.expected_calibration_error
    assert calibtrain.readout.readout
    assert calibtrain.losses.CrossEntropy
    assert calibtrain.data.Corpus
    assert calibtrain.data.Tokenizer
    assert calibtrain.data.TokenStore
    with pytest.raises(AttributeError, match="nonsense"):
        _ = calibtrain.nonsense


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout
    assert len(done.stdout) > 200


def test_json_is_one_document_on_standard_output(run: Path) -> None:
    done = call("evaluate", run, "--split", "validation", "--bytes", "1500", "--json")
    result = json.loads(done.stdout)
    wanted = {
        *("tokens", "bytes", "nll", "bits_per_byte", "accuracy", "mean_confidence"),
        *("signed_gap", "ece", "entropy_rate", "entropy_bits_per_byte"),
    }
    assert wanted <= result.keys()
    assert len(result["reliability"]) == 15
    assert len(result["frequency_deciles"]) == 10
    report = call("report", run, "--json")
    assert Path(json.loads(report.stdout)["report"]).is_file()


def test_a_run_is_evaluated_out_of_its_domain(run: Path, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"吾輩は猫である。名前はまだ無い。\r\n{number}")
    done = call("evaluate", run, "--corpus", f"files:{tmp_path}/*.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == len("吾輩は猫である。名前はまだ無い。\r\n0".encode())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nowhere.yaml"], ["nowhere.yaml", "no such"]),
        (["train"], ["config"]),
        (["evaluate", "nowhere"], ["nowhere", "no run folder"]),
        (["report", "nowhere"], ["nowhere"]),
        (["trian"], ["trian"]),
        (["tokenizer", "inspect", "nowhere"], ["nowhere"]),
        (["ablate", str(ROOT / "configs" / "tiny.yaml")], ["no grid", "calibtrain train"]),
        (["train", str(ROOT / "configs" / "quickstart.yaml")], ["calibtrain ablate"]),
        (["evaluate", "x", "--bytes", "many"], ["--bytes", "many"]),
    ],
)
def test_mistakes_are_one_line_with_exit_status_2(arguments: list[str], words: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("number", "there", "said"),
    [
        (signal.SIGTERM, False, "stopped by SIGTERM before training began; nothing was left"),
        (signal.SIGINT, False, "stopped by SIGINT before training began; nothing was left"),
        (signal.SIGTERM, True, "stopped by SIGTERM; the same command goes on with run"),
    ],
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_before_training_is_one_line(
    number: signal.Signals, there: bool, said: str, swallowed: bool, tmp_path: Path
) -> None:
    """Even where Python ignores exceptions, as in callbacks of its garbage collector."""
    if there:
        (tmp_path / "run").mkdir()
    code = f"""
import gc, os, sys, time
from calibtrain import config
from calibtrain.cli import main as cli
def signalled(*ignored):
    gc.callbacks.clear()
    os.kill(os.getpid(), {number.value})
    time.sleep(0)
def prepare(*ignored):
    if {swallowed}:
        gc.callbacks.append(signalled)
        gc.collect()
    else:
        signalled()
    for _ in range(500):
        time.sleep(0.02)
config.load_config = prepare
sys.argv = ["calibtrain", "train", "any.yaml", "--run", "run"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 128 + number
    assert done.stderr == f"calibtrain: {said}\n"


def test_tokenizers_are_trained_and_inspected(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(tiny()))
    made = call("tokenizer", "train", config, "--out", tmp_path / "t", "--json")
    seen = call("tokenizer", "inspect", tmp_path / "t", "--json")
    assert json.loads(made.stdout) == json.loads(seen.stdout)
    assert json.loads(seen.stdout)["vocab_size"] == 290


def test_the_resolved_configuration_can_be_shown(tmp_path: Path) -> None:
    shown = call("config", "show", ROOT / "configs" / "tiny.yaml", "model.width=96")
    (tmp_path / "again.yaml").write_text(shown.stdout)
    assert "width: 96" in shown.stdout
    assert call("config", "show", tmp_path / "again.yaml").stdout == shown.stdout
