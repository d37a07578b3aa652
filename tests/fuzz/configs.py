"""Configurations that are wrong in some way, or odd and right: trees, YAML and overrides."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fuzz.damage import flip, lengthen
from fuzz.runs import CONFIG
from fuzz.verdict import Case, Step

COUNT = 500
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 8, 255, 258, 259, 2**31 - 1, 2**31, 2**63, 10**19, 10**400,
    0.0, -0.0, 0.5, 1.0, 1.5, -1e-9, 1e-30, 1e308, float("inf"), float("-inf"), float("nan"), "",
    " ", "none", "None", "null", "auto", "true", "010", "0x10", "1_000", "1e3", "1:30", "~", "*",
    "kjv", "files", "byte", "unigram", "\u00e9", "\u202eabc", "\ufeff", "a" * 5000, "x\ny", "\t",
    "\U0001f600", "..", "/", "/dev/null", "-", "--help", "${HOME}", "%s", "[1]", "{}", [], [1],
    [None], [[1]], ["a", "a"], {}, {"a": 1}, {"kind": "nonsense"}, {"kind": None},
)  # fmt: skip
CHEAP = {
    "width": 64, "depth": 2, "heads": 4, "vocab_size": 600, "tokens": 64, "rows": 8, "steps": 4,
    "bytes": 60_000, "final_bytes": 4_000,
}  # fmt: skip
"""Largest values of a configuration that is trained here; others are only read."""
LINES = (
    "seed: 010", "seed: 0o10", "seed: 1_0", "seed: 0x1F", "seed: 1:30", "seed: +1", "seed: .5",
    "budget: {steps: 0100}", "budget: {steps: 2e0}", "budget: {steps: 2.0}", "budget: {steps: '2'}",
    "log_every: yes", "model: {tied: on}", "model: {tied: 'no'}", "corpus: kjv", "corpus: [kjv]",
    "corpus: !!python/object/apply:os.system ['true']", "seed: !!int '3'", "seed: !!binary aGk=",
    "seed: 2001-01-01", "seed: 2001-99-99", "a: &a [*a]", "a: &a {b: *a}", "<<: {seed: 3}",
    "<<: [1]", "<<: {unknown: 3}", "? [1, 2]\n: 3", "1: 2", "null: 3", "true: 3", "seed:\t3",
    "\tseed: 3", "seed: 3\nseed: 4", "model: {width: 16, width: 32}", "%YAML 1.1\n---\nseed: 3",
    "%YAML 9.9\n---\nseed: 3", "---\nseed: 3\n---\nseed: 4", "seed: |\n  3", "seed: >-\n  3",
    "seed: 3 # c", "seed: '3", 'seed: "\\ud800"', 'seed: "\\x00"', "seed: @3", "seed: `3`",
    "[]", "3", "text", "~", "", "...", "---", "- seed: 3", "seed: .nan", "seed: .inf", "seed: -0",
    "seed: 1e400", "seed: " + "9" * 5000, "a" * 3000 + ": 1", "seed: " + "[" * 3000,
    "model: {kind: lstm, heads: 3}", "tokenizer: {kind: byte, vocab_size: 300}", "unknown: {}",
    "x: &x [1,1,1,1,1,1,1,1]\n"
    + "\n".join(f"x{i}: &x{i} [{', '.join(['*x' + (str(i - 1) if i else '')] * 9)}]"
                for i in range(9)),
)  # fmt: skip
OVERRIDES = (
    "seed=", "=3", "seed", "seed=3=4", "seed==3", ".seed=3", "seed.=3", "model..width=3",
    "model.width.x=3", "seed.x=3", "seed=010", "budget.steps=0100", "budget.steps=none",
    "model.kv_heads=none", "optimizer.clip_norm=none", "optimizer.clip_norm=null", "seed=[",
    "seed={a: 1}", "model={}", "model=", "finetune={}", "losses={}", "losses=[]", "temperature={}",
    "corpus.paths=[x]", "corpus.group=g", "corpus.field=f", "corpus.name=files:nowhere.txt",
    "corpus.name=files", "corpus.name=tfds:", "corpus.name=tfds:nonsense", "tokenizer.path=nowhere",
    "tokenizer.path=~/nowhere", "tokenizer.path=", "Seed=3", "seed =3", "seed= 3", "\u00e9=1",
    "seed=\udce9", "model.compute=bfloat16", "mesh.data=3", "mesh.fsdp=64", "train.replicas=2",
    "batch.accumulate=3", "checkpoints.every=none", "evaluation.every=none", "budget={steps: 2}",
    "budget.tokens=5", "context.bytes=64", "model.head_size=3", "seed=-1", "seed=4294967296",
    "optimizer.learning_rate=1e99", "optimizer.learning_rate=10", "corpus.markov.bytes=1000",
    "corpus.markov.words=2", "corpus.validation_fraction=0.499", "seed=!!python/name:os.system",
    "seed=&a", "seed=*a", "seed=%", "seed=\x1b[31m", "seed=" + "9" * 4000, "x" * 3000 + "=1",
)  # fmt: skip


def prepare(base: Path, compiled: Path) -> dict[str, Any]:
    """Names of every key, from the schema; a corpus in the cache is not needed."""
    from calibtrain.config import Config

    (base / "defaults.json").write_text(json.dumps(Config().model_dump(mode="json")))
    return {}


def make(number: int, rng: random.Random, base: Path, place: Path) -> Case:
    """A configuration file and overrides; the command that trains it, or only reads it."""
    place.mkdir()
    tree = json.loads(json.dumps(CONFIG))
    tree["budget"] = {"steps": rng.choice([1, 2, 3])}
    if rng.random() < 0.5:
        tree["tokenizer"] = {"kind": "byte"}
    defaults = json.loads((base / "defaults.json").read_text())
    said, overrides, text = [], [], None
    for _ in range(rng.choice([1, 1, 2, 4])):
        way = rng.choice(["value", "value", "value", "unknown", "line", "override", "odd override"])
        if way == "value":
            where, old = rng.choice(list(_leaves(defaults)))
            value = _near(old, rng) if rng.random() < 0.5 else rng.choice(ODD)
            _put(tree, where, value)
            said.append(f"{'.'.join(where)} = {str(value)[:40]!r}")
        elif way == "unknown":
            where, _ = rng.choice(list(_leaves(defaults)))
            name = where[-1] + "_" if rng.random() < 0.5 else rng.choice(["", "\u00e9", "x" * 300])
            _put(tree, (*where[:-1], name), rng.choice(ODD))
            said.append(f"key {name[:20]!r} in {'.'.join(where[:-1])!r}")
        elif way == "line":
            line = rng.choice(LINES)
            text = line if rng.random() < 0.3 else (text or "") + "\n" + line
            said.append(f"line {line[:60]!r}")
        elif way == "override":
            where, old = rng.choice(list(_leaves(defaults)))
            value = _near(old, rng) if rng.random() < 0.5 else rng.choice(ODD)
            overrides.append(f"{'.'.join(where)}={_plain(value)}")
        else:
            overrides.append(rng.choice(OVERRIDES))
    _write(place / "c.yaml", tree, text, rng, said)
    overrides = [text for text in overrides if "\0" not in text]
    name = rng.choice(
        ["run", "run", "run", "r\u00fcn", "a b", "v[1]", "out/deep/run", "~x", "x" * 300]
    )
    trained = _is_cheap(tree) and all(_is_cheap_override(each) for each in overrides)
    if text is not None and "budget" in text:
        trained = False
    reads = Step(("config", "show", "c.yaml", "--", *overrides))
    trains = Step(
        ("train", "c.yaml", "--run", name, "--progress", "none", "--", *overrides), makes=(name,)
    )
    what = f"{'; '.join(said)}; {' '.join(each[:60] for each in overrides)}; --run {name[:20]}"
    return Case(what, (reads, trains) if trained else (reads,))


def _write(path: Path, tree: Any, text: str | None, rng: random.Random, said: list[str]) -> None:
    """The file, in one of several spellings and encodings; sometimes with bytes that are wrong."""
    if text is not None and not text.startswith("\n"):
        body = text
    else:
        style = rng.choice([None, True, False])
        body = yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5, default_flow_style=style)
        body += (text or "")[1:]
    encoding = rng.choice(["utf-8"] * 8 + ["utf-16", "utf-8-sig", "latin-1"])
    path.write_bytes(body.encode(encoding, "surrogatepass" if "utf" in encoding else "replace"))
    if encoding != "utf-8":
        said.append(encoding)
    if rng.random() < 0.1:
        said.append(rng.choice([flip, lengthen])(path, rng))


def _leaves(tree: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*where, key))
        yield (*where, key), value


def _put(tree: Any, where: tuple[str, ...], value: Any) -> None:
    for key in where[:-1]:
        inner = tree.get(key)
        if not isinstance(inner, dict):
            inner = tree[key] = {}
        tree = inner
    tree[where[-1]] = value


def _near(old: Any, rng: random.Random) -> Any:
    """A value of the same type, which may well be allowed."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return rng.choice([old + 1, old - 1, old * 2, -old, float(old), str(old), [old]])
    if isinstance(old, str):
        return rng.choice([old.upper(), f" {old}", f"{old}\n", old[:-1], [old], old + "\u200b"])
    if isinstance(old, list):
        return rng.choice([[*old, "x"], {}, "x", [old]])
    return rng.choice([1, 2, "x", 0.5, [], {}])


def _plain(value: Any) -> str:
    """A value as it is typed behind an equals sign."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()


def _is_cheap(tree: Any) -> bool:
    """Whether training a configuration, should it be allowed, takes a second or two."""
    for where, value in _leaves(tree):
        limit = CHEAP.get(where[-1], 10_000)
        if where[0] in ("budget", "context") and where[-1] not in ("steps", "tokens"):
            return False
        if isinstance(value, int | float) and not isinstance(value, bool) and not value <= limit:
            return False
        if isinstance(value, str) and value[:1].isdigit():
            return False
    return (
        tree.get("corpus", {}) == CONFIG["corpus"]
        or not isinstance(tree["corpus"], dict)
        or (tree["corpus"].get("name") == "markov")
    )


def _is_cheap_override(text: str) -> bool:
    key, _, value = text.partition("=")
    heavy = (
        "budget",
        "context",
        "corpus.markov",
        "model",
        "tokenizer.vocab",
        "evaluation",
        "batch",
    )
    if key.startswith("corpus.name") and ("kjv" in value or "pydoc" in value):
        return False
    return not key.startswith(heavy) or len(value) <= 2 or not value[-1:].isdigit()


def of(step: Step, place: Path, printed: str) -> Any:
    """Nothing is compared of a configuration."""
    return None
