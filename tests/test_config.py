"""Configuration: every key refuses a wrong type and a value out of range in one clear line."""

import json
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import pytest

from calibtrain import cli
from calibtrain.config import (
    Config,
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


def bounds(field: Any) -> list[Any]:
    """Values just outside of what a field allows; empty for fields without a range."""
    parts = list(field.metadata)
    for argument in (field.annotation, *get_args(field.annotation)):
        if get_origin(argument) is not None:
            parts += list(getattr(argument, "__metadata__", ()))
    wrong: list[Any] = []
    for part in parts:
        for constraint in getattr(part, "metadata", [part]):
            if isinstance(constraint, annotated_types.Ge):
                wrong.append(constraint.ge - 1)
            if isinstance(constraint, annotated_types.Gt):
                wrong.append(constraint.gt - 1)
            if isinstance(constraint, annotated_types.Le):
                wrong.append(constraint.le * 2 + 1)
            if isinstance(constraint, annotated_types.Lt):
                wrong.append(constraint.lt + 1)
    return wrong


CASES = [(key, {"not": ["a", "value"]}) for key, _ in leaves(Config)] + [
    (key, value) for key, field in leaves(Config) for value in bounds(field)
]


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


def test_numbers_are_read_as_people_write_them() -> None:
    tree = parse_yaml("a: 1e-3\nb: 2e6\nc: 1_000\nd: 1.5e+3\ne: 0.1", "x")
    assert tree == {"a": 0.001, "b": 2_000_000, "c": 1000, "d": 1500, "e": 0.1}
    assert isinstance(tree["b"], int)


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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    load = load_study if "grid:" in path.read_text() else load_config
    assert load(path)


def test_shipped_schemas_are_those_of_the_code() -> None:
    for name, cls in (("schema.json", Config), ("study-schema.json", StudyConfig)):
        assert json.loads((CONFIGS / name).read_text()) == json_schema(cls), "run: make schema"


def test_every_key_is_documented() -> None:
    undocumented = [key for key, field in leaves(Config) if not field.description]
    assert undocumented == []
