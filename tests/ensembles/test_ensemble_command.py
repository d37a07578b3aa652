"""The command `ensemble`: one document, what is refused, and files that are scored."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import call

from calibtrain.errors import UserError
from calibtrain.runs.analysis_records import read_analyses
from calibtrain.runs.ensemble_traces import EnsembleTrace
from calibtrain.runs.traces import TraceRecord


@pytest.fixture(scope="module")
def runs(
    finished_run: Path, finished_lstm: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("ensembled")
    for name, run in (("transformer", finished_run), ("lstm", finished_lstm)):
        shutil.copytree(run, folder / name)
    return [folder / "transformer", folder / "lstm"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "agreement", "--average", "linear"], "--average: is not used with --method"),
        (["--beam-width", "3"], "--beam-width: is not used with --method mixture"),
        (["--method", "agreement", "--beam-width", "0"], "--beam-width: 0: must be at least 1"),
        (["--weights", "1,x"], "--weights: '1,x' is not allowed"),
        (["--weights", "1,-1"], "--weights: [1.0, -1.0]: must be above 0"),
        (["--weights", "1,1", "--weighting", "uniform"], "--weights: is not used with weighting"),
        (["--weighting", "fixed"], "--weighting: fixed needs weights"),
        (["--top", "3"], "--top: is not used with --method mixture; it is for union, selective"),
        (["--method", "union", "--top", "0"], "--top: 0: must be at least 1"),
        (["--method", "selective", "--consensus", "2"], "--consensus: 2.0: must be a number"),
        (["--greedy", "--samples", "2"], "--samples: 2 greedy texts"),
        (["--particles", "3", "--greedy"], "--particles: draws whole texts; leave out --greedy"),
        (["--method", "union", "--particles", "3"], "--particles: is not used with --method union"),
        (["--particles", "3", "--save", "a"], "--particles: draws whole texts; leave out --save"),
        (["--replace"], "--replace: is for --save NAME"),
        (["--field", "body"], "--field: is for --score"),
        (["--score", "x.txt", "--prompt", "a"], "--prompt: is not used with --score"),
        (["--score", "x.txt", "--samples", "2"], "--samples: is not used with --score"),
        (["--score", "not-there.txt"], "not-there.txt: no such file"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt, --prompt-file"),
    ],
)
def test_what_is_not_allowed_is_one_line(options: list[str], said: str) -> None:
    done = call("ensemble", "runs/a", "runs/b", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith("calibtrain: ")


def test_one_run_is_refused() -> None:
    done = call("ensemble", "runs/a")
    assert done.returncode == 2
    assert "name at least two" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("method", ["mixture", "agreement", "union", "selective"])
def test_json_is_one_document_with_what_each_member_says(runs: list[Path], method: str) -> None:
    asked = ["ensemble", *runs, "--prompt", "In the あ", "--method", method, "--max-bytes", "20"]
    done = call(*asked, "--explain", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["method"] == method
    assert [each["run"] for each in found["members"]] == list(map(str, runs))
    assert all(each["information_bits"] > 0 for each in found["members"])
    assert found["information_bits"] > 0
    assert found["text"] == found["texts"][0]["text"]
    assert found["bytes"] <= 20
    assert found["texts"][0]["steps"]
    shown = call(*asked)
    assert shown.stdout.removesuffix("\n") == found["text"]


@pytest.mark.long
def test_the_steps_of_texts_are_kept_in_the_first_run(runs: list[Path]) -> None:
    asked = ["ensemble", *runs, "--prompt", "In the あ", "--method", "agreement", "--samples", "2"]
    done = call(*asked, "--max-bytes", "12", "--explain", "--save", "kept", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    path = runs[0] / "ensembles" / "kept.parquet"
    assert said["trace"] == str(path)
    found = EnsembleTrace.read(path)
    rows = found.table.to_pylist()
    assert [row["piece"] for row in rows] == [
        (each["proposed"] or "").encode() or bytes.fromhex(each.get("proposed_hex", ""))
        for text in said["texts"]
        for step in text["steps"]
        for each in step["members"]
    ]
    assert {row["member"] for row in rows} == set(map(str, runs))
    assert found.about["method"] == "agreement"
    assert [text["prompt"] for text in found.about["texts"]] == ["In the あ"] * len(said["texts"])
    assert [text["text"] for text in found.about["texts"]] == [e["text"] for e in said["texts"]]
    again = call(*asked, "--max-bytes", "12", "--save", "kept")
    assert again.returncode == 2
    assert "kept is there already" in again.stderr
    quiet = call(*asked, "--max-bytes", "12", "--save", "kept", "--replace", "--json")
    assert "steps" not in json.loads(quiet.stdout)["texts"][0]
    with pytest.raises(UserError, match="is not a trace"):
        TraceRecord.read(path)  # of one model


@pytest.mark.long
def test_a_file_is_scored_by_the_ensemble_and_its_members(runs: list[Path], tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    lines = [{"text": f"In the beginning {number} 😀 was the word."} for number in range(6)]
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = call("ensemble", *runs, "--score", texts, "--json", "--save", "pair")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (kept,) = read_analyses(runs[0]).ensembles
    assert (kept.path, kept.document()) == (runs[0] / "ensembles" / "pair.json", found)
    again = call("ensemble", *runs, "--score", texts, "--save", "pair")
    assert (again.returncode, again.stdout) == (2, "")
    assert "pair is there already" in again.stderr
    assert len(found["members"]) == 2
    for member in found["members"]:
        own = member["difference"]["bits_per_byte"]
        apart = found["bits_per_byte"] - member["bits_per_byte"]
        assert own["estimate"] == pytest.approx(apart)
        assert own["lower"] <= apart <= own["upper"]
    size = found["evaluation"]["bytes"]
    best = min(member["bits_per_byte"] for member in found["members"])
    assert found["bits_per_byte"] * size <= best * size + len(lines) + 1e-6  # log2 of 2 a text
    shown = call("ensemble", *runs, "--score", texts)
    assert f"{found['bits_per_byte']:.4f}" in shown.stdout
