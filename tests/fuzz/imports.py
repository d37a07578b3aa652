"""Models of others that are damaged: refused, noted, or read as what they were.

A changed weight or a changed but allowed value of `config.json` is another model, of which no file
says that it was meant otherwise; figures are compared only where damage can be told.
"""

import json
import random
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from fuzz import children, runs
from fuzz.damage import (
    add_file,
    altered,
    cut,
    damage_file,
    empty,
    flip,
    into_folder,
    lengthen,
    remove,
)
from fuzz.verdict import Case, Step

COUNT = 100
IMPORT = ("--run", "run", "--corpus", "files:texts.jsonl", "--json")
EVALUATE = runs.EVALUATE
UNHEARD = {
    "attention_multiplier": 0.5, "logits_scaling": 8.0, "residual_multiplier": 0.2,
    "embedding_multiplier": 12.0, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    "query_pre_attn_scalar": 256, "sliding_window_pattern": 6, "num_experts": 8,
    "num_local_experts": 8, "rotary_pct": 0.25, "alibi": True, "parallel_residual": True,
    "clip_qkv": 8.0, "hidden_activation": "gelu", "norm_type": "layer", "use_qk_norm": True,
    "logit_scale": 0.0625, "no_rope_layers": [0], "attn_temperature_tuning": True,
}  # fmt: skip
"""Keys of `config.json` that change logits in other models: used, refused or noted by name."""
UNHEARD_GGUF = (
    "logit_scale", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias",
    "attn_logit_softcapping", "final_logit_softcapping", "rope.scaling.attn_factor",
    "rope.scaling.factor", "expert_used_count", "attention.sliding_window", "residual_scale",
    "embedding_scale", "attention.causal", "use_parallel_residual", "rope.scaling.original_length",
)  # fmt: skip
ROPE = (
    ("rope_scaling", {"rope_type": "linear", "factor": 4.0}),
    ("rope_scaling", {"type": "linear", "factor": 4.0}),
    ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}),
    ("rope_scaling", {"factor": 4.0}),
    ("rope_parameters", {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    ("rope_parameters", {"rope_type": "default", "rope_theta": 123.0}),
    ("rope_parameters", {"full_attention": {"rope_type": "linear", "factor": 4.0}}),
    ("partial_rotary_factor", 0.5), ("rope_theta", 77.0), ("rms_norm_eps", 0.5),
)  # fmt: skip
"""What changes logits and is known: the figures must change, or it is refused or noted."""


def prepare(base: Path, compiled: Path) -> dict[str, Any]:
    """A Hugging Face folder and a GGUF file of random models, and what is said of them."""
    place = base / "whole"
    place.mkdir(parents=True)
    children.reading(lambda: _write(place), place)
    wanted = {}
    for name in ("hf", "model.gguf"):
        found = []
        for again in ("", "-again"):
            copy = base / f"{name}{again}"
            shutil.copytree(place, copy)
            runs.succeed(copy, ("import", name, *IMPORT), compiled)
            printed = runs.succeed(copy, EVALUATE, compiled)
            found.append(runs.steady(json.loads(printed)))
        if found[0] != found[1]:
            raise RuntimeError(f"{name}: the undamaged model gives two results")
        wanted[name] = found[0]
    return wanted


def _write(place: Path) -> None:
    """The models and a text. Needs JAX."""
    sys.path.append(str(Path(__file__).parents[1] / "interchange"))
    import foreign
    import test_gguf

    network, params = foreign.random_model()
    foreign.write_folder(place / "hf", network, params)
    test_gguf.write(place / "model.gguf", network, params)
    foreign.corpus(place)


def make(number: int, rng: random.Random, base: Path, place: Path) -> Case:
    """Copy a model and damage it."""
    shutil.copytree(base / "whole", place)
    way = rng.choice(WAYS)
    model, said, told, names, must = way(place, rng)
    changes = way is rope or "rope.scaling.factor" in said
    imports = Step(("import", model, *IMPORT))
    evaluates = Step(EVALUATE, model if told or changes else None)
    return Case(f"{model}: {said}", (imports, evaluates), tuple(names), must, changes)


Made = tuple[str, str, bool, list[str], bool]
"""Model, what was done, whether figures tell, names of which a note holds one, whether it must."""


def broken_file(place: Path, rng: random.Random) -> Made:
    """A file of the folder damaged so that it can be told: cut, emptied, removed, replaced."""
    path = rng.choice(sorted((place / "hf").iterdir()))
    way = rng.choice([cut, empty, remove, into_folder])
    return "hf", f"{path.name} {way(path, rng)}", True, [path.name], False


def any_damage(place: Path, rng: random.Random) -> Made:
    """Any damage to the folder or a file of it, which may make another model."""
    path = rng.choice([place / "hf", *sorted((place / "hf").iterdir())])
    said = add_file(path, rng) if path.is_dir() else damage_file(path, rng)
    return "hf", f"{path.name} {said}", False, [], False


def changed_json(place: Path, rng: random.Random) -> Made:
    """A key of a JSON file changed in some way."""
    path = place / "hf" / rng.choice(["config.json", "config.json", "tokenizer.json"])
    text, said = altered(json.loads(path.read_text()), rng)
    path.write_text(text)
    return "hf", f"{path.name} {said}", False, [], False


def unheard_key(place: Path, rng: random.Random) -> Made:
    """A key of another architecture, which changes its logits."""
    key = rng.choice(list(UNHEARD))
    _set(place / "hf" / "config.json", key, UNHEARD[key])
    return "hf", f"config.json {key} = {UNHEARD[key]}", True, [key], True


def twice(place: Path, rng: random.Random) -> Made:
    """A key of config.json or of the header of the weights that comes twice."""
    path = place / "hf" / "config.json"
    tree = json.loads(path.read_text())
    key = rng.choice(list(tree))
    text = json.dumps(tree)
    path.write_text(f"{{{json.dumps(key)}: {json.dumps(tree[key])}, {text[1:]}")
    return "hf", f"config.json {key} twice", True, [key], True


def token_out_of_range(place: Path, rng: random.Random) -> Made:
    """A beginning or end of text that is not a token."""
    key, value = rng.choice(["bos_token_id", "eos_token_id"]), rng.choice([384, 10**6, -1, 2**40])
    _set(place / "hf" / "config.json", key, value)
    return "hf", f"config.json {key} = {value}", True, [key], True


def rope(place: Path, rng: random.Random) -> Made:
    """What config.json says of positions and norms: figures that stay would mean it is ignored."""
    key, value = rng.choice(ROPE)
    if rng.random() < 0.3:
        _set(place / "hf" / "config.json", "rope_parameters", {"rope_type": "default"})
    _set(place / "hf" / "config.json", key, value)
    names = [key, "factor"] if value == {"factor": 4.0} else [key]  # of no type: not used, noted
    return "hf", f"config.json {key} = {value}", False, names, False


def weights_not_finite(place: Path, rng: random.Random) -> Made:
    """NaN or infinity among the weights."""
    path = place / "hf" / "model.safetensors"
    data = bytearray(path.read_bytes())
    (header,) = struct.unpack("<Q", data[:8])
    at = 8 + header + 4 * rng.randrange((len(data) - 8 - header) // 4)
    data[at : at + 4] = struct.pack("<f", rng.choice([float("nan"), float("inf"), float("-inf")]))
    path.write_bytes(data)
    return "hf", "a weight is not finite", True, [path.name], False


def weights_header(place: Path, rng: random.Random) -> Made:
    """The header of the safetensors file changed in some way."""
    path = place / "hf" / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text, said = altered(json.loads(data[8 : 8 + length]), rng)
    header = text.encode("utf-8", "surrogatepass")
    size = rng.choice([len(header)] * 6 + [0, 2**63, len(header) + 8])
    path.write_bytes(struct.pack("<Q", size) + header + data[8 + length :])
    return "hf", f"header of the weights: {said}, length {size}", True, [path.name], False


def gguf_file(place: Path, rng: random.Random) -> Made:
    """The file cut, emptied, lengthened or with bytes changed in its beginning."""
    path = place / "model.gguf"
    if rng.random() < 0.5:
        way = rng.choice([cut, cut, empty, into_folder])
        return path.name, way(path, rng), True, [path.name], False
    data = path.read_bytes()
    head = place / "head"
    head.write_bytes(data[: rng.choice([24, 200, 4000])])
    said = rng.choice([flip, flip, lengthen])(head, rng)
    path.write_bytes(head.read_bytes() + data[head.stat().st_size :])
    head.unlink()
    return path.name, f"beginning: {said}", False, [], False


def gguf_key(place: Path, rng: random.Random) -> Made:
    """A key of the metadata that changes logits in llama.cpp."""
    path, key = place / "model.gguf", "llama." + rng.choice(UNHEARD_GGUF)
    data = path.read_bytes()
    count = struct.unpack("<Q", data[16:24])[0]
    added = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<If", 6, 4.0)
    _gguf_with(path, data, count + 1, added)
    used = key == "llama.rope.scaling.factor"  # without a type it is linear, as in llama.cpp
    return path.name, f"{key} = 4.0", True, [key, key.removeprefix("llama.")], not used


def _gguf_with(path: Path, data: bytes, count: int, added: bytes) -> None:
    """The file with metadata added; the tensors' data stays aligned by a key that pads."""
    import gguf

    start = gguf.GGUFReader(path).data_offset
    pad = 32 - (len(added) % 32)
    name = b"general.description"
    filler = struct.pack("<Q", len(name)) + name + struct.pack("<I", 8)
    room = (pad - len(filler) - 8) % 32
    filler += struct.pack("<Q", room) + b" " * room
    inserted = added + filler
    assert len(inserted) % 32 == 0
    assert start % 32 == 0
    head = data[:16] + struct.pack("<Q", count + 1)
    path.write_bytes(head + inserted + data[24:])


def _set(path: Path, key: str, value: Any) -> None:
    tree = json.loads(path.read_text())
    tree[key] = value
    path.write_text(json.dumps(tree))


def of(step: Step, place: Path, printed: str) -> Any:
    """What is printed of the model, without times."""
    return runs.steady(json.loads(printed))


WAYS = (
    broken_file, any_damage, any_damage, changed_json, changed_json, unheard_key, twice, rope,
    token_out_of_range, weights_not_finite, weights_header, weights_header, gguf_file, gguf_file,
    gguf_key,
)  # fmt: skip
