"""Runs that are trained with a head: on several devices, resumed, evaluated, told in run.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import assert_same, call, tiny
from heads import KINDS, with_head
from saved_state import load_state

from calibtrain.config import BatchConfig, Config, ModelConfig, config_hash, to_yaml, validate
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, evaluate_run_on_text, train_run, train_together
from calibtrain.models import TEMPERATURE, build
from calibtrain.runs.folder import RunFolder
from calibtrain.training.begin import Member
from calibtrain.training.optimizer import decay_mask

CONFIG = tiny(
    corpus={"markov": {"words": 24, "successors": 4, "bytes": 60_000, "mean_document_words": 30.0}},
    temperature={"kind": "adaptive"},
    tokenizer={"kind": "byte", "vocab_size": 258},
    batch={"rows": 8, "accumulate": 2},
    budget={"steps": 6},
    evaluation={"every": 6, "bytes": 300, "final_bytes": 300, "final_splits": ["test"]},
    checkpoints={"every": 3, "keep": 10},
)
"""With parameters of all kinds, micro-batches, and tokens that are bytes."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run with an adaptive head that is done."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert train_run(CONFIG, path).status == "done"
    return path


@pytest.mark.long
def test_eight_devices_train_a_head_as_one_does(whole: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(to_yaml(CONFIG.model_copy(update={"batch": BatchConfig(rows=8)})))
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run = tmp_path / "run"
    done = call("train", config, "mesh.fsdp=4", "--run", run, environment=flags)
    assert done.returncode == 0, done.stderr
    one, other = (
        json.loads((path / "metrics.jsonl").read_text().splitlines()[-1]) for path in (whole, run)
    )
    for name in ("eval/nll", "eval/entropy_rate", "eval/mean_confidence"):
        assert one[name] == pytest.approx(other[name], rel=2e-5), name
    states = [load_state(RunFolder(path))[1] for path in (whole, run)]
    mine, theirs = (jax.tree.leaves(state.params[TEMPERATURE]) for state in states)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert max(float(abs(leaf).max()) for leaf in mine) > 0


@pytest.mark.long
def test_a_run_with_a_head_resumes_to_the_bit(whole: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def observer(event: Any) -> None:
        if event["event"] == "saved":
            raise Killed

    with pytest.raises(Killed):
        train_run(CONFIG, tmp_path / "cut", observer=observer)
    assert train_run(CONFIG, tmp_path / "cut").status == "done"
    assert_same(whole, tmp_path / "cut")


@pytest.mark.long
def test_bytes_are_read_through_the_head(whole: Path, tmp_path: Path) -> None:
    """Of one byte a token, bytes are tokens: the same nll in both event spaces, to what the beam's
    windows see."""
    run = shutil.copytree(whole, tmp_path / "run")
    by_token = evaluate_run(run, limit=100)
    by_byte = evaluate_run_on_text(run, limit=100, width=1)
    want = by_token.results["bits_per_byte"]
    assert by_byte.results["bits_per_byte"] == pytest.approx(want, rel=0.02)
    assert "|T:adaptive|" in by_byte.results["signatures"]["ece"]


@pytest.mark.long
def test_run_json_and_figures_tell_the_head(whole: Path) -> None:
    """The counts that are controlled leave it out."""
    summary = json.loads((whole / "run.json").read_text())
    params = load_state(RunFolder(whole))[1].params
    count = sum(leaf.size for leaf in jax.tree.leaves(params[TEMPERATURE]))
    assert summary["temperature"] == {"kind": "adaptive", "parameters": count}
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert summary["parameters"]["total"] == total - count
    found = json.loads((whole / "evaluations" / "markov-test-6.json").read_text())
    assert (found["temperature"], found["head"]) == (1.0, "adaptive")
    assert "|T:adaptive|" in found["signatures"]["nll"]


@pytest.mark.long
def test_replicas_have_heads_of_their_own(whole: Path, tmp_path: Path) -> None:
    seeds = [CONFIG.model_copy(update={"seed": seed}) for seed in (0, 1)]
    members = [Member(config, tmp_path / str(config.seed)) for config in seeds]
    assert [outcome.status for outcome in train_together(members)] == ["done", "done"]
    assert_same(tmp_path / "0", whole)


def test_a_head_is_not_decayed_unless_asked() -> None:
    params = jax.eval_shape(with_head("adaptive").init, jax.random.key(0))
    mask = decay_mask(params, embeddings=False)
    assert not any(jax.tree.leaves(mask[TEMPERATURE]))
    assert any(jax.tree.leaves(decay_mask(params, embeddings=False, head=True)[TEMPERATURE]))
    plain = decay_mask({k: v for k, v in params.items() if k != TEMPERATURE}, embeddings=False)
    assert {k: v for k, v in mask.items() if k != TEMPERATURE} == plain


def test_runs_without_a_head_keep_the_hash_they_had() -> None:
    """That of a configuration before there were heads."""
    without = Config().model_dump(mode="json")
    assert without["temperature"] == {"kind": "none"}
    assert config_hash(validate(Config, {"temperature": {"kind": "none"}})) == config_hash(Config())
    hashes = {config_hash(validate(Config, {"temperature": {"kind": k}})) for k in KINDS}
    assert len({*hashes, config_hash(Config())}) == len(KINDS) + 1


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"temperature": {"kind": "mlp", "hiden": 3}}, "temperature.hiden.*temperature.hidden"),
        ({"temperature": {"kind": "linear", "limit": 1.0}}, r"temperature.limit: 1\.0"),
        ({"temperature": {"kind": "warm"}}, "temperature.kind: 'warm' is not allowed; .*linear"),
        (
            {"temperature": {"kind": "vector"}, "model": {"logit_soft_cap": 30.0}},
            r"temperature.kind vector .*logit_soft_cap \(30\.0\)",
        ),
        ({"temperature": {"kind": "adaptive", "heads": 5}}, r"width \(128\).*heads \(5\)"),
    ],
)
def test_mistakes_name_key_and_value(tree: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        validate(Config, tree)
    assert "\n" not in str(error.value)


def test_parameters_of_the_model_are_drawn_as_without_a_head() -> None:
    model = ModelConfig(width=16, depth=1, heads=2, kv_heads=1)
    plain = build(model, 23).init(jax.random.key(4))
    headed = with_head("mlp").init(jax.random.key(4))
    assert {*headed} - {*plain} == {TEMPERATURE}
