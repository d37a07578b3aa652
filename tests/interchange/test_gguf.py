"""GGUF files: llama.cpp's order of rows undone, quantisation undone, the rest refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import SPECIALS, corpus, random_model, tokenizer_json
from test_round_trip import assert_equal, loaded

from calibtrain.data.tokenizers.byte_level_bpe import ByteLevelBPE
from calibtrain.data.tokenizers.gguf_tokenizer import tokenizer_json as from_metadata
from calibtrain.errors import UserError
from calibtrain.interchange import import_model
from calibtrain.models import Network, Params
from calibtrain.models.huggingface.names import is_turned, names_of, parameter_paths

gguf = pytest.importorskip("gguf")


def in_pairs(weights: np.ndarray, heads: int) -> np.ndarray:
    """As convert_hf_to_gguf.py of llama.cpp (LlamaModel.permute) writes queries and keys."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def write(
    path: Path,
    network: Network,
    params: Params,
    arch: str = "llama",
    *,
    quantisation: Any = None,
    tensors: dict[str, np.ndarray] | None = None,
    **metadata: Any,
) -> Path:
    """A GGUF file as llama.cpp's converter would write it."""
    config = network.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.depth)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.size_of_head)
    writer.add_value_length(config.size_of_head)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_context_length(512)
    tree = json.loads(tokenizer_json())
    vocabulary = sorted(tree["model"]["vocab"], key=tree["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(metadata.pop("pre", "gpt-2"))
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in tree["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in metadata.items():
        writer.kv_data[0].pop(f"{arch}.{key}", None)  # set above
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
        add[type(value)](f"{arch}.{key}", value)
    for where, leaf in parameter_paths(params):
        name = names_of(where).gguf
        array = np.ascontiguousarray(leaf.T if is_turned(where) else leaf)
        if arch == "llama" and name.split(".")[-2] in ("attn_q", "attn_k"):
            heads = config.heads if "attn_q" in name else config.kv_heads
            array = np.ascontiguousarray(in_pairs(array, heads))
        if quantisation is not None and array.ndim == 2:
            data = gguf.quants.quantize(array, quantisation)
            writer.add_tensor(name, data, raw_dtype=quantisation)
        else:
            writer.add_tensor(name, array)
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "settings"),
    [
        ("llama", {}),
        ("llama", {"tied": False, "norm_epsilon": 1e-5, "rope_base": 100_000.0}),
        ("qwen2", {"qkv_bias": True}),
        ("qwen3", {"qk_norm": True, "head_size": 12}),
    ],
)
def test_the_very_parameters_come_back(arch: str, settings: dict[str, Any], tmp_path: Path) -> None:
    network, params = random_model(**settings)
    path = write(tmp_path / "model.gguf", network, params, arch)
    summary = import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    mine, got, tokenizer = loaded(tmp_path / "run")
    assert mine.config == network.config
    assert_equal(got, params)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert summary["imported"]["quantisation"].keys() == {"F32"}
    text = "And the earth 123 <|im_end|> naïve\n\n"
    own = ByteLevelBPE(tokenizer_json()).encode([text])[0]
    assert tokenizer.encode(text).tolist() == own.tolist()


def test_quantised_weights_are_near_the_exact_ones(tmp_path: Path) -> None:
    """Q8_0 has 127 steps to a block's largest, a float16: half a step off, and its rounding."""
    network, params = random_model(feed_forward_width=64)
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write(tmp_path / "model.gguf", network, params, quantisation=kind)
    import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    _, got, _ = loaded(tmp_path / "run")
    mine, theirs = parameter_paths(params), parameter_paths(got)
    for (where, exact), (_, near) in zip(mine, theirs, strict=True):
        largest = np.abs(exact).max()
        assert np.abs(exact - near).max() <= largest * (0.5 / 127 + 2.0**-11), where


def test_long_contexts_of_llama_3_are_recognised(tmp_path: Path) -> None:
    scaling = {"kind": "llama3", "factor": 8.0, "original_context": 8192}
    network, params = random_model(rope_base=500_000.0, rope_scaling=scaling, width=64)
    size = network.config.size_of_head
    frequency = 500_000.0 ** (-np.arange(0, size, 2) / size)
    # transformers' _compute_llama3_parameters, as a factor on each frequency
    waves = 2 * np.pi / frequency
    smooth = (8192 / waves - 1) / (4 - 1)
    between = (1 - smooth) / 8 + smooth
    kept = np.where(waves > 8192, 1 / 8, np.where(waves < 8192 / 4, 1.0, between))
    factors = {"rope_freqs.weight": (1 / kept).astype(np.float32)}
    path = write(tmp_path / "model.gguf", network, params, tensors=factors)
    import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    assert loaded(tmp_path / "run")[0].config == network.config
    factors["rope_freqs.weight"][:] = 3
    path = write(tmp_path / "other.gguf", network, params, tensors=factors)
    with pytest.raises(UserError, match=r"rope_freqs\.weight"):
        import_model(path, tmp_path / "other", corpus=corpus(tmp_path))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"arch": "gemma"}, "'gemma' is not known; allowed: llama, qwen2, qwen3"),
        ({"pre": "unheard-of"}, "'unheard-of' is not known; allowed: gpt-2, smollm"),
        ({"rope.scaling.type": "yarn"}, "'yarn' is not known; allowed: none, linear"),
        ({"attention.sliding_window": 128}, "sliding_window"),
        ({"expert_count": 8}, "expert_count"),
        ({"rope.dimension_count": 4}, "dimension_count"),
    ],
)
def test_what_is_not_known_is_refused(metadata: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", *random_model(), **metadata)
    with pytest.raises(UserError, match=words):
        import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", *random_model())
    whole = path.read_bytes()
    for part in (len(whole) - 1, len(whole) // 2, 200, 30):
        path.write_bytes(whole[:part])
        with pytest.raises(UserError, match=r"model\.gguf.*cut short"):
            import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    assert not (tmp_path / "run").exists()


def test_digits_are_split_as_the_models_own_files_say() -> None:
    """SmolLM2 splits every digit off, Qwen 2 too, Llama 3 by up to three, GPT-2 not at all."""
    from tokenizers import Tokenizer

    tree = json.loads(tokenizer_json())
    tokens = sorted(tree["model"]["vocab"], key=tree["model"]["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in tree["model"]["merges"]],
    }
    want = {
        "smollm": ["1", "2", "3", "4", "5"],
        "qwen2": ["1", "2", "3", "4", "5"],
        "llama-bpe": ["123", "45"],
        "gpt-2": ["12345"],
    }
    for name, parts in want.items():
        content = from_metadata({**metadata, "tokenizer.ggml.pre": name}, "x")
        cut = Tokenizer.from_str(content.decode()).pre_tokenizer
        assert [piece for piece, _ in cut.pre_tokenize_str("12345")] == parts
    with pytest.raises(UserError, match="'llama'"):
        from_metadata({**metadata, "tokenizer.ggml.model": "llama"}, "x")
