"""Which file an evaluation is written to: nothing takes the place of what a run itself measured."""

import doctest
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import call, tiny

from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.evaluation.result import evaluation_name
from calibtrain.library import EvaluationResult
from calibtrain.report.documents import effective_documents
from calibtrain.runs import document_rows
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.documents import CHECKSUM, sealed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Iterator[Path]:
    """A tiny run that is done; its evaluations at the end score about 3,000 bytes."""
    path = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("evaluated") / "run"))
    yield path
    # whatever the tests here did beside it, the run's own result stayed
    assert json.loads((path / "evaluations" / "markov-test-24.json").read_text())["limit"] == 4_000


def written(run: Path, *arguments: str | None, limit: int | None = None) -> set[str]:
    """Names of the JSON files that an evaluation adds."""
    before = set((run / "evaluations").glob("*.json"))
    evaluate_run(run, corpus=arguments[0] if arguments else None, limit=limit)
    return {path.name for path in set((run / "evaluations").glob("*.json")) - before}


def test_another_amount_of_text_is_another_file(run: Path) -> None:
    own = run / "evaluations" / "markov-test-24.json"
    before = own.read_bytes()
    assert written(run, limit=500) == {"markov-test-24_500bytes.json"}
    assert written(run, limit=None) == {"markov-test-24_whole.json"}
    assert own.read_bytes() == before
    assert written(run, limit=4_000) == set()
    assert json.loads(own.read_bytes()) == json.loads(before)


def test_the_own_result_comes_first_in_a_sorted_folder(run: Path) -> None:
    """Readers take the first of those of one corpus, split and step."""
    evaluate_run(run, limit=400)
    files = sorted((run / "evaluations").glob("markov-test-*.json"))
    assert files[0].name == "markov-test-24.json"


def test_corpora_that_differ_are_different_files(run: Path, tmp_path: Path) -> None:
    names = set()
    for word in ("猫", "犬"):
        folder = tmp_path / word
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.txt").write_text(f"{word} {number}")
        os.rename(folder, tmp_path / "now")  # the same name, other text
        names |= written(run, f"files:{tmp_path}/now/*.txt")
        os.rename(tmp_path / "now", folder)
    assert len(names) == 2
    assert evaluation_name({"corpus": "files:猫", "split": "test", "step": 1}) == "files_猫-test-1"


def test_rows_of_documents_add_up_to_the_figures(run: Path) -> None:
    assert doctest.testmod(document_rows).failed == 0
    for name in ("validation-24", "test-24"):
        result = EvaluationResult.read(run / "evaluations" / f"markov-{name}.json")
        rows, record = result.documents, result.record
        assert len(rows) == record.documents
        assert len(set(rows["index"].tolist())) == len(set(rows["document"])) == len(rows)
        tokens, text = rows["tokens"].sum(), rows["bytes"].sum()
        events, confidence, correct = (
            rows[f"bin_{key}"] for key in ("events", "confidence", "correct")
        )
        assert events.shape == (len(rows), record.bins)
        np.testing.assert_array_equal(events.sum(1), rows["tokens"])
        np.testing.assert_allclose(confidence.sum(1), rows["confidence"], rtol=1e-12)
        np.testing.assert_array_equal(correct.sum(1), rows["correct"])
        found = {
            "tokens": tokens,
            "bytes": text,
            "nll": rows["nll"].sum() / tokens,
            "bits_per_byte": rows["nll"].sum() / math.log(2) / text,
            "entropy_rate": rows["entropy"].sum() / tokens,
            "accuracy": rows["correct"].sum() / tokens,
            "multiclass_brier": rows["multiclass_brier"].sum() / tokens,
            "signed_gap": (rows["confidence"].sum() - rows["correct"].sum()) / tokens,
            "ece": np.abs(confidence.sum(0) - correct.sum(0)).sum() / tokens,
        }
        for key, value in found.items():
            assert value == pytest.approx(float(result[key]), rel=1e-9, abs=1e-12), key


def test_a_damaged_table_of_documents_is_noticed_by_what_reads_it_alone(
    finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    path = run / "evaluations" / "markov-test-24.json"
    table = path.with_suffix(".parquet")
    whole = table.read_bytes()
    printed = call("runs", run, "--json").stdout
    other = (run / "evaluations" / "markov-validation-24.parquet").read_bytes()
    middle = len(whole) // 2
    one_bit = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]  # in the page of the names
    zeros = whole[:middle] + bytes(len(whole) - middle)
    for damaged in (b"", whole[:-5], one_bit, zeros, other, None):
        table.unlink()
        if damaged is not None:
            table.write_bytes(damaged)
        result = EvaluationResult.read(path)
        with pytest.raises(UserError, match=r"markov-test-24\.parquet: .*; evaluate again$"):
            _ = result.documents
        older = result.record.model_copy(update={"effective_documents": None})
        assert older.path == path
        assert (effective_documents(older) is None) or damaged in (other, one_bit)
    table.write_bytes(whole[:middle])
    assert call("runs", run, "--json").stdout == printed


@pytest.mark.long
def test_a_result_of_another_measurement_is_not_taken_for_the_final_one(tmp_path: Path) -> None:
    config = tiny(budget={"steps": 2}, evaluation={"final_splits": ["test"]})
    outcome = train_run(config, tmp_path / "run")
    path = tmp_path / "run" / "evaluations" / "markov-test-2.json"
    whole = path.read_bytes()
    for key, value in {"limit": 100, "config_hash": "x", "tokenizer_hash": "x"}.items():
        changed = {k: v for k, v in json.loads(whole).items() if k != CHECKSUM}
        path.write_text(json.dumps(sealed({**changed, key: value, "nll": 99.0})))
        assert train_run(config, tmp_path / "run").results == outcome.results
        assert path.read_bytes() == whole


def test_a_run_that_is_being_written_is_not_evaluated(run: Path) -> None:
    before = set((run / "evaluations").iterdir())
    with RunFolder(run).locked(), pytest.raises(UserError, match="another process"):
        evaluate_run(run, limit=300)
    assert set((run / "evaluations").iterdir()) == before


def test_a_run_whose_attention_needs_a_gpu_is_evaluated_elsewhere(
    run: Path, tmp_path: Path
) -> None:
    there = evaluate_run(run, limit=400).results
    copy = shutil.copytree(run, tmp_path / "run")
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("attention: auto", "attention: cudnn"))
    said: list[str] = []
    assert evaluate_run(copy, limit=400, say=said.append).results == there
    (note,) = said
    assert note.startswith("note: model.attention: cudnn needs an NVIDIA GPU")


def test_errors_of_the_whole_vocabulary_stand_beside_figures_that_stay_what_they_were(
    run: Path,
) -> None:
    added = {"full_calibration_error", "classwise_calibration_error"}
    plain = evaluate_run(run, limit=450).to_dict()
    full = evaluate_run(run, limit=450, full=True).to_dict()
    assert full.keys() - plain.keys() == added
    signatures = {name: full["signatures"].pop(name) for name in added}
    assert {key: full[key] for key in plain} == plain
    assert all("conf:all|bins:15|scheme:width" in text for text in signatures.values())
    # the gaps of a bin's entries cancel in the one, and are taken absolutely in the other
    assert 0 < full["full_calibration_error"] <= full["classwise_calibration_error"] <= 2
