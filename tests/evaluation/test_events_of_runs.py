"""Events of text at the end of a run and of a study's arms: the same bytes, measured once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, call, tiny

from calibtrain.ablation.study import expand
from calibtrain.config import (
    Config,
    EvaluationConfig,
    StudyConfig,
    config_hash,
    load_config,
    load_study,
    to_yaml,
    validate,
)
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run_on_text, train_run
from calibtrain.runs.results import read_study
from calibtrain.storage.documents import unsealed

EVENTS = {"events": ["token", "byte"], "event_bytes": {"byte": 300}}
WITH_WORDS = {"events": ["token", "byte", "word"], "event_bytes": {"byte": 300, "word": 500}}


def write(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))  # which is YAML too
    return path


def test_an_ablation_measures_bytes_unless_it_says_otherwise(tmp_path: Path) -> None:
    def events_of(**evaluation: Any) -> tuple[str, ...]:
        tree = {"base": {"evaluation": evaluation}, "grid": {"seed": [0, 1]}}
        return load_study(write(tmp_path / "study.yaml", tree)).base.evaluation.events

    assert events_of() == ("token", "byte")
    assert events_of(events=["token"]) == ("token",)
    assert events_of(final_splits=["validation"]) == ("token",)  # the test split is not touched


def test_a_study_made_in_python_is_that_of_a_file(tmp_path: Path) -> None:
    grid: dict[str, list[Any]] = {"seed": [0, 1]}
    for base in (TINY, {**TINY, "evaluation": {"final_splits": ["validation"]}}):
        read = load_study(write(tmp_path / "study.yaml", {"base": base, "grid": grid}))
        made = StudyConfig(base=validate(Config, base), grid=grid)
        assert made == read
        assert [config_hash(arm.config) for arm in expand(made)] == [
            config_hash(arm.config) for arm in expand(read)
        ]
    by_tokens = EvaluationConfig(events=("token",))
    made = StudyConfig(base=Config(evaluation=by_tokens), grid=grid)
    assert made.base.evaluation.events == ("token",)
    before = made.model_copy(update={"title": "again"})
    assert validate(StudyConfig, before.model_dump(mode="json")) == before


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"event_bytes": {"byte": 500}}, ["event_bytes.byte", "evaluation.events: [token]"]),
        ({"events": ["byte"]}, ["must hold token"]),
        ({"events": ["token", "byte"], "final_splits": []}, ["final_splits: []"]),
    ],
)
def test_events_without_effect_are_refused(evaluation: Any, words: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_config(write(tmp_path / "run.yaml", {"evaluation": evaluation}))
    assert all(word in str(refused.value) for word in words)


def test_a_token_sample_says_that_documents_are_whole(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    done = call("evaluate", run, "--bytes", "40", "--json")
    assert done.returncode == 0, done.stderr
    sample = json.loads(done.stdout)["sample"]
    assert sample["bytes"] == json.loads(done.stdout)["bytes"] > 40
    assert (sample["documents"], sample["cut"]) == (1, False)
    assert f"{sample['bytes']:,} of {sample['of_bytes']:,} bytes, 1 of" in done.stderr


@pytest.mark.long
def test_a_finished_run_measures_what_is_asked_for_later_and_nothing_twice(
    finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.glob("evaluations/*")}
    metrics = (run / "metrics.jsonl").read_bytes()
    config = tiny(evaluation=WITH_WORDS)
    told: list[Any] = []
    outcome = train_run(config, run, observer=told.append)
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert all(path.read_bytes() == content for path, content in before.items())
    found = outcome.results["markov-test-byte"]
    assert (found["bytes"], found["sample"]["cut"]) == (300, True)
    (path,) = run.glob("evaluations/*_300bytes-byte.json")
    assert unsealed(json.loads(path.read_text())) == found
    assert {"measuring"} <= {event["event"] for event in told}
    stamp = path.stat().st_mtime_ns
    assert train_run(config, run).results["markov-test-byte"] == found
    assert path.stat().st_mtime_ns == stamp
    for event, limit in (("byte", 300), ("word", 500)):  # as `calibtrain evaluate` does
        (path,) = run.glob(f"evaluations/*_{limit}bytes-{event}.json")
        files = [path, path.with_suffix(".parquet")]
        before = {file: file.read_bytes() for file in files}
        again = evaluate_run_on_text(run, events=event, limit=limit)
        assert again.to_dict() == outcome.results[f"markov-test-{event}"]
        assert {file: file.read_bytes() for file in files} == before
    assert outcome.results["markov-test-word"]["word_frequency"]


@pytest.mark.long
def test_the_folder_of_a_study_is_evaluated_arm_by_arm(tmp_path: Path) -> None:
    base = {**TINY, "budget": {"steps": 6}, "context": {"bytes": 64}}
    base["evaluation"] = {"times": 1, "bytes": 500, "final_bytes": 500, "events": ["token"]}
    grid = {"tokenizer.vocab_size": [285, 300], "seed": [0, 1]}
    config = write(tmp_path / "study.yaml", {"base": base, "grid": grid})
    folder = tmp_path / "runs"
    done = call("ablate", config, "--run", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["arms"][0]["evaluations"]) == {
        "markov-validation",
        "markov-test",
    }
    done = call("evaluate", folder, "--events", "byte", "--bytes", "300", "--json")
    assert done.returncode == 0, done.stderr
    arms = json.loads(done.stdout)["arms"]
    assert len(arms) == 4
    assert len({each["sample"]["text_hash"] for each in arms.values()}) == 1
    again = call("evaluate", folder, "--events", "byte", "--bytes", "300", "--jobs", "2", "--json")
    assert json.loads(again.stdout)["arms"] == arms, again.stderr
    study = read_study(folder).record
    for arm in study.arms:
        flat = arm.evaluations["markov-test-byte"]
        assert flat.event == "byte"
        assert flat.numbers["ece"] == arms[arm.name]["ece"]
    (row,) = (row for row in study.held_fixed if row.quantity == "Evaluated text, markov-test-byte")
    assert (row.held, row.smallest, row.largest) == (True, 300, 300)
    (pair,) = (row for row in study.differences or [] if row.evaluation == "markov-test-byte")
    assert pair.seeds == 2
    assert any(each.evaluation == "markov-test-byte" for each in study.summary)

    # the same study with bytes finds them all there
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*/evaluations/*")}
    base["evaluation"] |= EVENTS
    write(config, {"base": base, "grid": grid})
    done = call("ablate", config, "--run", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arms"][0]["evaluations"].keys() >= {"markov-test-byte"}
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/evaluations/*")} == files


def test_a_configuration_written_out_is_read_again(tmp_path: Path) -> None:
    config = tiny(evaluation=EVENTS)
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "run.yaml") == config
