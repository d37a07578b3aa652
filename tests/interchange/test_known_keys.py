"""Every key of a model of others is used, refused, or noted, as its makers read it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from foreign import VOCAB, random_model, tokenizer_json, write_folder
from test_gguf import write

from calibtrain.errors import UserError
from calibtrain.interchange.pretrained import Pretrained, open_pretrained
from calibtrain.interchange.tokenizer_files import tokenizer_files
from calibtrain.models.huggingface.architecture import read_architecture, write_architecture

pytest.importorskip("safetensors")
pytest.importorskip("gguf")

DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"type": "linear", "factor": 4.0}
PLAIN = ("none", 1, 10_000)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def config(**changes: Any) -> dict[str, Any]:
    network, _ = random_model()
    tree = write_architecture(network.config, VOCAB, 512, bos=1, eos=2)
    tree = {key: tree[key] for key in tree if key not in ("rope_theta", "rope_scaling")}
    return {**tree, **changes}


def rope(**changes: Any) -> tuple[str, float, float, tuple[str, ...]]:
    """Kind, factor and base of what a config.json says, and the notes on it."""
    found = read_architecture(config(**changes), "config.json")
    scaling = found.model.rope_scaling
    return scaling.kind, scaling.factor, found.model.rope_base, found.notes


@pytest.mark.parametrize(
    ("changes", "kind", "factor", "base", "noted"),
    [
        ({}, "none", 1, 10_000, ""),
        ({"rope_theta": 7.0}, "none", 1, 7, ""),
        ({"rope_scaling": LINEAR, "rope_theta": 7.0}, "linear", 4, 7, ""),
        ({"rope_parameters": {**LINEAR, "rope_theta": 7.0}}, "linear", 4, 7, ""),
        # transformers 5 takes rope_scaling whole, and with it the base beside it
        ({"rope_parameters": DEFAULT, "rope_scaling": LINEAR}, "linear", 4, 10_000, "differ"),
        (
            {"rope_parameters": DEFAULT, "rope_scaling": LINEAR, "rope_theta": 7.0},
            *("linear", 4, 7, "differ"),
        ),
        (
            {"rope_parameters": LINEAR, "rope_scaling": {"type": "default"}},
            "none",
            1,
            1e4,
            "differ",
        ),
        ({"rope_parameters": LINEAR, "rope_scaling": None}, "linear", 4, 10_000, ""),
        ({"rope_parameters": LINEAR, "rope_scaling": {}}, "linear", 4, 10_000, ""),
        ({"rope_parameters": LINEAR, "rope_scaling": LINEAR}, "linear", 4, 10_000, ""),
        ({"rope_theta": 7.0, "rope_parameters": DEFAULT}, "none", 1, 500, "rope_theta is 7"),
        (
            {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
            "none",
            1,
            1e4,
            "not use factor",
        ),
        (
            {"rope_scaling": {**LINEAR, "original_max_position_embeddings": 8}},
            *("linear", 4, 10_000, "original_max_position_embeddings"),
        ),
        ({"rope_scaling": LLAMA3, "original_max_position_embeddings": 128}, "llama3", 8, 1e4, ""),
    ],
)
def test_rotary_positions_are_read_as_transformers_reads_them(
    changes: dict[str, Any], kind: str, factor: float, base: float, noted: str
) -> None:
    *found, notes = rope(**changes)
    assert found == [kind, factor, base]
    assert bool(notes) == bool(noted)
    assert noted in " ".join(notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2}},
            "rope_type .*and",
        ),
        ({"rope_scaling": {**LINEAR, "factor": "4"}}, 'factor is "4"; it must be a number'),
        ({"rope_scaling": {**LINEAR, "mrope_section": [4]}}, "mrope_section"),
        ({"rope_parameters": {"full_attention": LINEAR}}, "full_attention"),
        ({"rope_scaling": LLAMA3, "original_max_position_embeddings": 64}, "is 64 and"),
        ({"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_theta": None}, "rope_theta is null"),
        ({"attention_bias": True}, "attention_bias true"),
        ({"hidden_act": None}, "hidden_act is null"),
        ({"hidden_activation": "gelu_pytorch_tanh"}, "hidden_activation"),
        ({"tie_word_embeddings": "false"}, 'tie_word_embeddings is "false"'),
        ({"num_key_value_heads": 2.0}, "num_key_value_heads is 2.0"),
        ({"sliding_window": 128}, "sliding_window 128"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, num_hidden_layers is 2"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"logit_scale": 0.25}, "logit_scale"),
        ({"logits_scaling": 8.0}, "logits_scaling"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
        ({"attention_multiplier": 0.5}, "attention_multiplier"),
        ({"residual_multiplier": 0.22}, "residual_multiplier"),
        ({"num_experts": 4}, "num_experts"),
        ({"num_local_experts": 4, "num_experts_per_tok": 2}, "num_local_experts"),
        ({"qk_norm": True}, "qk_norm"),
        ({"use_qk_norm": 1}, "use_qk_norm"),
        ({"is_causal": False}, "is_causal"),
        ({"quantization": {"bits": 4}}, "quantization"),
        ({"alibi": True}, "alibi"),
        ({"an_unheard_of_logit_bias": 3}, "an_unheard_of_logit_bias 3"),
        ({"query_pre_attn_scalar": 256}, "query_pre_attn_scalar"),
    ],
)
def test_what_would_change_logits_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read_architecture(config(**changes), "config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"attn_logit_softcapping": None, "final_logit_softcapping": 0}, ""),
        ({"logit_scale": 1, "embedding_multiplier": 1.0, "residual_multiplier": 1}, ""),
        ({"attention_multiplier": 8**-0.5, "query_pre_attn_scalar": 8}, ""),
        ({"hidden_act": "swish", "mlp_bias": None, "num_experts": 0}, ""),
        ({"sliding_window": 512, "use_cache": False, "pretraining_tp": 2}, ""),
        ({"partial_rotary_factor": 1.0, "pad_token_id": -1, "attention_dropout": 0.1}, ""),
        ({"temperature": 0.6, "transformers_version": "5.0", "is_llama_config": True}, ""),
        ({"use_mrope": False}, ""),
        ({"colour": "green"}, "config.json has keys that are not known: colour"),
        ({"an_unheard_of_logit_bias": None}, "an_unheard_of_logit_bias"),
    ],
)
def test_what_changes_nothing_is_let_through(changes: dict[str, Any], noted: str) -> None:
    notes = " ".join(read_architecture(config(**changes), "config.json").notes)
    assert notes == noted or (noted and noted in notes)


def opened(folder: Path, **files: Any) -> Pretrained:
    """A folder with further files; `config_json` changes its config.json."""
    write_folder(folder, *random_model(), changes=files.pop("config_json", None))
    for name, tree in files.items():
        path = folder / f"{name}.json"
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return open_pretrained(folder)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config_json": {"bos_token_id": VOCAB}}, f"bos_token_id is {VOCAB}.*in the vocabulary"),
        ({"config_json": {"bos_token_id": -1}}, "bos_token_id is -1"),
        ({"config_json": {"bos_token_id": "1"}}, 'bos_token_id is "1"'),
        ({"config_json": {"eos_token_id": 2.0}}, "eos_token_id is 2.0"),
        ({"config_json": {"eos_token_id": True}}, "eos_token_id is true"),
        ({"config_json": {"eos_token_id": [2, 9999]}}, "eos_token_id is"),
        ({"config_json": {"eos_token_id": []}}, "eos_token_id is"),
        ({"config_json": {"bos_token_id": [0, 1]}}, "bos_token_id is .*must be one id"),
        ({"generation_config": {"eos_token_id": [2, 9999]}}, "generation_config.*eos_token_id"),
        ({"tokenizer_config": {"eos_token": 3}}, "eos_token is 3"),
        ({"tokenizer_config": {"add_prefix_space": True}}, "add_prefix_space true"),
        ({"tokenizer_config": {"do_lower_case": True}}, "do_lower_case"),
        ({"tokenizer_config": {"auto_map": {"AutoTokenizer": "x"}}}, "auto_map"),
        ({"tokenizer_config": {"strip_accents_first": 1}}, "strip_accents_first"),
        ({"tokenizer_config": {"added_tokens_decoder": [3]}}, "added_tokens_decoder must hold"),
        (
            {"tokenizer_config": '{"eos_token": "a", "eos_token": "b"}'},
            "eos_token' is given",
        ),
        (
            {
                "tokenizer_config": {
                    "added_tokens_decoder": {"384": {"content": "a b", "special": False}}
                }
            },
            "'?\"?a b.*is text, and tokenizer.json lacks it",
        ),
        (
            {
                "tokenizer_config": {
                    "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": False}}
                }
            },
            "special is false, in tokenizer.json true",
        ),
        ({"added_tokens": {"x": "3"}}, "added_tokens.json"),
    ],
)
def test_side_files_are_used_or_refused(files: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        opened(tmp_path / "folder", **files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "noted"),
    [
        ({"generation_config": {"temperature": 0.6, "top_k": 50}}, "temperature 0.6"),
        ({"tokenizer_config": {"colour": "green"}}, "tokenizer_config.json .*colour"),
        ({"tokenizer_config": {"vocab_size": 300, "trim_offsets": True}}, ""),
        ({"tokenizer_config": {"eos_token": "<|endoftext|>"}}, "has eos_token .*2, is used"),
        (
            {
                "config_json": {"eos_token_id": [0, 2]},
                "tokenizer_config": {"eos_token": "<|im_end|>"},
            },
            "",
        ),
    ],
)
def test_side_files_are_noted(files: dict[str, Any], noted: str, tmp_path: Path) -> None:
    found = opened(tmp_path / "folder", **files)
    notes = [note for note in found.notes if "rows that its tokenizer" not in note]
    assert bool(notes) == bool(noted)
    assert re.search(noted, " ".join(notes))
    assert found.tokenizer.tokenizer.eos_id == 2


def test_a_word_that_a_configuration_calls_a_mark_is_not_text(tmp_path: Path) -> None:
    tree = json.loads(tokenizer_json())
    flags = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), False)
    first = len(tree["model"]["vocab"])
    tree["added_tokens"].append({"id": first, "content": "[PAD]", **flags})
    folder = write_folder(tmp_path / "f", *random_model(), tokenizer=json.dumps(tree).encode())
    assert open_pretrained(folder).tokenizer.tokenizer.piece_bytes[first] == b"[PAD]"
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    found = open_pretrained(folder)
    assert found.tokenizer.tokenizer.piece_bytes[first] == b""
    assert any("[PAD]" in note for note in found.notes)
    files, notes = tokenizer_files(found.tokenizer.tokenizer, 64)
    assert json.loads(files["tokenizer_config.json"])["additional_special_tokens"] == ["[PAD]"]
    assert len(notes) == 1
    (folder / "tokenizer_config.json").write_bytes(files["tokenizer_config.json"])
    assert open_pretrained(folder).tokenizer.tokenizer.hash == found.tokenizer.tokenizer.hash


@pytest.mark.parametrize(
    ("metadata", "kind", "factor"),
    [
        ({"rope.scaling.factor": 4.0}, "linear", 4),  # llama.cpp: linear without a type
        ({"rope.scale_linear": 4.0}, "linear", 4),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, "linear", 2),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, "none", 1),
        ({"rope.scaling.factor": 0.0}, "none", 1),
        ({"rope.scaling.type": "linear"}, "none", 1),
        ({"rope.scaling.finetuned": 1, "rope.scaling.original_context_length": 64}, "none", 1),
        ({"attention.scale": 8**-0.5, "logit_scale": 1.0, "expert_count": 0}, "none", 1),
    ],
)
def test_a_gguf_file_scales_as_llama_cpp_does(
    metadata: dict[str, Any], kind: str, factor: float, tmp_path: Path
) -> None:
    found = open_pretrained(write(tmp_path / "m.gguf", *random_model(), **metadata))
    scaling = found.architecture.model.rope_scaling
    assert (scaling.kind, scaling.factor) == (kind, factor)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"rope.scaling.factor": "4"}, "rope.scaling.factor is 4; it must be a finite number"),
        ({"rope.scaling.attn_factor": 1.5}, "attn_factor"),
        ({"attention.scale": 0.5}, "attention.scale"),
        ({"attention.key_length_mla": 8}, "key_length_mla"),
        ({"attention.causal": 0}, "attention.causal"),
        ({"logit_scale": 0.5}, "logit_scale"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"embedding_scale": 12.0}, "embedding_scale"),
        ({"unheard_of": 3}, "llama.unheard_of 3"),
        ({"vocab_size": 300}, "llama.vocab_size is 300, but token_embd.weight has 384 rows"),
        ({"block_count": "two"}, "block_count is two; it must be a whole number"),
    ],
)
def test_gguf_metadata_that_would_change_logits_are_refused(
    metadata: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.gguf", *random_model(), **metadata)
    with pytest.raises(UserError, match=words) as error:
        open_pretrained(path)
    assert "\n" not in str(error.value)
