"""The command `consistency`: of a run, of given answers, over questions; and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import call

from calibtrain.generation.of_run import read_trace


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("consistent") / "run")


def test_given_answers_are_measured_without_a_run(tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("Rome\r\nrome.\n\nOslo\n", "utf-8")
    done = call("consistency", "--answers", file, "--similarity", "jaccard", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answers"] == [
        {"answer": "rome", "samples": 2},
        {"answer": "oslo", "samples": 1},
    ]
    assert (found["without_answer"], found["agreement"], found["fsd"]) == (1, 0.5, 0.25)
    assert [each["text"] for each in found["samples"]] == ["Rome", "rome.", "", "Oslo"]
    assert found["matrix"][0] == [1.0, 0.0, 0.0, 0.0]  # of words as they stand


def test_a_terminal_says_that_nothing_is_defined(tmp_path: Path) -> None:
    file = tmp_path / "答え.txt"
    file.write_text("海\n山\n", "utf-8")
    done = call("consistency", "--answers", file, "--extract", "number")
    assert done.returncode == 0, done.stderr
    assert "2 samples, none with an answer" in done.stdout
    assert done.stdout.count("undefined") == 6
    assert "0: no answer" in done.stdout
    assert "海" in done.stdout


@pytest.mark.parametrize("name", ["page.html", "picture.svg"])
def test_the_heat_maps_are_written(tmp_path: Path, name: str) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("the sea\nthe <sea>\n", "utf-8")
    figure = tmp_path / name
    done = call("consistency", "--answers", file, "--figure", figure, "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    text = figure.read_text("utf-8")
    assert "prefers-color-scheme" in text
    assert "the <sea>" not in text  # escaped wherever it stands


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "RUN: is missing"),
        (["RUN", "--answers", "a.txt"], "RUN: --answers gives the samples"),
        (["--answers", "a.txt", "--prompt", "b"], "--prompt: draws samples"),
        (["--answers", "a.txt", "--top-k", "3", "--stop", "b"], "--top-k, --stop: draws samples"),
        (["--answers", "not there"], "--answers: not there cannot be read"),
        (["--answers", "empty.txt"], "answers: there are none"),
        (["--answers", "a.txt", "--extract", "words"], "extract: 'words' is not known"),
        (["--answers", "a.txt", "--similarity", "nli"], "similarity: 'nli' is not known"),
        (["--answers", "a.txt", "--figure", "a.png"], "--figure: a.png must end in .html or .svg"),
        (["--answers", "a.txt", "--figure", "no/a.svg"], "--figure: no/a.svg is a folder, or"),
        (["RUN", "--template", "a {question}"], "--template: is for --questions"),
        (["RUN", "--questions", "a.txt", "--prompt", "b"], "--prompt, --figure: are for"),
        (["RUN", "--questions", "a.txt"], "--questions: a.txt: is not a file of JSON lines"),
        (["RUN", "--temperature", "0"], "--temperature: 0.0 is not allowed"),
        (["RUN", "--replace"], "--replace: is for --save"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Rome\n")
    Path("empty.txt").write_text("")
    done = call("consistency", *(str(run) if word == "RUN" else word for word in options))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"calibtrain: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_samples_of_a_run_are_those_that_generate_draws(run: Path) -> None:
    asked = [run, "--prompt", "a", "--samples", "5", "--max-tokens", "12", "--stop", " ", "--json"]
    done = call("consistency", *asked, "--save", "drawn", "--top-p", "0.9", "--seed", "3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    drawn = json.loads(call("generate", *asked, "--top-p", "0.9", "--seed", "3").stdout)
    assert [each["text"] for each in found["samples"]] == [e["text"] for e in drawn["texts"]]
    assert found["sampling"] == {"top_p": 0.9}
    for name in ("agreement", "entropy", "entropy_by_samples", "fsd", "held_out"):
        assert found[name] is None or 0 <= found[name] <= 1
    assert len(found["matrix"]) == len(found["aligned"]["cells"]) == 5
    rows = read_trace(run, "drawn").table.to_pylist()
    for number, each in enumerate(found["samples"]):
        own = [row for row in rows if row["text"] == number and row["source"] == "generated"]
        assert each["information_bits"] == pytest.approx(own[-1]["information_bits"])
    central = found["aligned"]["reference"]
    own = [row for row in rows if row["text"] == central and row["source"] == "generated"]
    spelled = b"".join(row["piece"] for row in own).split(b" ")[0]  # the stop and what follows it
    columns = "".join(found["aligned"]["columns"])
    assert columns == spelled.decode(errors="backslashreplace")


@pytest.mark.long
def test_questions_are_measured_over_samples(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    asked = [{"question": letter, "answer": letter, "group": "g"} for letter in "abcdef"]
    file.write_text("".join(json.dumps(each) + "\n" for each in asked))
    done = call(
        *("consistency", run, "--questions", file, "--samples", "6", "--max-tokens", "4"),
        *("--extract", "regex:[a-z]", "--similarity", "jaccard", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["questions"], found["sample_counts"]) == (6, [2, 5, 6])
    assert [row["group"] for row in found["rows"]] == ["g"] * 6
    rows = {row["measure"]: row for row in found["figures"] if row["samples"] == 6}
    assert {"agreement", "held_out", "sequence_probability", "cocoa_jaccard"} <= set(rows)
    assert rows["agreement"]["questions"] == 6 - found["undefined"]
    right = sum(row["correct"] for row in found["rows"])
    assert found["accuracy"]["estimate"] == pytest.approx(right / 6)
