"""Configuration: every key refuses a wrong type and a value out of range in one clear line."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.cli import main as cli
from calibtrain.config import (
    Config,
    CorpusConfig,
    ModelConfig,
    Section,
    StudyConfig,
    apply_overrides,
    config_hash,
    json_schema,
    load_config,
    load_study,
    parse_yaml,
    resolved_yaml,
    to_yaml,
    validate,
    with_value,
)
from calibtrain.errors import UserError
from calibtrain.runs.folder import RunFolder

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
    ("tokenizer.cut_from", 258): {"tokenizer.kind": "bpe", "tokenizer.vocab_size": 258},
    ("tokenizer.cut_from", 1_000_000): {"tokenizer.kind": "bpe"},
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


SOME = [  # one in eight for those who wait
    pytest.param(*case, marks=[pytest.mark.long] if number % 8 else [], id="=".join(map(str, case)))
    for number, case in enumerate(CASES)
]


@pytest.mark.parametrize(("key", "value"), SOME)
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
        ("x: 1\n2001: 3", "line 2: key 2001 is not a text"),
        ("true: 1", "line 1: key true is not a text"),
        ("[a]: 1", "line 1: a key is not a text"),
        ("[" * 3000, "line 1: nested too deeply"),
        ("x:\n" + "  " * 60 + "- " * 60, "line 2: nested too deeply"),
        ("[" + "1, " * 30_000 + "1]", "more than 20,000 values"),
        ("9" * 5_000, "line 1: a number of 5,000 digits"),
        ("a: 1." + "9" * 5_000, "line 1: a number of 5,002 digits"),
        ('"\\ud800"', "half a character"),
        ('"\\UFFFFFFFF"', "an escape stands for no character"),
        ("!!binary aGk=", '"!!binary" is not allowed'),
        ("!!int yes", '"yes" is not of type int'),
        ("{a: 1, 'a': 2}", "key 'a' is given twice"),
        ("x: {a: {b: 1, b: 2}}", "key 'b' is given twice"),
    ],
)
def test_yaml_that_is_no_configuration_is_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^x.yaml.*{words}") as error:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["list", "merge"])
def test_aliases_that_expand_without_end_are_refused_before_they_do(form: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} " + form.format(", ".join([f"*a{level - 1}"] * 10)))
    with pytest.raises(UserError, match=r"^x.yaml: holds more than 20,000 values \(an alias"):
        parse_yaml("\n".join(lines), "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0100", 100),
        ("-007", -7),
        ("08", 8),
        ("0x1F", 31),
        ("1_000_000", 1_000_000),
        ("2e6", 2_000_000),
        ("010.5", 10.5),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("0b11", "0b11"),
        ("0o17", "0o17"),
        ("1__0", "1__0"),
        ("no", "no"),
        ("On", "On"),
        ("yes", "yes"),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01 00:00:00Z", "2001-01-01 00:00:00Z"),
        ("=", "="),
        ("TRUE", True),
        ("~", None),
        ("!!int 010", 10),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_words_are_read_by_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    for found in (parse_yaml(text, "x"), parse_yaml(f"[{text}]", "x")[0]):
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=0b11", "write it in decimal digits"),
        ("seed=1:30", "write it in decimal digits"),
        ("optimizer.learning_rate=1:30.5", "write it in decimal digits"),
        ("model.tied=no", "write true or false"),
        ("model.tied=On", "write true or false"),
    ],
)
def test_what_older_yaml_read_as_numbers_and_switches_is_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(CONFIGS / "tiny.yaml", [override])


def test_padded_seeds_are_the_seeds_they_look_like(tmp_path: Path) -> None:
    assert load_config(CONFIGS / "tiny.yaml", ["seed=010"]).seed == 10
    path = tmp_path / "study.yaml"
    path.write_text("base: {seed: 0100}\ngrid: {seed: [010, 011]}\n")
    study = load_study(path)
    assert (study.base.seed, study.grid["seed"]) == (100, [10, 11])


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789_+-.eExobnulNtrueyfasi:~<='\" #", max_size=8))
def test_every_text_that_is_written_is_read_back_as_that_text(text: str) -> None:
    config = CorpusConfig(name="files", paths=(text,), group=text or None)
    assert validate(CorpusConfig, parse_yaml(to_yaml(config), "x")) == config


def test_a_file_without_end_is_read_no_further_than_a_configuration_goes() -> None:
    with pytest.raises(UserError, match=r"/dev/zero: is larger than 1,048,576 bytes"):
        load_config("/dev/zero")


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
        (["x" * 2000 + "=1"], r"^override x{200}\.\.\. \(2,000 characters\): .{,600}$"),
    ],
)
def test_a_bad_override_is_blamed_and_not_the_file(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(CONFIGS / "tiny.yaml", ["batch.rows=8", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["seed=1", "seed=1"], "^override seed: is given twice"),
        (["budget.steps=1", "budget.bytes=9"], "^override budget.bytes: replaces budget.steps"),
        (["budget={steps: 3}", "budget.bytes=9"], "^override budget.bytes: replaces budget,"),
        (["context.tokens=9", "context.bytes=9"], "replaces context.tokens"),
        (["model.width=32", "model={depth: 2}"], "^override model: replaces model.width"),
        (["model={depth: 2, depth: 3}"], "^override model: line 1: key 'depth' is given twice"),
    ],
)
def test_an_override_that_undoes_another_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(CONFIGS / "tiny.yaml", overrides)
    refined = load_config(CONFIGS / "tiny.yaml", ["model={depth: 2}", "model.width=32"])
    assert (refined.model.depth, refined.model.width) == (2, 32)


INEFFECTIVE = [
    ("corpus: {name: kjv, markov: {words: 24}}", "corpus.markov.words: 24", "corpus.name: kjv"),
    ("tokenizer: {kind: byte, character_coverage: 1.0}", "character_coverage", "kind: byte"),
    ("model: {kind: lstm, heads: 2}", "model.heads: 2", "model.kind: lstm"),
    ("model: {kind: lstm, qk_norm: false}", "model.qk_norm: false", "model.kind: lstm"),
    ("model: {kind: lstm, attention: xla}", "model.attention", "model.kind: lstm"),
    (
        "model: {kind: lstm, rope_scaling: {kind: linear}}",
        "model.rope_scaling.kind",
        "model.kind: lstm",
    ),
    ("model: {rope_scaling: {factor: 2}}", "rope_scaling.factor: 2.0", "rope_scaling.kind: none"),
    (
        "model: {rope_scaling: {kind: linear, factor: 2, original_context: 64}}",
        "rope_scaling.original_context: 64",
        "rope_scaling.kind: linear",
    ),
    ("optimizer: {decay_fraction: 0.3}", "decay_fraction: 0.3", "schedule: cosine"),
    (
        "optimizer: {schedule: constant, final_fraction: 0.3}",
        "final_fraction: 0.3",
        "schedule: constant",
    ),
    (
        "optimizer: {weight_decay: 0, decay_embeddings: true}",
        "decay_embeddings: true",
        "weight_decay: 0",
    ),
    (
        "optimizer: {weight_decay: 0}\ntemperature: {kind: linear, decay: true}",
        "temperature.decay: true",
        "weight_decay: 0",
    ),
    ("evaluation: {every: 5, times: 3}", "evaluation.times: 3", "evaluation.every: 5"),
    (
        "evaluation: {final_splits: [], final_bytes: 99}",
        "evaluation.final_bytes: 99",
        "final_splits: \\[\\]",
    ),
    ("checkpoints: {every: 5, times: 3}", "checkpoints.times: 3", "checkpoints.every: 5"),
    ("finetune: {run: a, paths: [b], beta: 0.3}", "finetune.beta: 0.3", "objective: sft"),
    (
        "finetune: {run: a, paths: [b], lora: {}}\noptimizer: {decay_embeddings: true}",
        "decay_embeddings: true",
        "finetune.lora",
    ),
    (
        "finetune: {run: a, paths: [b]}\nloss: [{kind: cross_entropy}, {kind: dca, tokens: 9}]",
        "loss.1.tokens: 9",
        "finetune",
    ),
]
"""A file, the setting in it without effect, and what overrides it."""


@pytest.mark.parametrize(("text", "setting", "because"), INEFFECTIVE)
def test_a_setting_that_another_overrides_is_refused(
    text: str, setting: str, because: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"x.yaml: .*{setting}.* has no effect with .*{because}"):
        load_config(path)
    study = tmp_path / "study.yaml"
    study.write_text("grid: {seed: [0]}\nbase:\n" + "".join(f"  {x}\n" for x in text.split("\n")))
    with pytest.raises(UserError, match=rf"study.yaml: base\..*{setting}.* has no effect with"):
        load_study(study)
    # a run's own file is what it is, and so is what a study wrote for an arm
    stored = tmp_path / "run" / "config.yaml"
    stored.parent.mkdir()
    stored.write_text(text)
    (stored.parent / "run.json").write_text("{}")
    config = load_config(stored)
    path.write_text(resolved_yaml(config))
    assert config_hash(load_config(path)) == config_hash(config)
    assert config_hash(RunFolder(stored.parent).read_config()) == config_hash(config)


def test_every_default_may_be_written_out(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(to_yaml(Config(model=ModelConfig(kind="lstm"))))
    assert load_config(path).model.kind == "lstm"


def test_an_override_that_leaves_a_file_s_setting_without_effect_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("model: {heads: 2}")
    assert load_config(path, ["model.kind=lstm"]).model.kind == "lstm"
    assert "model.heads: 2 has no effect with model.kind: lstm" in caplog.text
    with pytest.raises(UserError, match=r"^override model.heads: model.heads: 8 has no effect"):
        load_config(path, ["model.kind=lstm", "model.heads=8"])


def test_solving_for_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("grid: {seed: [0]}\ncontrols: {parameters: as_given, solve_for: depth}")
    with pytest.raises(UserError, match=r"controls.solve_for: .*depth.* has no effect"):
        load_study(path)


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_a_text_that_is_not_utf_8_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r'^x: corpus.paths.1: "a?\\ud\w+" is not UTF-8'):
        validate(Config, {"corpus": {"name": "files", "paths": ["a", text]}}, "x")
    with pytest.raises(UserError, match="is not UTF-8"):
        validate(Config, {text: 1})


@pytest.mark.parametrize("section", Config.model_fields)
def test_none_for_a_section_that_must_be_there_is_one_line(section: str) -> None:
    if section not in ("temperature", "finetune"):
        with pytest.raises(UserError, match=f'^{section}: "none" is not allowed: '):
            validate(Config, {section: "none"})


def test_none_is_null_where_null_is_allowed_and_a_text_where_texts_are() -> None:
    tree = {
        "optimizer": {"clip_norm": "none"},
        "corpus": {"group": "none"},
        "temperature": "none",
        "model": {"rope_scaling": "none", "remat": "none"},
        "finetune": "none",
        "loss": [{"kind": "cross_entropy"}, {"kind": "mmce", "tokens": "None"}],
        "mesh": {"data": "NONE"},
    }
    config = validate(Config, tree)
    assert config.optimizer.clip_norm is None
    assert config.corpus.group == "none"
    assert config.finetune is None
    assert config.temperature.kind == config.model.rope_scaling.kind == "none"
    assert config.loss[1].tokens is None  # type: ignore[union-attr]
    assert config.mesh.data is None
    with pytest.raises(UserError, match='seed: "none" is not allowed'):
        validate(Config, {"seed": "none"})
    assert load_config(CONFIGS / "tiny.yaml", ["optimizer.clip_norm=none"]).optimizer == (
        load_config(CONFIGS / "tiny.yaml", ["optimizer.clip_norm=null"]).optimizer
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["finetune={}"], "finetune.run: is required; finetune.paths: is required"),
        (["finetune={run: a, paths: [b], lora: {rnk: 1}}"], "did you mean finetune.lora.rank"),
        (["model.width=" + "x" * 1_000_000], r'"x+\.\.\. \(1,000,002 characters\) is not allowed'),
        (["corpus.name=" + "x" * 1_000_000], r"'x+'\.\.\. \(1,000,000 characters\) is no corpus"),
        (["temperature.kind=" + "x" * 1_000_000], r"\(1,000,000 characters\) is not allowed"),
        (["x" * 1_000_000 + "=1"], "xx: unknown key"),
        ([r'model.heads="a\e[2J\nb"'], r'"a\\u001b\[2J\\nb" is not allowed'),
    ],
)
def test_values_are_shown_on_one_short_line(
    overrides: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["calibtrain", "config", "show", str(CONFIGS / "tiny.yaml"), *overrides]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        cli.main()
    line = capsys.readouterr().err
    assert end.value.code == 2
    assert re.search(words, line), line[:300]
    assert len(line) < 2_200
    assert line.rstrip("\n").isprintable()


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
