"""Configuration: every key refuses a wrong type and a value out of range in one clear line."""

import json
import math
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import numpy as np
import pytest

from calibtrain import cli
from calibtrain.config import (
    Config,
    ModelConfig,
    Section,
    StudyConfig,
    apply_overrides,
    config_hash,
    json_schema,
    load_config,
    load_study,
    parse_yaml,
    to_yaml,
    validate,
    with_value,
)
from calibtrain.errors import UserError
from calibtrain.training.run import RunFolder

CONFIGS = Path(__file__).parent.parent / "configs"


def leaves(cls: type[Section], prefix: str = "") -> list[tuple[str, Any]]:
    """Every key of a configuration tree that holds a value, with its field."""
    found: list[tuple[str, Any]] = []
    for name, field in cls.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found += leaves(annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def constraints(field: Any) -> list[Any]:
    """The constraints of a field, those of an optional one included."""
    parts = list(field.metadata)
    for argument in (field.annotation, *get_args(field.annotation)):
        if get_origin(argument) is not None:
            parts += list(getattr(argument, "__metadata__", ()))
    return [each for part in parts for each in getattr(part, "metadata", [part])]


def bounds(field: Any) -> list[Any]:
    """Values just outside of what a field allows; empty for fields without a range."""
    wrong: list[Any] = []
    for constraint in constraints(field):
        if isinstance(constraint, annotated_types.Ge):
            wrong.append(constraint.ge - 1)
        if isinstance(constraint, annotated_types.Gt):
            wrong.append(constraint.gt - 1)
        if isinstance(constraint, annotated_types.Le):
            wrong.append(constraint.le * 2 + 1)
        if isinstance(constraint, annotated_types.Lt):
            wrong.append(constraint.lt + 1)
    return wrong


def extremes(field: Any) -> list[Any]:
    """The smallest and the largest value that a field allows."""
    right: list[Any] = []
    for constraint in constraints(field):
        if isinstance(constraint, annotated_types.Ge):
            right.append(constraint.ge)
        if isinstance(constraint, annotated_types.Gt):
            right.append(math.nextafter(constraint.gt, math.inf))
        if isinstance(constraint, annotated_types.Le):
            right.append(constraint.le)
        if isinstance(constraint, annotated_types.Lt):
            right.append(math.nextafter(constraint.lt, -math.inf))
    return right


CASES = [(key, {"not": ["a", "value"]}) for key, _ in leaves(Config)] + [
    (key, value) for key, field in leaves(Config) for value in bounds(field)
]


EXTREMES = [(key, value) for key, field in leaves(Config) for value in extremes(field)]
COMPANIONS: dict[tuple[str, Any], dict[str, Any]] = {
    ("corpus.markov.words", 2): {"corpus.markov.successors": 2},
    ("corpus.markov.successors", 100_000): {"corpus.markov.words": 100_000},
    ("model.heads", 1024): {"model.width": 2048},
    ("model.kv_heads", 1024): {"model.heads": 1024, "model.width": 2048},
    ("batch.accumulate", 65_536): {"batch.rows": 65_536},
}
"""What an extreme value needs beside it."""


@pytest.mark.parametrize(("key", "value"), EXTREMES, ids=[f"{k}={v}" for k, v in EXTREMES])
def test_every_key_takes_its_extremes(key: str, value: Any) -> None:
    config = with_value(Config(), {**COMPANIONS.get((key, value), {}), key: value})
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_what_float32_would_round_to_nothing_is_refused() -> None:
    for key in ("optimizer.epsilon", "optimizer.clip_norm", "model.norm_epsilon"):
        with pytest.raises(UserError, match=f"{key}: 1e-300"):
            with_value(Config(), {key: 1e-300})
    with pytest.raises(UserError, match=r"model.logit_soft_cap: 1e-300"):
        with_value(Config(), {"model.logit_soft_cap": 1e-300})
    smallest = np.float32(with_value(Config(), {"optimizer.epsilon": 1e-30}).optimizer.epsilon)
    assert smallest > 0


def test_most_numbers_have_a_range() -> None:
    ranged = [key for key, field in leaves(Config) if bounds(field)]
    assert len(ranged) > 35, ranged


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{k}={v}" for k, v in CASES])
def test_every_key_refuses_what_does_not_fit(
    key: str,
    value: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Through the command line itself: one line that names the key, exit status 2, no run."""
    run = tmp_path / "run"
    override = f"{key}={json.dumps(value)}"
    arguments = ["train", str(CONFIGS / "tiny.yaml"), override, "--run", str(run)]
    monkeypatch.setattr(sys, "argv", ["calibtrain", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    said = capsys.readouterr()
    assert exit_info.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert key in said.err, said.err
    assert not run.exists()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"optimizer": {"lerning_rate": 1}}, ["optimizer.lerning_rate", "optimizer.learning_rate"]),
        ({"modle": {}}, ["modle", "did you mean model"]),
        ({"budget": {"bytes": 5, "steps": 5}}, ["budget", "exactly one", "steps and bytes"]),
        ({"model": {"width": 100, "heads": 3}}, ["width", "100", "heads"]),
        ({"model": {"heads": 4, "kv_heads": 3}}, ["kv_heads", "3", "must divide heads"]),
        ({"corpus": {"name": "kjb"}}, ["corpus.name", "kjb", "kjv"]),
        ({"corpus": {"name": "files"}}, ["paths"]),
        ({"tokenizer": {"kind": "byte", "vocab_size": 512}}, ["vocab_size", "512", "258"]),
        ({"seed": 1.5}, ["seed", "1.5", "integer"]),
        ({"model": {"qk_norm": 1}}, ["model.qk_norm", "boolean"]),
        ({"optimizer": {"learning_rate": float("nan")}}, ["optimizer.learning_rate", "nan"]),
        ({"batch": {"rows": 4, "accumulate": 3}}, ["accumulate", "3", "rows"]),
        (
            {"loss": [{"weight": 2}]},
            ["loss.0: has no kind; allowed: cross_entropy, label_", "avuc"],
        ),
        (
            {"loss": [{"kind": "brier"}, {"kind": "foccal"}]},
            ["loss.1.kind: 'foccal' is not allowed; did you mean focal? allowed: cross_entropy"],
        ),
        ({"loss": [{"kind": ["brier"]}]}, ["loss.0.kind: \"['brier']\" is not allowed;"]),
        ({"loss": [{"kind": "focal", "gama": 2}]}, ["loss.0.gama", "loss.0.gamma"]),
        ({"temperature": {"limit": 3}}, ["temperature: has no kind; allowed: none, global"]),
        (
            {"temperature": {"kind": "foo"}},
            ["temperature.kind: 'foo' is not allowed; allowed: none"],
        ),
        (
            {"temperature": {"kind": "liner"}},
            ["temperature.kind: 'liner' is not allowed; did you mean linear? allowed: none"],
        ),
    ],
)
def test_mistakes_name_key_value_and_what_is_allowed(tree: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        validate(Config, tree)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_mistakes_name_the_place() -> None:
    with pytest.raises(UserError, match="line 2"):
        parse_yaml("a: 1\nb: [1", "x.yaml")
    with pytest.raises(UserError, match=r"line 2.*'a' is given twice"):
        parse_yaml("a: 1\na: 2", "x.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]", "line 1.*recursive"),
        ("a: &a {b: *a}", "line 1.*recursive"),
        ("x: 1\n2001-01-01: 3", "line 2: key 2001-01-01 is not a text"),
        ("on: 1", "line 1: key on is not a text"),
        ("[a]: 1", "line 1: a key is not a text"),
        ("[" * 3000, "nested too deeply"),
        ("a: 2001-99-99", "month"),
    ],
)
def test_yaml_that_is_no_configuration_is_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^x.yaml.*{words}") as error:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(error.value)


def test_yaml_merge_keys_are_resolved() -> None:
    tree = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}", "x")
    assert tree["b"] == {"x": 1, "y": 3}
    assert tree["c"] == {"x": 1, "y": 2, "z": 4}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["seed=null"], "^override seed: seed: null is not allowed"),
        (["seed.x=1"], "with override seed.x: seed: "),
        (["model={heads: 3}"], "^override model: model: width"),
        (["model.heads=3"], "tiny.yaml with override model.heads: model: width"),
        (["model.width.x.y=3"], "^override model.width.x.y: model.width: is a value"),
        (["..=1"], "^override '..=1'"),
        (["=1"], "^override '=1'"),
    ],
)
def test_a_bad_override_is_blamed_and_not_the_file(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(CONFIGS / "tiny.yaml", ["batch.rows=8", *overrides])


def test_a_mistake_in_the_file_is_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("seed: -1\nmodel: {'': 1}\n")
    with pytest.raises(UserError, match=r"^.*x.yaml: seed: -1 .*; model\.'': unknown"):
        load_config(path, ["batch.rows=8"])


def test_an_empty_grid_key_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("grid: {'': [1]}\n")
    with pytest.raises(UserError, match=r"x.yaml: grid: key '' names no setting"):
        load_study(path)
    with pytest.raises(UserError, match=r"^override grid: seed: -1 is not allowed"):
        load_study(path, ["grid={seed: [-1]}"])


def test_another_kind_than_byte_keeps_the_default_vocabulary() -> None:
    base = validate(Config, {"tokenizer": {"kind": "byte"}})
    assert base.tokenizer.vocab_size == 258
    assert with_value(base, {"tokenizer.kind": "unigram"}).tokenizer.vocab_size == 1024


def test_numbers_are_read_as_people_write_them() -> None:
    tree = parse_yaml("a: 1e-3\nb: 2e6\nc: 1_000\nd: 1.5e+3\ne: 0.1", "x")
    assert tree == {"a": 0.001, "b": 2_000_000, "c": 1000, "d": 1500, "e": 0.1}
    assert isinstance(tree["b"], int)
    config = validate(Config, parse_yaml("budget: {bytes: 1e18}", "x"))
    assert config.budget.bytes == 10**18


def test_overrides_replace_the_currency_of_a_budget() -> None:
    tree = apply_overrides({"budget": {"bytes": 5}}, ["budget.steps=7", "model.width=64"])
    assert tree == {"budget": {"steps": 7}, "model": {"width": 64}}
    with pytest.raises(UserError, match=r"key\.path=value"):
        apply_overrides({}, ["model.width"])


def test_a_resolved_configuration_reads_back_as_itself() -> None:
    config = validate(Config, {"budget": {"flops": 1e15}, "corpus": {"name": "pydoc"}})
    again = validate(Config, parse_yaml(to_yaml(config), "x"))
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert config_hash(with_value(config, {"seed": 1})) != config_hash(config)


def test_ways_to_compute_are_not_part_of_what_a_run_is(tmp_path: Path) -> None:
    config = Config()
    ways = {"model.layers": "scanned", "model.remat": "dots", "model.attention": "xla"}
    other = with_value(config, {**ways, "mesh.fsdp": 2, "batch.accumulate": 4})
    assert config_hash(other) == config_hash(config)
    run = RunFolder(tmp_path / "run")
    run.create(config, lambda folder: None)
    run.check_config(other)
    with pytest.raises(UserError, match=r"another configuration: model\.depth"):
        run.check_config(with_value(other, {"model.depth": 7}))


@pytest.mark.parametrize(("written", "meant"), [(False, "none"), (True, "full"), ("dots", "dots")])
def test_remat_may_be_written_as_a_switch(written: bool | str, meant: str) -> None:
    assert validate(ModelConfig, {"remat": written}).remat == meant


@pytest.mark.parametrize(
    "path",
    [*sorted(CONFIGS.glob("*.yaml")), *sorted(CONFIGS.glob("temperature/*.yaml"))],
    ids=lambda path: path.name,
)
def test_shipped_configurations_are_valid(path: Path) -> None:
    load = load_study if "grid:" in path.read_text() else load_config
    assert load(path)


def test_shipped_schemas_are_those_of_the_code() -> None:
    for name, cls in (("schema.json", Config), ("study-schema.json", StudyConfig)):
        assert json.loads((CONFIGS / name).read_text()) == json_schema(cls), "run: make schema"


def test_every_key_is_documented() -> None:
    undocumented = [key for key, field in leaves(Config) if not field.description]
    assert undocumented == []


def test_keys_that_were_added_later_leave_earlier_hashes_as_they_were() -> None:
    """A run made before there were such keys goes on: new ones belong into ADDED_LATER."""
    assert config_hash(Config()) == "9d70e28279293cc2"  # before models could be imported
    said = with_value(Config(), {"model.embedding_scale": True, "model.rope_scaling.factor": 1.0})
    assert config_hash(said) == config_hash(Config())
    hashes = {
        config_hash(with_value(Config(), {f"model.{key}": value}))
        for key, value in (
            ("head_size", 48),
            ("feed_forward_width", 100),
            ("qkv_bias", True),
            ("embedding_scale", False),
            ("rope_scaling.kind", "linear"),
        )
    }
    assert len(hashes | {config_hash(Config())}) == 6


def test_sizes_that_are_given_are_taken_as_they_are() -> None:
    model = with_value(Config(), {"model": {"width": 36, "heads": 8, "head_size": 6}}).model
    assert (model.size_of_head, model.mlp_width) == (6, 96)
    model = with_value(Config(), {"model.feed_forward_width": 101}).model
    assert model.mlp_width == 101
    with pytest.raises(UserError, match=r"feed_forward_width \(100\) or mlp_ratio \(2\), not both"):
        with_value(Config(), {"model.feed_forward_width": 100, "model.mlp_ratio": 2.0})
    with pytest.raises(UserError, match="low_frequency_factor"):
        with_value(
            Config(), {"model.rope_scaling": {"kind": "llama3", "low_frequency_factor": 9.0}}
        )
    with pytest.raises(UserError, match="multiple of 2"):
        with_value(Config(), {"model.head_size": 7})
