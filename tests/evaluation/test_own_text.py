"""Which text a run is measured on: its own as it was, others by their fields, one document."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny

from calibtrain.ablation import run_study
from calibtrain.ablation.controls import apply_controls
from calibtrain.ablation.records import is_done
from calibtrain.config import ControlsConfig, StudyConfig
from calibtrain.data.corpora.named import Columns, columns_of, parse_corpus
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_domains, evaluate_run, evaluate_run_on_text, train_run
from calibtrain.evaluation.figure_intervals import document_notes
from calibtrain.finetuning import finetune, resolve
from calibtrain.fitting.head import Recipe
from calibtrain.posthoc import fit_temperature_head
from calibtrain.posthoc.compare import compare_heads
from calibtrain.posthoc.leave_one_out import leave_one_group_out
from calibtrain.report import write_report

QUICK = Recipe(steps=2, tokens=64, evaluations=1)


def texts(path: Path, count: int = 60, field: str = "text", word: str = "number") -> Path:
    lines = [{field: f"{word} {n} and its square {n * n}", "of": "ab"[n % 2]} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def config(path: Path, **changes: Any) -> Any:
    return tiny(
        corpus={"name": "files", "paths": [str(path)]},
        tokenizer={"kind": "byte", "vocab_size": 258},
        budget={"steps": 4},
        evaluation={"every": 4, "bytes": 300, "final_bytes": 300, "rows": 4, "events": ["token"]},
        checkpoints={"every": 2, "keep": 10},
        **changes,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("own text")
    train_run(config(texts(folder / "my.jsonl")), folder / "run", cache=cache)
    return folder


@pytest.fixture
def changed(trained: Path) -> Any:
    """The run, after a document was added to its text, which is then as it was."""
    before = (trained / "my.jsonl").read_bytes()
    texts(trained / "my.jsonl", 61)
    yield trained / "run"
    (trained / "my.jsonl").write_bytes(before)


def finetuned(run: Path) -> None:
    examples = run.parent / "examples.jsonl"
    lines = [{"prompt": f"say {n} ", "response": "ab"} for n in range(20)]
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = run.parent / "finetune.yaml"
    tree = {"finetune": {"run": str(run), "paths": [str(examples)]}, "budget": {"steps": 1}}
    settings.write_text(json.dumps(tree))
    finetune(resolve(settings), run.parent / "finetuned")


@pytest.mark.parametrize(
    "action",
    [
        evaluate_run,
        evaluate_run_on_text,
        lambda run: evaluate_domains(run, ["markov", f"files:{run.parent}/my.jsonl"]),
        lambda run: fit_temperature_head(run, "global"),
        compare_heads,
        leave_one_group_out,
        finetuned,
    ],
)
def test_a_run_whose_own_text_changed_is_not_measured_on_it(
    changed: Path, action: Callable[[Path], Any]
) -> None:
    """What it was trained on may be in the new test split."""
    before = {path for path in changed.rglob("*") if path.name != ".lock"}
    with pytest.raises(UserError, match="trained on") as refusal:
        action(changed)
    said = str(refusal.value)
    assert "\n" not in said
    assert "content hash" in said
    assert json.loads((changed / "run.json").read_text())["corpus"]["content_hash"] in said
    assert {path for path in changed.rglob("*") if path.name != ".lock"} == before


@pytest.mark.long
def test_by_name_it_is_measured_with_a_note(changed: Path) -> None:
    """However it is named; in the file and in the report, too."""
    trained_on = json.loads((changed / "run.json").read_text())["corpus"]["content_hash"]
    for name in ("files", f"files:{changed.parent}/./*y.jsonl"):
        found = evaluate_run(changed, corpus=name, limit=300)
        (note,) = found.about["notes"]
        assert found.notes[0] == note
        assert "splits were drawn anew" in note
        assert trained_on in note
        assert found.about["corpus_hash"] in note
    files = [json.loads(path.read_text()) for path in (changed / "evaluations").glob("*_*.json")]
    assert found.to_dict()["notes"] in [file.get("notes") for file in files]
    page = write_report(changed).read_text()
    assert page.count("splits were drawn anew") >= 1
    fitted = fit_temperature_head(changed, "global", corpus="files", name="noted")
    assert "splits were drawn anew" in fitted.about["fitted_on"]["notes"][0]


def test_other_text_is_measured_without_a_note(trained: Path) -> None:
    assert "notes" not in evaluate_run(trained / "run", limit=300).about
    other = texts(trained / "other.jsonl", word="another")
    assert "notes" not in evaluate_run(trained / "run", corpus=f"files:{other}", limit=300).about


# --- fields --------------------------------------------------------------------------------------


@pytest.mark.long
def test_commands_name_fields_by_options(trained: Path) -> None:
    """What to do is told in the words of the command, and then works."""
    run, body = trained / "run", texts(trained / "body.jsonl", field="body")
    name = f"files:{body}"
    for action in (evaluate_run, evaluate_run_on_text):
        with pytest.raises(UserError, match=r"has no field 'text'; .* body, of \(set --field\)"):
            action(run, corpus=name)
    with pytest.raises(UserError, match=r"set --field"):
        fit_temperature_head(run, "global", corpus=name)
    plain = evaluate_run(run, limit=300)
    found = evaluate_run(run, corpus=name, columns=Columns("body", "of"), limit=300)
    assert found.results["nll"] == plain.results["nll"]  # it is the same text
    assert [group["label"] for group in found.results["groups"]] == ["a", "b"]
    with pytest.raises(UserError, match=r"has no field 'by'.*set --group"):
        evaluate_run(run, corpus=name, columns=Columns("body", "by"), limit=300)
    own = evaluate_run(run, columns=Columns(group="of"), limit=300)
    assert [group["label"] for group in own.results["groups"]] == ["a", "b"]
    about = fit_temperature_head(run, "global", name="by", corpus=name, field="body").about
    assert about["fitted_on"]["corpus"] == name
    rows = compare_heads(run, heads=["global"], corpora=[name], fields=["body"], limit=300)
    assert rows["corpora"][0]["rows"][0]["nll"] == pytest.approx(plain.results["nll"], rel=1e-6)


@pytest.mark.parametrize(
    ("corpora", "fields", "said"),
    [
        ([], ["body"], "--field: 'body' goes with a --corpus"),
        (["kjv"], ["body"], "--field: 'body' is not allowed with --corpus kjv"),
        (["kjv", "markov"], ["body"], "--field: 'body' is not allowed with kjv, markov"),
        (["kjv", "files:a.txt"], ["a", "b", "c"], "--field: 3 are given and 2 --corpus"),
    ],
)
def test_a_field_that_is_not_read_is_refused(
    trained: Path, corpora: list[str], fields: list[str], said: str
) -> None:
    def act() -> None:
        columns = columns_of(corpora, fields)
        corpus = corpora[0] if corpora else None
        evaluate_run(trained / "run", corpus=corpus, columns=columns[corpus])

    with pytest.raises(UserError, match=said):
        act()


def test_fields_go_to_the_corpora_that_have_some() -> None:
    names = ["kjv", "files:a.jsonl", "tfds:b"]
    assert columns_of(names, ["x"]) == {
        "kjv": Columns(),
        "files:a.jsonl": Columns("x"),
        "tfds:b": Columns("x"),
    }
    assert columns_of(names, ["", "x", "y"])["tfds:b"] == Columns("y")
    like = config(Path("a.jsonl")).corpus.model_copy(update={"field": "body", "group": "of"})
    assert parse_corpus("files:b.jsonl", like).field == "body"
    parsed = parse_corpus("files:b.jsonl", like, Columns("x", ""))
    assert (parsed.field, parsed.group) == ("x", None)


def test_too_many_groups_are_told_by_the_option(trained: Path) -> None:
    many = texts(trained / "many.jsonl", 400, field="body")
    with pytest.raises(UserError, match=r"^--group.*: makes .* groups of .* documents"):
        evaluate_run(
            trained / "run", corpus=f"files:{many}", split="train", columns=Columns("body", "body")
        )


# --- one document --------------------------------------------------------------------------------


(ONE_DOCUMENT,) = document_notes(1, 1.0)


@pytest.mark.long
@pytest.mark.parametrize("evaluate", [evaluate_run, evaluate_run_on_text])
def test_one_document_has_figures_and_no_intervals(trained: Path, evaluate: Any) -> None:
    one = trained / "one.txt"
    one.write_text("number 7 and its square 49")
    found = evaluate(trained / "run", corpus=f"files:{one}")
    assert found.results["nll"] > 0
    assert found.results["bytes"] == len("number 7 and its square 49")
    assert found.results["intervals"] == {}
    assert found.about["documents"] == 1
    assert found.notes == [
        f"files:{one} holds one document, too few to be split: each split is all of it",
        ONE_DOCUMENT,
    ]
    assert found.to_dict()["notes"] == found.notes
    limited = evaluate(trained / "run", limit=1)
    assert limited.notes == [ONE_DOCUMENT]


@pytest.mark.long
def test_a_head_is_measured_on_one_document(trained: Path) -> None:
    one = trained / "single.txt"
    one.write_text("number 7 and its square 49")
    found = compare_heads(
        trained / "run", heads=["global"], corpora=[f"files:{one}"], recipe=QUICK, limit=300
    )
    (table,) = found["corpora"]
    assert ONE_DOCUMENT in table["notes"]
    assert [row["head"] for row in table["rows"]] == ["none", "global"]
    assert ONE_DOCUMENT in write_report(trained / "run").read_text()


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_text_of_a_run_is_known_by_its_hash_and_not_by_its_path(
    trained: Path, tmp_path: Path, cache: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    before = json.loads((run / "run.json").read_text())
    text = (run / "config.yaml").read_text()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(trained / "my.jsonl", moved)
    for spelled in (trained / "." / ".." / trained.name / "my.jsonl", moved / "my.jsonl"):
        shutil.rmtree(run / "checkpoints" / "4", ignore_errors=True)
        outcome = train_run(config(spelled), run, cache=cache)
        assert outcome.status == "done"
        assert outcome.summary["config_hash"] == before["config_hash"]
        assert (run / "config.yaml").read_text() == text
    other = texts(tmp_path / "my.jsonl", 61)
    with pytest.raises(UserError, match=r"another configuration: corpus\.paths"):
        train_run(config(other), run, cache=cache)


@pytest.mark.long
def test_a_study_goes_on_with_the_text_it_was_begun_with(tmp_path: Path, cache: Path) -> None:
    """Its arms that are done are known by that text, however it is spelled, and by no other."""
    text, folder = texts(tmp_path / "my.jsonl"), tmp_path / "study"

    def study(path: Path) -> StudyConfig:
        as_given = ControlsConfig(budget="as_given", parameters="as_given", context="as_given")
        return StudyConfig(
            title="seeds", base=config(path), grid={"seed": [0, 1]}, controls=as_given
        )

    arms, _ = apply_controls(study(text), cache)
    train_run(arms[0].config, folder / arms[0].name, cache=cache)
    spelled, _ = apply_controls(study(tmp_path / ".." / tmp_path.name / "my.jsonl"), cache)
    assert [is_done(arm, folder) for arm in spelled] == [True, False]
    texts(text, 61)
    before = set(folder.rglob("*"))
    with pytest.raises(UserError, match=r"seed=0: was trained on another text .* start the study"):
        run_study(study(text), folder, cache=cache)
    assert set(folder.rglob("*")) == before
