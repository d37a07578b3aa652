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
VALID: dict[str, tuple[Any, ...]] = {
    "seed": (0, 2**31 - 1), "log_every": (1, 2**31 - 1), "tokenizer.kind": ("bpe", "byte"),
    "tokenizer.vocab_size": (290, 512), "tokenizer.character_coverage": (0.98, 1.0),
    "context.tokens": (8, 33), "model.kind": ("lstm", "transformer"), "model.width": (8, 24),
    "model.depth": (1, 2), "model.heads": (1, 2, 4), "model.kv_heads": (1, None),
    "model.head_size": (2, 10), "model.mlp": ("gelu",), "model.mlp_ratio": (1e-9, 64),
    "model.feed_forward_width": (8, 9), "model.tied": (False,), "model.qk_norm": (False,),
    "model.qkv_bias": (True,), "model.logit_soft_cap": (1e-3, 30), "model.rope_base": (1.001, 1e12),
    "model.rope_scaling": ({"kind": "linear", "factor": 4}, {"kind": "llama3"}),
    "model.norm_epsilon": (1e-12, 1.0), "model.compute": ("bfloat16",),
    "model.remat": (True, "dots"),
    "model.layers": ("scanned",), "model.attention": ("xla", "splash", "cudnn"),
    "budget": ({"tokens": 1}, {"bytes": 1}, {"flops": 1}, {"steps": 1}), "batch.rows": (1, 3),
    "batch.accumulate": (1, 2, 4), "mesh.data": (1, 2), "mesh.fsdp": (1, 2), "train.replicas": (2,),
    "optimizer.learning_rate": (1e-30, 10.0), "optimizer.schedule": ("wsd", "constant"),
    "optimizer.warmup_fraction": (0.0, 1.0), "optimizer.decay_fraction": (0.0, 1.0),
    "optimizer.beta1": (0.0, 0.999999), "optimizer.beta2": (0.0,),
    "optimizer.clip_norm": (None, 1e-9),
    "optimizer.weight_decay": (0.0, 1.0), "evaluation.every": (1, 2),
    "evaluation.bytes": (1, 10**9),
    "evaluation.rows": (1, 3), "evaluation.bins": (1, 7, 100), "checkpoints.every": (1, 100),
    "checkpoints.keep": (1,), "corpus.validation_fraction": (1e-9, 0.49), "corpus.group": ("g",),
    "corpus.markov": (
        {"bytes": 1000}, {"bytes": 30_000, "words": 2, "successors": 1, "letters": 2},
        {"bytes": 30_000, "zipf": 10.0}, {"bytes": 20_000, "mean_document_words": 1.5},
    ),
    "temperature": (
        {"kind": "linear"}, {"kind": "global"}, {"kind": "vector"}, {"kind": "position"},
        {"kind": "matrix"}, {"kind": "low_rank_matrix", "rank": 2},
    ),
    "loss": ("focal", {"kind": "brier"}, [{"kind": "cross_entropy"}]),
}  # fmt: skip
"""Values that are allowed by themselves, if they are not at odds with another."""
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
    wrong = ["valid"]
    if rng.random() < 0.75:
        wrong = ["value"] * 3 + ["unknown", "line", "override", "odd override"]
    for nth in range(rng.choice([1, 2, 3, 4])):
        way = rng.choice(wrong if nth == 0 or rng.random() < 0.3 else ["valid"])
        if way == "valid":
            key = rng.choice(list(VALID))
            value = rng.choice(VALID[key])
            if rng.random() < 0.5:
                _put(tree, tuple(key.split(".")), value)
            else:
                overrides.append(f"{key}={_plain(value)}")
            said.append(f"{key} = {value!r}")
        elif way == "value":
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
    if text is not None and (not text.startswith("\n") or "budget" in text):
        trained = (
            False  # a file of that text alone may leave every default, whose run takes minutes
        )
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
    corpus = tree.get("corpus")
    if isinstance(corpus, dict) and corpus.get("name") not in ("markov", "files", "nonsense"):
        return not isinstance(corpus.get("name"), str)
    if corpus in ("kjv", "pydoc", "stdlib"):
        return False
    return all(_is_small(".".join(where), value) for where, value in _leaves(tree))


def _is_small(key: str, value: Any) -> bool:
    """Whether a value makes nothing large: one that is allowed here, or too large to be allowed."""
    if isinstance(value, dict) or value in VALID.get(key, ()):
        return True
    last = key.rpartition(".")[2]
    if isinstance(value, str) and last in CHEAP:
        return not value[:1].isdigit()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return value <= CHEAP.get(last, 10_000)


def _is_cheap_override(text: str) -> bool:
    key, _, value = text.partition("=")
    if key.startswith("corpus.name"):
        return not any(name in value for name in ("kjv", "pydoc", "stdlib"))
    known = VALID.get(key, ())
    if value in [_plain(each) for each in known]:
        return True
    section = key.partition(".")[0]
    large = ("budget", "context", "model", "tokenizer", "evaluation", "batch", "corpus")
    return section not in large or len(value) < 2 or not any(c.isdigit() for c in value)


def of(step: Step, place: Path, printed: str) -> Any:
    """Nothing is compared of a configuration."""
    return None
