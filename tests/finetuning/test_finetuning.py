"""Models that are there already, trained on answers and on preferences."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same, call, tiny

from calibtrain.ablation.replicas import train_replicas
from calibtrain.cli.terminal import describe
from calibtrain.config import LoRAConfig, config_hash, to_yaml
from calibtrain.config.finetuning import LINEAR_MAPS
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run
from calibtrain.finetuning import finetune, finetune_together, resolve
from calibtrain.finetuning.evaluation import preference_figures
from calibtrain.finetuning.plan import make_finetuning_plans
from calibtrain.interchange import export_run, import_model
from calibtrain.losses import DPO
from calibtrain.losses.preference import REFERENCE
from calibtrain.models import ADAPTER
from calibtrain.readout import TokenStats
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import load_merged_params, load_params
from calibtrain.temperature import network_of

ANSWER = "ab ab ab ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A base run, and examples: the answer is always the same, whatever the prompt."""
    path = tmp_path_factory.mktemp("finetuning")
    shutil.copytree(finished_run, path / "base")
    prompts = [f"say {number} " for number in range(60)]
    answers = [{"prompt": p, "response": ANSWER} for p in prompts]
    pairs = [{"prompt": p, "chosen": ANSWER, "rejected": "cd cd"} for p in prompts]
    for name, lines in (("sft", answers), ("dpo", pairs)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / f"{name}.jsonl").write_text(text)
    return path


def settings(folder: Path, objective: str, **changes: Any) -> Path:
    tree: dict[str, Any] = {
        "finetune": {
            "run": str(folder / "base"),
            "paths": [str(folder / f"{objective}.jsonl")],
            "objective": objective,
            "epochs": 2,
            **changes.pop("finetune", {}),
        },
        "batch": {"rows": 8},
        "optimizer": {"learning_rate": 3e-3},
        "evaluation": {"times": 2, "bytes": 1_000, "final_bytes": 1_000, "rows": 4},
        "checkpoints": {"times": 4, "keep": 10},
        "log_every": 4,
        **changes,
    }
    name = "-".join([objective, *changes, *tree["finetune"]])
    path = folder / f"{name}.json.yaml"
    path.write_text(json.dumps(tree))
    return path


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_only_answers_are_learned(folder: Path, cache: Path) -> None:
    """The first loss is the base's mean nll of the answers' tokens and their ends, by hand."""
    config = resolve(settings(folder, "sft", log_every=1), ["budget.steps=1"])
    run = folder / "one step"
    finetune(config, run, cache=cache)
    (plan,) = make_finetuning_plans([config], cache)
    base = RunFolder(folder / "base")
    tokenizer = base.read_tokenizer()
    _, params = load_merged_params(base)
    network = network_of(base.read_config(), tokenizer.vocab_size)
    order = plan.batches.rows_of(0)
    longest = max(len(sequence.ids) for sequence in plan.batches.sequences)

    @jax.jit
    def log_probabilities(ids: Any) -> Any:
        hidden, unembedding, _ = network.apply(params, ids[None], jnp.zeros_like(ids)[None])
        return jax.nn.log_softmax(hidden[0] @ unembedding)

    nll, count = 0.0, 0
    for index in order:
        ids = plan.batches.sequences[index].ids
        text = tokenizer.decode(ids).decode()
        prompt, answer = text[: text.index("ab")], text[text.index("ab") :]
        assert answer == ANSWER
        first = 1 + len(tokenizer.encode(prompt))
        log_p = log_probabilities(np.pad(ids[:-1], (0, longest - len(ids))))
        for place in range(first, len(ids)):
            nll -= float(log_p[place - 1, ids[place]])
            count += 1
    assert lines(run)[0]["train/loss"] == pytest.approx(nll / count, rel=1e-5)


@pytest.mark.long
def test_answers_become_likely_and_calibration_is_measured_along_the_way(
    folder: Path, cache: Path
) -> None:
    run = folder / "sft"
    outcome = finetune(resolve(settings(folder, "sft")), run, cache=cache)
    found = lines(run)
    measured = [line for line in found if "eval/answers/nll" in line]
    assert len(measured) == 2
    assert measured[-1]["eval/answers/nll"] < measured[0]["eval/answers/nll"]
    assert {"eval/answers/ece", "eval/ece", "eval/bits_per_byte"} <= measured[0].keys()
    answers = outcome.results["answers-validation"]
    assert answers["bytes"] == 6 * len(ANSWER)  # a tenth of 60, held out
    assert answers["intervals"]
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert evaluate_run(run, limit=1_000, cache=cache).results["nll"] > 0
    base = evaluate_run(folder / "base", limit=1_000, cache=cache).results
    assert evaluate_run(run, limit=1_000, cache=cache).results["nll"] > base["nll"]


@pytest.mark.long
def test_preference_starts_at_log_2_and_is_learned(folder: Path, cache: Path) -> None:
    run = folder / "dpo"
    path = settings(folder, "dpo", log_every=1)
    finetune(resolve(path), run, cache=cache)
    losses = [line["train/loss"] for line in lines(run) if "train/loss" in line]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)  # the model is its own reference
    assert losses[-1] < 0.5
    last = [line for line in lines(run) if "eval/preference/accuracy" in line][-1]
    assert last["eval/preference/accuracy"] == 1.0
    assert last["eval/preference/loss"] < math.log(2)


def test_a_model_that_is_its_own_reference_prefers_nothing_and_knows_it() -> None:
    found = preference_figures(np.zeros(7))
    assert found["preference/accuracy"] == 0.5
    assert found["preference/ece"] == 0.0
    assert found["preference/loss"] == pytest.approx(math.log(2))
    mixed = preference_figures(np.array([2.0, -1.0, 0.0, 0.5]))
    assert mixed["preference/accuracy"] == (1 + 0 + 0.5 + 1) / 4


def test_dpo_equals_its_formula() -> None:
    rng = np.random.default_rng(0)
    nll = rng.gamma(2.0, size=(6, 5)).astype(np.float32)
    weights = (rng.random((6, 5)) < 0.6).astype(np.float32)
    reference = -rng.gamma(4.0, size=6).astype(np.float32)

    def ours(nll: Any) -> Any:
        stats = TokenStats(nll=nll, extra={REFERENCE: jnp.asarray(reference)})
        return DPO(beta=0.3)(stats, jnp.asarray(weights))

    def formula(nll: Any) -> Any:
        total = 0.0
        for pair in range(3):
            chosen, rejected = 2 * pair, 2 * pair + 1
            log_ratio = [
                -sum(nll[row, t] * weights[row, t] for t in range(5)) - reference[row]
                for row in (chosen, rejected)
            ]
            total -= jnp.log(jax.nn.sigmoid(0.3 * (log_ratio[0] - log_ratio[1]))) / 3
        return total

    value, gradient = jax.value_and_grad(ours)(jnp.asarray(nll))
    expected, expected_gradient = jax.value_and_grad(formula)(jnp.asarray(nll))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.long
def test_micro_batches_change_no_preference(folder: Path, cache: Path) -> None:
    figures = []
    for accumulate in (1, 2):
        run = folder / f"accumulated {accumulate}"
        batch = {"rows": 8, "accumulate": accumulate}
        path = settings(folder, "dpo", batch=batch, log_every=1)
        finetune(resolve(path, ["budget.steps=3"]), run, cache=cache)
        figures.append([line["train/loss"] for line in lines(run) if "train/loss" in line])
    np.testing.assert_allclose(*figures, rtol=1e-5)


@pytest.mark.long
def test_adapters_change_nothing_else_and_nothing_at_first(folder: Path, cache: Path) -> None:
    run = folder / "lora"
    config = resolve(settings(folder, "sft", finetune={"lora": {"rank": 2}}))
    finetune(config, run, cache=cache)
    assert RunFolder(run).resuming == f"calibtrain finetune CONFIG --run {run}"
    _, before = load_params(RunFolder(folder / "base"))
    _, after = load_params(RunFolder(run))
    adapters = after.pop(ADAPTER)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) < sum(
        leaf.size for leaf in jax.tree.leaves(before)
    )
    network = network_of(config, 290)
    fresh = {**before, ADAPTER: network.init(jax.random.key(0))[ADAPTER]}
    plain = network_of(tiny(), 290)
    tokens = jnp.arange(12)[None] % 290
    segments = jnp.zeros_like(tokens)
    at_first = network.apply(fresh, tokens, segments)[0]
    np.testing.assert_array_equal(at_first, plain.apply(before, tokens, segments)[0])
    trained = network.apply({**after, ADAPTER: adapters}, tokens, segments)[0]
    assert np.abs(np.asarray(trained) - np.asarray(at_first)).max() > 1e-4
    # as the start of another fine-tuning they are a part of the model
    _, merged = load_merged_params(RunFolder(run))
    np.testing.assert_allclose(plain.apply(merged, tokens, segments)[0], trained, atol=1e-6)
    assert [line for line in lines(run) if "eval/answers/nll" in line]


@pytest.mark.long
def test_adapters_are_part_of_what_is_exported(folder: Path, cache: Path) -> None:
    """What comes back from the exported folder computes what the run with adapters does."""
    pytest.importorskip("safetensors")
    run = folder / "lora to export"
    config = resolve(settings(folder, "sft", finetune={"lora": {"rank": 2}}), ["budget.steps=2"])
    finetune(config, run, cache=cache)
    found = export_run(run, folder / "exported")
    assert found["step"] == 2
    text = "".join(json.dumps({"text": f"the text number {n}"}) + "\n" for n in range(40))
    (folder / "texts.jsonl").write_text(text)
    back = folder / "back"
    import_model(folder / "exported", back, corpus=f"files:{folder / 'texts.jsonl'}", cache=cache)
    tokens = jnp.arange(12)[None]
    hidden = []
    for path in (run, back):
        own = RunFolder(path)
        network = network_of(own.read_config(), own.read_tokenizer().vocab_size)
        _, params = load_params(own)
        assert (ADAPTER in params) == (path == run)
        hidden.append(network.apply(params, tokens, jnp.zeros_like(tokens))[0])
    np.testing.assert_allclose(*hidden, atol=1e-5)


@pytest.mark.long
def test_stopped_it_goes_on_to_the_same_end(folder: Path, cache: Path) -> None:
    """Its later checkpoints and lines are taken away, as if it had been killed before them."""
    path = settings(folder, "dpo", finetune={"lora": {"rank": 2}}, seed=3)
    whole, again = folder / "whole", folder / "again"
    finetune(resolve(path), whole, cache=cache)
    finetune(resolve(path), again, cache=cache)
    assert_same(again, whole)
    assert len(list((again / "checkpoints").iterdir())) == 4
    cut_back(again, 2)
    outcome = finetune(resolve(path), again, cache=cache)
    assert outcome.status == "done"
    assert_same(again, whole)


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"model": {"width": 32}}, (), "model: comes from the run"),
        ({}, ("finetune.run=/nowhere",), "is no run folder"),
        ({}, ("finetune.objective=dpo",), "has no field 'chosen'"),
        ({}, ("finetune.context=8",), "does not fit into a context of 8"),
        ({}, ("finetune.context=4096",), "more than the model's context"),
        ({}, ("budget.bytes=1000",), "takes finetune.epochs"),
        ({}, ("finetune.lora.maps=[qury]",), "qury given"),
        ({"budget": {"steps": 3}}, (), "epochs: 2 has no effect with budget.steps: 3"),
        ({}, ("budget.steps=3", "finetune.epochs=4"), "epochs: 4 has no effect with budget.steps"),
        ({}, ("finetune.beta=0.5",), "beta: 0.5 has no effect with finetune.objective: sft"),
    ],
)
def test_mistakes_end_in_one_line(
    folder: Path, cache: Path, changes: Any, overrides: tuple[str, ...], said: str
) -> None:
    run = folder / "refused"
    with pytest.raises(UserError, match=said) as refusal:
        finetune(resolve(settings(folder, "sft", **changes), overrides), run, cache=cache)
    assert "\n" not in str(refusal.value)
    assert not run.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json\n", "line 1: not valid JSON"),
        ('{"prompt": "a"}\n', "has no field 'response'"),
        ('{"prompt": "a", "response": 3}\n', "'response' must be a string"),
        ('{"prompt": "a", "response": ""}\n', "'response' is empty"),
        (
            '{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d\\ud800"}\n',
            r"bad\.jsonl, line 2: field 'response' holds U\+D800 at character 1",
        ),
        ('{"prompt": "\\udc00", "response": "b"}\n', r"line 1: field 'prompt' holds U\+DC00"),
        ("\n", "hold no example"),
        ('{"prompt": "a", "response": "b"}\n', "one prompt only"),
    ],
)
def test_examples_that_are_none_are_named(
    folder: Path, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        resolve(settings(folder, "sft"), [f"finetune.paths=[{file}]"])


def test_the_command_line_does_it_all(folder: Path) -> None:
    run = folder / "by command"
    done = call("finetune", settings(folder, "sft"), "budget.steps=4", "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "done"
    assert "answers-validation" in found["evaluations"]
    assert call("report", run).returncode == 0
    scratch = folder / "scratch.yaml"
    scratch.write_text(to_yaml(tiny()))
    refused = call("finetune", scratch, "--run", folder / "none")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_seeds_tuned_by_one_program_are_what_each_is_alone(
    folder: Path, cache: Path, objective: str
) -> None:
    """On a CPU to the bit; stopped and started again, and beside a seed that was begun alone, too.

    The means are those of the seeds, of the corpus and of the held-out answers.
    """
    lora = {"lora": {"rank": 2}} if objective == "dpo" else {}
    path, together = settings(folder, objective, finetune=lora), folder / f"{objective} seeds"
    alone = [folder / f"{objective} alone {seed}" for seed in (0, 1)]
    results = [
        finetune(resolve(path, [f"seed={seed}"]), run, cache=cache).results
        for seed, run in enumerate(alone)
    ]

    def tune() -> dict[str, Any]:
        return train_replicas(
            resolve(path, ["train.replicas=2"]),
            together,
            cache=cache,
            together=finetune_together,
            planner=make_finetuning_plans,
        )

    result = tune()
    assert lines(alone[0]) != lines(alone[1])
    for seed, run in enumerate(alone):
        assert_same(together / f"seed={seed}", run)
    assert {row["evaluation"] for row in result["summary"]} == set(results[0])
    for row in result["summary"]:
        nll = [own[row["evaluation"]]["nll"] for own in results]
        assert row["mean"]["nll"] == pytest.approx(sum(nll) / 2)
    cut_back(together / "seed=1", 2)
    again = tune()
    assert [arm["status"] for arm in again["arms"]] == ["done", "done"]
    for seed, run in enumerate(alone):
        assert_same(together / f"seed={seed}", run)


@pytest.mark.long
def test_seeds_tuned_on_a_device_each_are_the_same_within_rounding(folder: Path) -> None:
    path = settings(folder, "dpo", finetune={"lora": {"rank": 2}}, log_every=1)
    figures = []
    for devices in (1, 2):
        run = folder / f"seeds on {devices}"
        done = call(
            "finetune",
            path,
            "budget.steps=3",
            "train.replicas=2",
            "--run",
            run,
            "--json",
            environment={"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        )
        assert done.returncode == 0, done.stderr
        assert [arm["status"] for arm in json.loads(done.stdout)["arms"]] == ["done", "done"]
        assert (run / "report.html").is_file()
        both = [lines(run / f"seed={seed}") for seed in (0, 1)]
        figures.append([[x["train/loss"] for x in own if "train/loss" in x] for own in both])
    np.testing.assert_allclose(figures[0], figures[1], rtol=1e-4)


@pytest.mark.long
def test_fine_tunings_are_the_same_on_two_devices(folder: Path) -> None:
    path = settings(
        folder,
        "dpo",
        finetune={"lora": {"rank": 2}},
        batch={"rows": 8, "accumulate": 2},
        log_every=1,
    )
    figures = []
    for devices in (1, 2):
        run = folder / f"on {devices}"
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        done = call(
            "finetune",
            path,
            "budget.steps=3",
            f"mesh.fsdp={devices}",
            "--run",
            run,
            environment=flags,
        )
        assert done.returncode == 0, done.stderr
        figures.append([line["train/loss"] for line in lines(run) if "train/loss" in line])
    np.testing.assert_allclose(*figures, rtol=1e-5)


def test_training_from_scratch_is_not_what_a_fine_tuning_is(folder: Path, cache: Path) -> None:
    config = resolve(settings(folder, "sft"))
    path = folder / "resolved.yaml"
    path.write_text(to_yaml(config))
    refused = call("train", path, "--run", folder / "from scratch")
    assert refused.returncode == 2
    assert "calibtrain finetune" in refused.stderr
    assert not (folder / "from scratch").exists()
    with pytest.raises(UserError, match="dpo has its own"):
        resolve(settings(folder, "dpo", loss=[{"kind": "brier"}]))


@pytest.fixture(scope="module")
def lstm(folder: Path, finished_lstm: Path) -> Path:
    return Path(shutil.copytree(finished_lstm, folder / "lstm"))


@pytest.mark.long
def test_an_lstm_has_maps_of_its_own(folder: Path, lstm: Path, cache: Path) -> None:
    """By default all of them are adapted, and what is trained is told."""
    asked = {"run": str(lstm), "lora": {"rank": 2}}
    config = resolve(settings(folder, "sft", finetune=asked, log_every=1), ["budget.steps=2"])
    run = folder / "lstm with adapters"
    events: list[Any] = []
    outcome = finetune(config, run, cache=cache, observer=events.append)
    maps = ["input", "recurrent", "out"]
    trained = {"parameters": 2 * (16 + 64) + 2 * (16 + 64) + 2 * (16 + 16), "maps": maps}
    assert outcome.summary["trained"] == trained
    assert json.loads((run / "run.json").read_text())["trained"] == trained
    (start,) = [event for event in events if event["event"] == "start"]
    assert "trained: 384, in adapters of input, recurrent, out" in describe(start)
    adapters = load_params(RunFolder(run))[1][ADAPTER]
    assert {path.split(".")[-2] for path in adapters} == set(maps)
    assert all(np.abs(np.asarray(own["b"])).max() > 0 for own in adapters.values())


@pytest.mark.parametrize(
    ("base", "maps", "said"),
    [
        ("lstm", "[query]", "lstm .* no linear map called query; allowed: input, recurrent, out"),
        ("lstm", "[out,gate,up]", "no linear map called gate, up; allowed: input, "),
        ("base", "[recurrent]", "transformer .* no linear map called recurrent; allowed: "),
        ("base", "[query,query]", "query is named twice"),
        ("base", "[]", "none given; allowed"),
    ],
)
def test_maps_that_are_not_there_are_refused(
    folder: Path, lstm: Path, base: str, maps: str, said: str
) -> None:
    overrides = [f"finetune.run={folder / base}", f"finetune.lora.maps={maps}"]
    with pytest.raises(UserError, match=f"finetune.lora.maps: .*{said}"):
        resolve(settings(folder, "sft"), overrides)


def test_adapters_of_nothing_are_not_trained(folder: Path, lstm: Path, cache: Path) -> None:
    """However the configuration came about."""
    config = resolve(settings(folder, "sft", finetune={"run": str(lstm), "lora": {"rank": 2}}))
    assert config.finetune is not None
    none = LoRAConfig(rank=2, maps=("query",))
    changed = config.finetune.model_copy(update={"lora": none})
    run = folder / "adapters of nothing"
    with pytest.raises(UserError, match="nothing would be trained"):
        finetune(config.model_copy(update={"finetune": changed}), run, cache=cache)
    assert not run.exists()


@pytest.mark.long
def test_a_setting_without_effect_of_a_run_that_was_begun_with_it_may_be_removed(
    folder: Path, cache: Path
) -> None:
    path = settings(folder, "sft", finetune={"lora": {"rank": 2}})
    fresh = resolve(path, ["budget.steps=2"])
    assert fresh.finetune is not None
    with_beta = {"finetune": fresh.finetune.model_copy(update={"beta": 0.5})}
    run = folder / "begun with beta"
    finetune(fresh.model_copy(update=with_beta), run, cache=cache)
    before = (run / "config.yaml").read_bytes()
    cut_back(run, 1)
    with pytest.raises(UserError, match=r"finetune.beta: 0.5 has no effect"):
        resolve(path, ["budget.steps=2", "finetune.beta=0.5"], run)
    assert finetune(resolve(path, ["budget.steps=2"], run), run, cache=cache).status == "done"
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.long
def test_an_lstm_begun_with_the_maps_of_a_transformer_goes_on(
    folder: Path, lstm: Path, cache: Path
) -> None:
    """As all were once by default: of those maps it has one, which stays the one that is trained.

    Its hash is what it was.
    """
    path = settings(folder, "sft", finetune={"run": str(lstm), "lora": {"rank": 2}})
    fresh = resolve(path, ["budget.steps=4"])
    assert fresh.finetune is not None
    assert fresh.finetune.lora is not None
    lora = fresh.finetune.lora.model_copy(update={"maps": LINEAR_MAPS})
    update = {"finetune": fresh.finetune.model_copy(update={"lora": lora})}
    before = fresh.model_copy(update=update)
    run = folder / "begun long ago"
    finetune(before, run, cache=cache)
    cut_back(run, 1)
    again = resolve(path, ["budget.steps=4"], run)
    assert again == before
    outcome = finetune(again, run, cache=cache)
    assert outcome.status == "done"
    assert outcome.summary["config_hash"] == config_hash(before)
    assert outcome.summary["trained"]["maps"] == ["out"]
    assert list(load_params(RunFolder(run))[1][ADAPTER]) == ["layers.0.out.kernel"]


def cut_back(run: Path, kept: int) -> None:
    """Take the later checkpoints away, as if it had been stopped before them."""
    checkpoints = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert len(checkpoints) > kept
    for late in checkpoints[kept:]:
        shutil.rmtree(late)
    summary = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**summary, "status": "stopped"}))


@pytest.mark.long
@pytest.mark.parametrize("told", [True, False])
def test_hashes_are_what_a_fine_tuning_is_known_by_and_not_paths(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Its base and examples may be named otherwise, and moved; so too if run.json tells of none."""
    path = settings(folder, "dpo", seed=5)
    whole, again = tmp_path / "whole", tmp_path / "again"
    finetune(resolve(path), whole, cache=cache)
    shutil.copytree(whole, again)
    cut_back(again, 2)
    if not told:
        summary = json.loads((again / "run.json").read_text())
        del summary["started_from"], summary["trained"]
        (again / "run.json").write_text(json.dumps(summary))
    shutil.copytree(folder / "base", tmp_path / "moved" / "base")
    shutil.copy(folder / "dpo.jsonl", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    there = resolve(path, ["finetune.run=./moved/base", "finetune.paths=[moved/../moved/*.jsonl]"])
    assert finetune(there, again, cache=cache).status == "done"
    assert_same(again, whole)
    hashes = [json.loads((run / "run.json").read_text())["config_hash"] for run in (whole, again)]
    assert hashes[0] == hashes[1]
    assert (again / "config.yaml").read_text() == (whole / "config.yaml").read_text()


@pytest.mark.long
def test_another_base_or_other_examples_are_refused_by_hash(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    path = settings(folder, "sft", seed=6)
    finetune(resolve(path, ["budget.steps=4"]), run, cache=cache)
    other = tmp_path / "sft.jsonl"
    other.write_text((folder / "sft.jsonl").read_text().replace("say 7 ", "say seven "))
    config = resolve(path, ["budget.steps=4", f"finetune.paths=[{other}]"])
    with pytest.raises(UserError, match=r"another configuration: .*finetune\.examples"):
        finetune(config, run, cache=cache)
    shutil.copytree(folder / "base", tmp_path / "base")
    (last,) = sorted((tmp_path / "base" / "checkpoints").iterdir(), key=lambda p: int(p.name))[-1:]
    (last / "checksums.json").write_text((last / "checksums.json").read_text() + "\n")
    config = resolve(path, ["budget.steps=4", f"finetune.run={tmp_path / 'base'}"])
    with pytest.raises(UserError, match=r"was started from another checkpoint \(step 24, sha256"):
        finetune(config, run, cache=cache)
