"""calibtrain in a program: what it returns is what the files hold, and what the commands find."""

import ast
import doctest
import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import assert_same, tiny

import calibtrain as ct
from calibtrain.config import to_yaml
from calibtrain.errors import UserError
from calibtrain.library.progress import Narrator
from calibtrain.process.interruption import passed_on
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.training.stopping import stop_signals

PACKAGE = Path(ct.__file__).parent
GOLDEN = PACKAGE.parent / "tests" / "runs" / "golden"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> ct.library.Run:
    return ct.open_run(shutil.copytree(finished_run, tmp_path_factory.mktemp("library") / "run"))


@pytest.fixture(scope="module")
def result(run: ct.library.Run) -> ct.library.EvaluationResult:
    return run.evaluate(bytes=4_000)


@pytest.mark.parametrize("module", [ct, ct.library])
def test_editors_are_told_the_names_that_there_are(module: Any) -> None:
    stub = Path(module.__file__ or "").with_suffix(".pyi")
    nodes = ast.parse(stub.read_text()).body
    told = {a.asname: n.module for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    lazy = module.__all__ if module is ct.library else (*module._PARTS, *module._CALLS)
    assert set(told) == set(lazy)
    for each, home in told.items():
        assert each
        assert getattr(module, each)
        assert home == "calibtrain" or getattr(importlib.import_module(str(home)), each)


@pytest.mark.parametrize("name", ["configurations", "progress", "result", "table"])
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"calibtrain.library.{name}"))
    assert found.attempted
    assert not found.failed


def test_settings_in_a_mapping_are_those_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(tiny()))
    texts = ["model.width=32", "optimizer.learning_rate=1e-4", "budget.bytes=20000"]
    flat = {"model.width": 32, "optimizer.learning_rate": 1e-4, "budget.bytes": 20_000}
    deep = {"model": {"width": np.int64(32)}, "optimizer": {"learning_rate": 1e-4}}
    expected = ct.load_config(path, texts)
    assert expected.model.width == 32
    assert ct.load_config(str(path), flat) == expected
    assert ct.load_config(path, {**deep, "budget": {"bytes": 20_000}}) == expected


def test_an_evaluation_is_the_one_of_the_files(
    run: ct.library.Run, result: ct.library.EvaluationResult, finished_run: Path
) -> None:
    """What training wrote at its end is the very same, to the byte."""
    name = "evaluations/markov-test-24.json"
    assert (run.folder / name).read_bytes() == (finished_run / name).read_bytes()
    tree = json.loads((run.folder / name).read_text())
    assert result.record.document().items() <= tree.items()
    ece = result.figures["ece"]
    bounds = tree["intervals"]["ece"]
    assert (float(ece), ece.lower, ece.upper) == (tree["ece"], bounds["lower"], bounds["upper"])
    assert ece.signature == tree["signatures"]["ece"]
    assert result["nll"].unit == "nats/token"
    assert "step" not in result.figures
    (read,) = [
        each for each in run.evaluations if each.record.document() == result.record.document()
    ]
    assert read.documents.to_arrow() == result.documents.to_arrow()


def test_figures_follow_from_the_tables(result: ct.library.EvaluationResult) -> None:
    bins, documents = result.reliability, result.documents
    gaps = np.nan_to_num(np.abs(bins["confidence"] - bins["accuracy"])) * bins["tokens"]
    np.testing.assert_allclose(gaps.sum() / bins["tokens"].sum(), float(result["ece"]), rtol=1e-9)
    mean = documents["nll"].sum() / documents["tokens"].sum()
    np.testing.assert_allclose(mean, float(result["nll"]), rtol=1e-9)
    positions = result.strata["positions"]
    np.testing.assert_allclose(positions["tokens"].sum(), float(result["tokens"]))
    assert {"ece", "ece_lower", "ece_upper"} <= set(positions.columns)


def test_figures_draw_results_and_records_alike(
    run: ct.library.Run, result: ct.library.EvaluationResult
) -> None:
    drawn = ct.figures.reliability([result]).to_json()
    assert drawn == ct.figures.reliability([result.record]).to_json()
    made = SimpleNamespace(record=lambda: result.record)  # as `evaluation.Evaluation` has it
    assert drawn == ct.figures.reliability([made]).to_json()
    assert ct.figures.risk_coverage([result]).to_json()
    assert ct.figures.by_stratum([result], "positions").to_json()
    along = ct.figures.along_training(run).to_json()
    assert along == ct.figures.along_training(run.results).to_json()


def test_metrics_are_the_lines_of_the_file(run: ct.library.Run) -> None:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    table = run.metrics
    assert len(table) == len(lines)
    for name in ("step", "train/loss", "eval/ece"):
        wanted = np.array([line.get(name, np.nan) for line in lines], float)
        np.testing.assert_array_equal(table[name].astype(float), wanted)
    assert [row["step"] for row in table] == [line["step"] for line in lines]


def test_objects_are_shown_in_a_few_lines(
    run: ct.library.Run, result: ct.library.EvaluationResult
) -> None:
    for shown in (run, result, run.metrics, result.documents):
        text = repr(shown)
        assert 1 <= text.count("\n") < 16
        assert max(map(len, text.splitlines())) <= 120
        assert "<script" not in shown._repr_html_()
    assert "done, step 24 of 24" in repr(run)
    assert repr(result["ece"]) in repr(result)


def test_tables_are_arrow_and_pandas(
    result: ct.library.EvaluationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    table = result.reliability
    assert pa.table(table) == table.to_arrow()
    frame = table.to_pandas()
    np.testing.assert_array_equal(frame["confidence"], table["confidence"])
    figures = result.to_pandas().set_index("figure")
    assert figures.loc["ece", "value"] == float(result["ece"])
    with pytest.raises(KeyError, match="confidence"):
        _ = table["confidense"]
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install pandas"):
        table.to_pandas()


def test_a_record_of_bytes_and_of_an_earlier_version_is_a_result() -> None:
    for file in GOLDEN.glob("evaluation*.json"):
        read = ct.library.EvaluationResult(EvaluationRecord.read(file), None)
        assert float(read["ece"]) == json.loads(file.read_text())["ece"]
        assert read.event in repr(read)


def test_a_head_is_fitted_and_divides_the_logits(run: ct.library.Run) -> None:
    head = run.fit_head("global", bytes=2_000, progress=None)
    assert head.value is not None
    assert head.nll_after <= head.nll_before
    assert [each.name for each in run.heads] == ["global"]
    tempered = run.evaluate("markov", split="validation", bytes=2_000, temperature=head)
    plain = run.evaluate("markov", split="validation", bytes=2_000)
    assert tempered.record.temperature == "global"
    assert float(tempered["accuracy"]) == float(plain["accuracy"])  # the order of logits is kept
    assert float(tempered["nll"]) < float(plain["nll"])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda run: ct.open_run("nowhere"), "no run folder"),
        (lambda run: ct.open_study(run.folder), "no study folder"),
        (lambda run: run.evaluate(events="bits"), "'bits' is not allowed; allowed: token, byte"),
        (lambda run: run.evaluate(beam=3), "beam, ratio: are for events byte"),
        (lambda run: run.evaluate(bytes=0), "bytes: 0 is not allowed"),
        (lambda run: run.evaluate(temperature="absent"), "'absent' is no head"),
        (lambda run: run.fit_head("linaer"), "'linaer' is not allowed"),
        (lambda run: ct.load_config("tiyn"), "tiny"),
        (lambda run: ct.train(tiny(train={"replicas": 2}), run.folder), "train.replicas: 2"),
        (lambda run: ct.train(tiny(seed=5), run.folder), "another configuration: seed"),
        (lambda run: ct.ablate("quickstart", run.folder, jobs=0), "jobs: 0"),
    ],
)
def test_mistakes_are_one_line(run: ct.library.Run, act: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        act(run)
    assert "\n" not in str(caught.value)


def test_events_of_training_are_told_with_what_is_known() -> None:
    told: list[ct.library.Progress] = []
    tell = Narrator(told.append)
    tell("a", {"event": "start", "resumed_from": 4, "steps": 10})
    tell("b", {"event": "start", "resumed_from": 0, "steps": 20})
    tell("a", {"event": "progress", "step": 5, "steps": 10, "seconds_left": 2.5})
    tell("a", {"event": "evaluation", "step": 6, "ece": 0.1, "bits_per_byte": 2.0})
    tell("a", {"event": "finished", "status": "failed", "error": "why"})
    assert [(each.run, each.event, each.step, each.steps) for each in told] == [
        ("a", "start", 4, 10),
        ("b", "start", 0, 20),
        ("a", "step", 5, 10),
        ("a", "evaluation", 6, 10),
        ("a", "failed", 6, 10),
    ]
    assert told[-1].figures == {"ece": 0.1, "bits_per_byte": 2.0}


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), passed_on(), stop_signals() as stop:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


def test_an_answered_signal_is_given_to_whoever_handled_it_before() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with passed_on(), stop_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert (stop.is_set(), came) == (True, [])
        assert came == [signal.SIGTERM]
        with passed_on(), stop_signals():
            pass
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.long
def test_an_interrupted_run_is_read_meanwhile_and_goes_on(
    tmp_path: Path, finished_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    seen: list[tuple[str, int]] = []

    def watch(now: ct.library.Progress) -> None:
        if now.event == "saved" and now.step == 12 and not seen:
            meanwhile = ct.open_run(folder)
            seen.append((meanwhile.status, int(meanwhile.metrics["step"].max())))
            with pytest.raises(UserError, match="being written by another process"):
                meanwhile.evaluate()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ct.train(tiny(), folder, progress=watch)
    ((status, step),) = seen
    assert status == "running"
    assert step >= 10  # training goes on while a checkpoint is written
    stopped = ct.open_run(folder)
    assert stopped.status == "stopped"
    assert 12 <= stopped.record.step < 24
    said = f"run: stopped and saved at step {stopped.record.step}; the same call goes on from there"
    assert said in caplog.messages
    assert ct.train(tiny(), folder, progress=None).status == "done"
    assert_same(folder, finished_run)
