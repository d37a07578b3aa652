"""Questions put to a run: figures of both kinds of events, halves, answers that a beam finds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import call

from calibtrain.analysis import of_run
from calibtrain.analysis.lens_of_run import look_into_run
from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.question_trees import tree_confidences
from calibtrain.analysis.questions import ask_run
from calibtrain.errors import TransientError, UserError
from calibtrain.evaluation.candidates import Candidates, error_differences
from calibtrain.generation.given import trace_of
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.analysis_records import read_analyses
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.instrument_records import QuestionsRecord
from calibtrain.runs.loading import opened


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("asking") / "run")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [
        {
            "question": f"what is {n}",
            "choices": [f"x{n}", f"yy{n}", f"zzz{n}"],
            "answer": n % 3,
            "group": "even" if n % 2 == 0 else "odd",
        }
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.long
def test_confidences_are_softmaxes_of_sums_over_tokens(run: Path, file: Path) -> None:
    found = ask_run(run, str(file), protocol=Protocol(templates=("{question}: {answer}!",)))
    document = found.to_dict()
    with opened(run) as saved:
        model = LanguageModel.of(saved)
    answer = document["answers"][4]
    assert answer["candidates"] == ["x4", "yy4", "zzz4"]
    prompt = model.prompt_ids("what is 4:")
    sums = []
    for text in answer["candidates"]:
        own = model.tokenizer.encode(f" {text}!")
        (trace,) = trace_of(model, ["what is 4:" + f" {text}!"])
        if list(trace.tokens[len(prompt) - 1 :]) != list(own):
            pytest.fail("the tokens of a prompt and its candidate are those of both together")
        sums.append(trace.log_probability[len(prompt) - 1 :].sum())
    wanted = np.exp(sums - np.max(sums))
    np.testing.assert_allclose(answer["confidence"], wanted / wanted.sum(), rtol=1e-4)
    assert answer["chosen"] == int(np.argmax(wanted))
    assert answer["correct"] == (answer["chosen"] == 1)
    top, every = document["top_candidate"], document["every_candidate"]
    assert (top["tokens"], every["tokens"]) == (12, 36)
    assert top["accuracy"] == np.mean([each["correct"] for each in document["answers"]])
    assert every["accuracy"] == pytest.approx(1 / 3)
    assert [row["label"] for row in document["gaps"]] == [None, "even", "odd"]
    assert [row["label"] for row in top["groups"]] == ["even", "odd"]
    assert "event:candidate.top.own|" in top["signatures"]["ece"]


@pytest.mark.long
@pytest.mark.parametrize("command", ["qa", "lens"])
def test_the_run_is_held_until_its_file_is_written(
    command: str, run: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would otherwise go on in between, and the file would tell of an earlier step."""
    make, refused = of_run.make_folder, list[str]()

    def makes(folder: Path) -> None:
        with pytest.raises(TransientError) as told, RunFolder(run).locked():
            pass
        refused.append(str(told.value))
        make(folder)

    monkeypatch.setattr(of_run, "make_folder", makes)
    found = ask_run(run, str(file)) if command == "qa" else look_into_run(run, ["in the"])
    assert found.path is not None
    assert found.path.is_file()
    assert len(refused) == 1


@pytest.mark.long
def test_paraphrases_are_averaged_and_halves_are_apart(run: Path, file: Path) -> None:
    templates = ("{question} {answer}", "Q: {question} A: {answer}")
    both = ask_run(run, str(file), protocol=Protocol(templates=templates)).to_dict()
    alone = [
        ask_run(run, str(file), protocol=Protocol(templates=(each,))).to_dict()
        for each in templates
    ]
    for place, answer in enumerate(both["answers"]):
        own = [each["answers"][place]["confidence"] for each in alone]
        np.testing.assert_allclose(answer["confidence"], np.mean(own, axis=0), rtol=1e-6)
    assert "own.mean2" in both["top_candidate"]["signatures"]["ece"]
    assert len({each["set_hash"] for each in (both, *alone)}) == 3

    fitted = ask_run(run, str(file), protocol=Protocol(fit=True)).to_dict()
    assert (fitted["questions"], fitted["fit"]["questions"]) == (6, 6)
    assert fitted["fit"]["nll_after"] <= fitted["fit"]["nll_before"]
    assert fitted["fit"]["top_candidate_ece_difference"]["lower"] is not None
    again = ask_run(run, str(file), protocol=Protocol(temperature=fitted["temperature"])).to_dict()
    confidence = {each["question"]: each["confidence"] for each in again["answers"]}
    for each in fitted["answers"]:
        np.testing.assert_allclose(each["confidence"], confidence[each["question"]], rtol=1e-9)


@pytest.mark.long
def test_answers_without_choices_are_what_a_beam_finds(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "free.jsonl"
    rows = [{"question": f"{n}", "answer": ["a", "the"]} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = ask_run(run, str(file), protocol=Protocol(beam=4, max_bytes=6))
    for answer in found.to_dict()["answers"]:
        assert 1 <= len(answer["candidates"]) <= 4
        assert sum(answer["confidence"]) == pytest.approx(1)
        assert len(set(answer["candidates"])) == len(answer["candidates"])
    assert found.top.results["nll"] is None


@pytest.mark.long
@pytest.mark.parametrize("tokenisations", ["own", "all"])
def test_built_in_sets_are_asked(run: Path, tokenisations: str) -> None:
    for source in ("cloze", "capitals", "arithmetic"):
        asked = Protocol(count=8, tokenisations=tokenisations, end=tokenisations == "all")
        document = ask_run(run, source, protocol=asked).to_dict()
        assert document["questions"] == 8
        assert all(len(each["candidates"]) == 4 for each in document["answers"])
        label = "all.end" if tokenisations == "all" else "own"
        assert (
            f"event:candidate.every.{label}|conf:each"
            in (document["every_candidate"]["signatures"]["ece"])
        )


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("nothing", {}, "--questions: nothing is not a file, nor a built-in set (cloze, capitals"),
        ("cloze", {"tokenisations": "some"}, "--tokenisations: 'some' is not allowed"),
        ("cloze", {"temperature": 0.0}, "--temperature: 0 is not allowed; 0.01 to 100"),
        ("cloze", {"count": 1}, "--count: 1 is not allowed; at least 2"),
        ("cloze", {"beam": 1}, "--candidates: 1 is not allowed"),
        ("cloze", {"templates": ("a",)}, '--template: "a" is not allowed'),
        ("cloze", {"paraphrases": True, "templates": ("a",)}, "--paraphrases: are those"),
        ("cloze", {"bins": 7, "count": 4}, "bins: 7"),
    ],
)
def test_what_is_not_allowed_is_named(
    run: Path, source: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as error:
        ask_run(run, source, protocol=Protocol(**options))
    assert told in str(error.value)


@pytest.mark.long
def test_the_command_says_the_same_in_json_and_in_words(
    run: Path, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = call("qa", run, "--questions", file, "--json", "--output", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads(out.read_text()) == document
    kept = run / "analysis" / f"questions-{file.name}-own.json"
    assert kept in [each.path for each in read_analyses(run).questions]
    assert document.items() <= QuestionsRecord.read(kept).document().items()
    done = call("qa", run, "--questions", file, "--temperature", "fit")
    assert done.returncode == 0, done.stderr
    assert f"written: {kept}" in done.stderr
    assert QuestionsRecord.read(kept).fit is not None  # the latest is kept
    assert "fitted on 6 other questions: temperature" in done.stderr
    assert "gap if calibrated" in " ".join(done.stdout.split())
    for arguments, told in (
        (["--questions", file, "--temperature", "x"], "--temperature: 'x' is not allowed"),
        (["--questions", file, "--count", "3"], "--count: is of the built-in sets"),
        (["--questions", file, "--corpus", "kjv"], "--corpus: is of --questions cloze"),
        (["--questions", file, "--output", tmp_path], "is not a file in a folder"),
        (["--questions", file, "--bins", "7"], "bins: 7"),
    ):
        done = call("qa", run, *arguments)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr.strip().splitlines()[-1]


def test_trees_learn_what_the_scores_do_not_say() -> None:
    """Right are the longest candidates, whatever the model finds probable."""
    rng = np.random.default_rng(0)
    names = list(map(str, range(120)))
    scores = [rng.normal(size=(1, 3)) * 4 for _ in names]
    sizes = [rng.permutation([1.0, 2.0, 3.0]) for _ in names]
    given = Candidates(names, scores, [own == 3 for own in sizes])
    features = [np.column_stack([s[0], own]) for s, own in zip(scores, sizes, strict=True)]
    found = tree_confidences(given, features, range(60), range(60, 120), seed=0)
    assert found.names == names[60:]
    confidence, correct, _ = found.top()
    assert correct.mean() > 0.95
    assert confidence.mean() > 0.9
    changes = error_differences(found, given.chosen(range(60, 120)))
    assert changes["top_candidate"].upper < 0
    wrong = Candidates(names, scores, [np.zeros(3, bool)] * 120)
    with pytest.raises(UserError, match="needs right and wrong candidates"):
        tree_confidences(wrong, features, range(60), range(60, 120), seed=0)


@pytest.mark.long
def test_trees_are_fitted_on_the_other_half(run: Path, file: Path) -> None:
    found = ask_run(run, str(file), protocol=Protocol(trees=True)).to_dict()
    assert (found["questions"], found["fit"]["questions"]) == (6, 6)
    assert found["fit"]["method"] == "trees"
    assert "candidate.top.own.trees|" in found["top_candidate"]["signatures"]["ece"]
    for answer in found["answers"]:
        assert sum(answer["confidence"]) == pytest.approx(1)
    with pytest.raises(UserError, match="--trees: take the place of a temperature"):
        ask_run(run, str(file), protocol=Protocol(trees=True, fit=True))
