"""What is no model that can be had is refused in one line that names it, and nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import call, tiny
from foreign import VOCAB, corpus, random_model, tokenizer_json, write_folder

from calibtrain.config import ModelConfig
from calibtrain.data.corpora.named import Columns
from calibtrain.errors import UserError
from calibtrain.interchange import export_run, import_model
from calibtrain.interchange.exported import exported_tensors
from calibtrain.models.huggingface.architecture import write_architecture
from calibtrain.runs.folder import RunFolder

pytest.importorskip("safetensors")

Q = "model.layers.1.self_attn.q_proj.weight"


def refused(folder: Path, tmp_path: Path, **options: Any) -> str:
    """The message of an import, after which nothing is there."""
    text = corpus(tmp_path)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(UserError) as error:
        import_model(folder, tmp_path / "run", corpus=text, **options)
    assert {*tmp_path.rglob("*")} - {tmp_path / "cache"} == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt_neox"}, ["model_type", "gpt_neox", "llama, mistral, qwen2, qwen3"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["LlamaForSequence"]),
        ({"attention_bias": True}, ["attention_bias"]),
        ({"mlp_bias": True}, ["mlp_bias"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["yarn", "linear, llama3"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, ["low_freq_factor"]),
        ({"model_type": "mistral", "architectures": None}, ["sliding_window"]),
        (
            {"model_type": "qwen2", "architectures": None, "use_sliding_window": True},
            ["sliding_window"],
        ),
        ({"layer_types": ["full_attention", "chunked"]}, ["layer_types", "chunked"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"auto_map": {"AutoModel": "x.py"}}, ["auto_map"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ({"rope_scaling": "yarn"}, ["rope_scaling", '"yarn"']),
        ({"rms_norm_eps": "small"}, ["rms_norm_eps", "small"]),
        ({"hidden_size": "absent"}, ["hidden_size", "missing"]),
        ({"hidden_size": -3}, ["hidden_size", "-3"]),
        ({"num_attention_heads": 3}, ["heads"]),
        ({"eos_token_id": 77}, ["77", "--end", "<|im_end|>"]),
        ({"eos_token_id": VOCAB + 3}, [str(VOCAB + 3), "vocabulary"]),
        ({"eos_token_id": "absent"}, ["--end", "<|im_end|>"]),
        ({"intermediate_size": 48}, ["gate_proj", "[40, 32]", "[48, 32]"]),
        ({"num_hidden_layers": 1}, ["model.layers.1."]),
        ({"num_hidden_layers": 3}, ["lacks", "model.layers.2."]),
        ({"vocab_size": 300}, ["300", "384 rows"]),
        ({"vocab_size": 10**13}, ["vocab_size", "384 rows"]),
        ({"model_type": ["llama"]}, ['model_type ["llama"]', "llama, mistral"]),
        ({"architectures": 3}, ["architectures is 3", "list of names"]),
        ({"layer_types": 3}, ["layer_types is 3", "list of names"]),
        ({"head_dim": {"of": 8}}, ["head_dim", '{"of": 8}']),
    ],
)
def test_a_configuration_that_asks_for_something_else(
    changes: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "folder", *random_model(), changes=changes)
    message = refused(folder, tmp_path)
    for word in words:
        assert word in message, message


def edited(edit: Callable[[dict[str, np.ndarray]], Any]) -> dict[str, np.ndarray]:
    network, params = random_model()
    tensors = exported_tensors(network.config, params)
    edit(tensors)
    return tensors


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(Q), ["lacks", Q]),
        (lambda t: t.update(spare=np.zeros(3, np.float32)), ["beyond", "spare"]),
        (lambda t: t.update({Q: np.zeros((2, 2), np.float32)}), [Q, "[2, 2]", "[32, 32]"]),
        (lambda t: t[Q].__setitem__((3, 4), np.nan), [Q, "1 values", "finite"]),
        (lambda t: t[Q].__setitem__((3, 4), np.inf), [Q, "finite"]),
        (lambda t: t.update({Q: np.zeros((32, 32), np.int32)}), [Q, "I32", "F32, F16, BF16"]),
        (
            lambda t: t.update({"lm_head.weight": np.ones((VOCAB, 32), np.float32)}),
            ["lm_head.weight", "tied"],
        ),
    ],
)
def test_weights_that_do_not_fit(edit: Any, words: list[str], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model(), tensors=edited(edit))
    message = refused(folder, tmp_path)
    for word in words:
        assert word in message, message


def test_a_file_cut_short_and_one_that_is_none(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model())
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for part in (whole[:-1], whole[:300], whole[:5], b"", b"\xff" * 64):
        path.write_bytes(part)
        assert "cut short" in refused(folder, tmp_path)
    path.write_bytes(whole)
    for name in ("config.json", "tokenizer.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        assert name in refused(folder, tmp_path)
        (folder / name).write_bytes(content)


def test_pickled_weights_are_named_and_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model())
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    message = refused(folder, tmp_path)
    assert "pytorch_model.bin" in message
    assert "pickled" in message
    assert "GGUF" in refused(folder / "pytorch_model.bin", tmp_path)


def test_an_index_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model())
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {Q: "../outside.safetensors"}}))
    assert "'../outside.safetensors'" in refused(folder, tmp_path)
    path.write_text(json.dumps({"weight_map": {Q: "absent.safetensors"}}))
    assert "absent.safetensors" in refused(folder, tmp_path)


def test_a_context_beyond_the_model_and_a_run_that_is_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model())
    assert "at most 512" in refused(folder, tmp_path, context=513)
    import_model(folder, tmp_path / "there", corpus=corpus(tmp_path), context=32)
    with pytest.raises(UserError, match="holds a run already"):
        import_model(folder, tmp_path / "there", corpus=corpus(tmp_path))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"normalizer": {"type": "Lowercase"}}, ["Lowercase"]),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}}, ["NFKC"]),
        ({"pre_tokenizer": {"type": "Whitespace"}}, ["no byte-level BPE", "Whitespace"]),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
            ["add_prefix_space"],
        ),
        ({"model": {"type": "WordPiece", "vocab": {}}}, ["WordPiece"]),
        (
            {"model": {"type": "BPE", "vocab": {"a": 3}, "merges": []}},
            ["no piece for 207 of the 208 bytes"],
        ),
        ({"pre_tokenizer": "ByteLevel"}, ['pre_tokenizer holds "ByteLevel"', "pretokenizers"]),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}}, ['"pretokenizers": 3']),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": ["x"]}}, ['holds "x"']),
        ({"normalizer": "NFC"}, ['normalizer holds "NFC"', "normalizers"]),
        ({"normalizer": {"type": "Sequence"}}, ["normalizer holds", "Sequence"]),
    ],
)
def test_a_tokenizer_that_loses_text(parts: Any, words: list[str], tmp_path: Path) -> None:
    tokenizer = tokenizer_json(**parts)
    folder = write_folder(tmp_path / "folder", *random_model(), tokenizer=tokenizer)
    message = refused(folder, tmp_path)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"model": 3}',
        b'{"model": {"type": "BPE", "vocab": ["a"], "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 1}]}',
    ],
)
def test_what_is_no_tokenizer(content: bytes, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", *random_model(), tokenizer=content)
    assert "tokenizer.json is not a tokenizer" in refused(folder, tmp_path)


def test_sentencepiece_that_puts_a_space_before_a_text_is_refused(tmp_path: Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words to learn from"] * 20),
        model_writer=model,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=4,
    )
    folder = write_folder(tmp_path / "folder", *random_model())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    assert "not lossless" in refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "lstm"}, "lstm"),
        ({"mlp": "gelu"}, "gelu"),
        ({"logit_soft_cap": 30.0}, "logit_soft_cap"),
        ({"qkv_bias": True}, "qk_norm with model.qkv_bias"),
    ],
)
def test_what_an_export_cannot_say_is_refused(settings: dict[str, Any], words: str) -> None:
    model = ModelConfig.model_validate({"width": 16, "heads": 2, "depth": 1, **settings})
    with pytest.raises(UserError, match=words):
        write_architecture(model, 300, 64, bos=1, eos=2)


def test_a_run_with_a_head_of_its_own_is_not_exported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunFolder(run).create(tiny(temperature={"kind": "linear"}), lambda inside: None)
    with pytest.raises(UserError, match=r"run: was trained with .*\(temperature.kind: linear\)"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_one_line_and_exits_with_2(tmp_path: Path) -> None:
    done = call("import", tmp_path / "absent", "--run", tmp_path / "run", "--json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    done = call("export", tmp_path / "absent", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert [*tmp_path.iterdir()] == []


def test_the_fields_of_a_corpus_are_named_by_options(tmp_path: Path) -> None:
    """The message says which, and with them the import is made."""
    folder = write_folder(tmp_path / "model", *random_model())
    lines = [{"body": f"the text number {n}", "of": "ab"[n % 2]} for n in range(40)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    name, run = f"files:{path}", tmp_path / "run"
    with pytest.raises(UserError, match=r"has no field 'text'; .* body, of \(set --field\)"):
        import_model(folder, run, corpus=name)
    with pytest.raises(UserError, match=r"--field: 'body' is not allowed with --corpus kjv"):
        import_model(folder, run, corpus="kjv", columns=Columns("body"))
    with pytest.raises(UserError, match=r"--group: 'of' is not allowed with kjv"):
        import_model(folder, run, columns=Columns(group="of"))
    assert not run.exists()
    import_model(folder, run, corpus=name, columns=Columns("body", "of"))
    corpus = RunFolder(run).read_config().corpus
    assert (corpus.field, corpus.group) == ("body", "of")
