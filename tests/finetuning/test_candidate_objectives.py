"""Fine-tuning on the candidates of questions: formulas, and what is learned and measured."""

import doctest
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import ask_run
from calibtrain.config import Config, config_hash, to_yaml, validate
from calibtrain.errors import UserError
from calibtrain.finetuning import finetune, resolve
from calibtrain.finetuning.evaluation import candidate_figures
from calibtrain.losses import CandidateMargin, CandidateSoftmax, candidates
from calibtrain.readout import TokenStats


@pytest.mark.parametrize("choices", [pytest.param(2, marks=pytest.mark.long), 3])
def test_objectives_are_their_formulas(choices: int) -> None:
    rng = np.random.default_rng(choices)
    nll = rng.exponential(size=(6, 5)).astype(np.float32)
    weights = (rng.random((6, 5)) < 0.6).astype(np.float32)
    s = -(nll * weights).sum(1).reshape(-1, choices)
    softmax = np.mean([-np.log(np.exp(row[0]) / np.exp(row).sum()) for row in s])
    margin = np.mean([sum(max(0, 1 + wrong - row[0]) for wrong in row[1:]) for row in s])
    stats, given = TokenStats(nll=jnp.asarray(nll)), jnp.asarray(weights)
    assert float(CandidateSoftmax(choices)(stats, given)) == pytest.approx(softmax, rel=1e-5)
    assert float(CandidateMargin(choices)(stats, given)) == pytest.approx(margin, rel=1e-5)
    slope = jax.grad(lambda x: CandidateSoftmax(choices)(TokenStats(nll=x), given))(stats.nll)
    p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    wanted = (np.arange(choices) == 0) - p
    np.testing.assert_allclose(
        slope, (wanted.reshape(-1, 1) * weights) / len(s), rtol=1e-4, atol=1e-6
    )
    assert not doctest.testmod(candidates).failed


def test_what_is_logged_of_candidates_is_by_hand() -> None:
    found = candidate_figures(np.log([[0.7, 0.3], [0.4, 0.6]]) + 5)
    assert found["candidates/accuracy"] == 0.5
    assert found["candidates/mean_confidence"] == pytest.approx(0.65)
    assert found["candidates/nll"] == pytest.approx(-np.log([0.7, 0.4]).mean())
    assert found["candidates/top_ece"] == pytest.approx((0.3 + 0.6) / 2)


def test_the_hash_of_other_fine_tunings_is_what_it_was_without_these_settings() -> None:
    tree = {"budget": {"steps": 3}, "finetune": {"run": "a", "paths": ["b"], "lora": {"rank": 4}}}
    assert config_hash(validate(Config, tree)) == "04f811809e515e78"
    tree["finetune"] |= {"objective": "softmax"}
    softmax = config_hash(validate(Config, tree))
    tree["finetune"] |= {"choices": 3}
    assert len({softmax, config_hash(validate(Config, tree)), "04f811809e515e78"}) == 3


def write(path: Path, count: int) -> Path:
    rows = [
        {"question": f"say {n}", "choices": ["cd cd", "ab ab", "ef"], "answer": 1}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(folder: Path, run: Path, **changes: Any) -> Path:
    tree: dict[str, Any] = {
        "finetune": {
            "run": str(run),
            "paths": [str(write(folder / "questions.jsonl", 40))],
            "objective": "softmax",
            "choices": 3,
            "epochs": 3,
            **changes,
        },
        "batch": {"rows": 12},
        "optimizer": {"learning_rate": 3e-3},
        "evaluation": {"times": 2, "bytes": 500, "final_bytes": 500, "rows": 4},
    }
    path = folder / "settings.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.long
@pytest.mark.parametrize("objective", ["softmax", "margin"])
def test_the_right_candidate_is_learned_and_measured(
    objective: str, tmp_path: Path, finished_run: Path, cache: Path
) -> None:
    base = shutil.copytree(finished_run, tmp_path / "base")
    config = resolve(settings(tmp_path, base, objective=objective))
    outcome = finetune(config, tmp_path / "tuned", cache=cache)
    lines = (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()
    measured = [each for each in map(json.loads, lines) if "eval/candidates/nll" in each]
    assert measured[-1]["eval/candidates/accuracy"] == 1.0
    assert measured[-1]["eval/candidates/nll"] < 0.5
    assert outcome.results["answers-validation"]["candidates/accuracy"] == 1.0
    questions = write(tmp_path / "others.jsonl", 6)
    asked = ask_run(tmp_path / "tuned", str(questions), protocol=Protocol(end=True))
    assert asked.top.results["accuracy"] == 1.0
    assert asked.top.results["nll"] < 0.5
    assert to_yaml(config).count("template") == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"choices": 4}, r"line 1: choices: 3 are there; every question has 4"),
        ({"template": "{answer}"}, r"finetune\.template: .* is not allowed"),
        ({"objective": "sft"}, r"choices: 3 has no effect with finetune\.objective: sft"),
        ({"beta": 0.3}, r"beta: 0\.3 has no effect with finetune\.objective: softmax"),
    ],
)
def test_what_does_not_fit_is_one_line(
    changes: dict[str, Any], told: str, tmp_path: Path, finished_run: Path
) -> None:
    with pytest.raises(UserError, match=told) as error:
        resolve(settings(tmp_path, finished_run, **changes))
    assert "\n" not in str(error.value)


def test_a_batch_holds_whole_questions(tmp_path: Path, finished_run: Path) -> None:
    path = settings(tmp_path, finished_run)
    with pytest.raises(UserError, match=r"batch\.rows: 8 is not a multiple of 3"):
        resolve(path, ["batch.rows=8"])
    with pytest.raises(
        UserError, match=r"loss: is for finetune\.objective: sft; softmax has its own"
    ):
        resolve(path, ["loss=[{kind: focal}]"])
