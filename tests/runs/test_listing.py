"""`calibtrain runs`: the state of every run is said, figures are those of the files."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call

from calibtrain.errors import UserError
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.listing import RunEntry, finished_runs, list_runs
from calibtrain.runs.records import RunRecord
from calibtrain.runs.results import read_run
from calibtrain.storage.disk_lock import held_to_read, held_to_write, is_held_to_write


@pytest.fixture
def place(tmp_path: Path, finished_run: Path) -> Path:
    shutil.copytree(finished_run, tmp_path / "吾輩" / "whole")
    return tmp_path


def changed(folder: Path, name: str, **fields: object) -> Path:
    """A copy of the whole run beside it, with other fields in run.json."""
    copy = shutil.copytree(folder / "吾輩" / "whole", folder / name)
    record = RunRecord.read(copy / "run.json").document()
    RunRecord(**{**record, **fields}).write(copy / "run.json")
    return copy


def by_name(folder: Path, **options: str) -> dict[str, RunEntry]:
    return {str(each.path.relative_to(folder)): each for each in list_runs(folder, **options)}


def test_the_state_of_every_run_is_said(place: Path) -> None:
    changed(place, "stopped", status="stopped", step=6)
    changed(place, "failed", status="failed", error="step 9: the loss is nan")
    changed(place, "imported", status="imported", step=0, steps=0)
    gone, alive = (changed(place, name, status="running", step=0) for name in ("gone", "alive"))
    (changed(place, "damaged") / "run.json").write_text("{")
    begun = changed(place, "begun")
    (begun / "run.json").unlink()
    with RunFolder(alive).locked(), RunFolder(begun).locked(), RunFolder(gone).locked_to_read():
        found = by_name(place)
    last = max(line.step for line in read_run(place / "吾輩" / "whole").training)
    states = {name: (each.state, each.alive, each.step) for name, each in found.items()}
    assert states == {
        "alive": ("running", True, last),
        "begun": ("running", True, None),
        "damaged": ("damaged", False, None),
        "failed": ("failed", False, 24),
        "gone": ("running", False, last),
        "imported": ("imported", False, 0),
        "stopped": ("stopped", False, 6),
        "吾輩/whole": ("done", False, 24),
    }
    assert found["failed"].note == "step 9: the loss is nan"
    assert "its process is gone" in found["gone"].note
    assert "run.json" in found["damaged"].note
    assert list(found) == sorted(found)


def test_figures_are_those_of_the_final_evaluation_of_the_test_split(place: Path) -> None:
    run = place / "吾輩" / "whole"
    file = run / "evaluations" / "markov-test-24.json"
    other = EvaluationRecord.read(file).document()
    more = {**other, "bytes": 10 * other["bytes"], "limit": None, "ece": 0.5}
    EvaluationRecord(**more).write(file.with_name("markov-test-24_whole.json"))
    (entry,) = list_runs(run)
    assert entry.evaluation is not None
    assert entry.evaluation.document() == EvaluationRecord.read(file).document()
    assert by_name(place, events="byte")["吾輩/whole"].evaluation is None
    EvaluationRecord(**{**more, "event": "byte"}).write(
        file.with_name("markov-test-24_500bytes-byte.json")
    )
    entry = by_name(place, events="byte")["吾輩/whole"]
    assert entry.evaluation is not None
    assert entry.evaluation.event == "byte"
    file.write_text(file.read_text().replace('"ece"', '"ecce"', 1))
    (entry,) = list_runs(run)
    assert (entry.state, entry.evaluation) == ("done", None)
    assert file.name in entry.note


def test_an_arm_that_left_no_folder_is_a_row(place: Path) -> None:
    evaluation: dict[str, object] = {}
    arms = [
        {"name": name, "folder": name, "settings": {}, "status": status, "evaluations": evaluation}
        for name, status in (("whole", "done"), ("lost", "failed"))
    ]
    arms[1]["error"] = "context: too long"
    study = {"format": 1, "title": "t", "version": "0", "command": "c", "grid": {}, "controls": {}}
    document = {**study, "held_fixed": [], "arms": arms, "summary": []}
    (place / "吾輩" / "ablation.json").write_text(json.dumps(document))
    found = by_name(place)
    assert list(found) == ["吾輩/whole", "吾輩/lost"]
    assert (found["吾輩/lost"].state, found["吾輩/lost"].note) == ("failed", "context: too long")
    assert finished_runs(place / "吾輩") == {"whole"}
    assert finished_runs(place / "吾輩" / "whole") == {"."}
    assert finished_runs(place / "nowhere") == set()


def test_the_command_prints_the_same_as_json_csv_and_table(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (changed(place, "damaged") / "run.json").write_text("[]")
    rows = json.loads(call("runs", place, "--json").stdout)["runs"]
    written = call("runs", place, "--csv")
    read = list(csv.DictReader(io.StringIO(written.stdout)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == read
    assert [(row["state"], row["event"]) for row in rows] == [("damaged", None), ("done", "token")]
    shown = call("runs", place)
    assert f"{rows[1]['bits_per_byte']:.4f}" in shown.stdout
    assert "damaged: " in shown.stderr
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    nothing = call("runs")
    assert (nothing.returncode, nothing.stdout, nothing.stderr.count("\n")) == (0, "", 1)
    assert "no runs" in nothing.stderr
    assert call("runs", "nowhere").returncode == 2


def test_listing_is_light(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from calibtrain.runs.listing import list_runs; "
        f"print(len(list_runs(Path({str(place)!r}))), {{'jax', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n"


def test_several_read_at_once_and_nobody_writes_meanwhile(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with held_to_read(lock), held_to_read(lock):
        assert not is_held_to_write(lock)
        with (
            pytest.raises(UserError, match="is being read by another process"),
            held_to_write(lock),
        ):
            pass
    with held_to_write(lock):
        assert is_held_to_write(lock)
        with pytest.raises(UserError, match="is being written by another"), held_to_read(lock):
            pass
    with held_to_write(lock):
        pass


def test_a_study_where_a_run_is_meant_is_answered_with_its_arms(place: Path) -> None:
    for number in range(14):
        (place / "study" / f"seed={number:02}").mkdir(parents=True)
        (place / "study" / f"seed={number:02}" / "config.yaml").touch()
    with pytest.raises(UserError) as error:
        RunFolder(place / "study").read_config()
    text = str(error.value)
    assert "holds 14; name one, as" in text
    assert "seed=11 and 2 more" in text
    assert "seed=12" not in text
