"""A model that goes out and comes back is the same model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import tiny
from foreign import VOCAB, corpus, logits, random_model, texts, tokenizer_json, write_folder

from calibtrain.cli import main as cli
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.evaluation import train_run
from calibtrain.interchange import export_run, import_model
from calibtrain.interchange.tokenizer_files import tokenizer_files
from calibtrain.models import Params, build
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import load_params

pytest.importorskip("safetensors")

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tied": True},
    "untied": {"tied": False},
    "ours": {"embedding_scale": True, "tied": True},
    "qwen2": {"qkv_bias": True, "head_size": 6},
    "qwen3": {"qk_norm": True, "head_size": 12, "rope_base": 1e6},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 32}},
}


def loaded(run: Path) -> tuple[Any, Params, Tokenizer]:
    folder = RunFolder(run)
    tokenizer = folder.read_tokenizer()
    step, params = load_params(folder)
    assert step == 0
    return build(folder.read_config().model, tokenizer.vocab_size), params, tokenizer


def assert_equal(one: Params, other: Params) -> None:
    mine, theirs = (jax.tree_util.tree_leaves_with_path(tree) for tree in (one, other))
    assert [path for path, _ in mine] == [path for path, _ in theirs]
    for (path, a), (_, b) in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(path))


@pytest.mark.parametrize(
    "kind",
    [k if k in ("tied", "qwen3") else pytest.param(k, marks=pytest.mark.long) for k in KINDS],
)
def test_import_export_import_is_exact(kind: str, tmp_path: Path) -> None:
    network, params = random_model(**KINDS[kind])
    folder = write_folder(tmp_path / "folder", network, params)
    text = corpus(tmp_path)
    for turn in ("first", "second"):
        import_model(folder, tmp_path / turn, corpus=text, context=64)
        mine, got, tokenizer = loaded(tmp_path / turn)
        assert_equal(got, params)
        assert mine.config == network.config
        assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
        folder = tmp_path / f"{turn}-out"
        found = export_run(tmp_path / turn, folder)
        assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 512
        assert found["files"] == sorted(path.name for path in folder.iterdir())
    original = (tmp_path / "folder" / "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == original


def test_an_untied_model_that_scales_what_it_embeds_keeps_its_logits(tmp_path: Path) -> None:
    """The product is rounded when it is written, and may not be where it is computed: to 1e-5."""
    network, params = random_model(tied=False, embedding_scale=True)
    folder = write_folder(tmp_path / "folder", network, params)
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path))
    mine, got, _ = loaded(tmp_path / "run")
    tokens = np.random.default_rng(1).integers(0, VOCAB, (2, 40))
    want = logits(network, params, tokens)
    np.testing.assert_allclose(logits(mine, got, tokens), want, atol=1e-5)


@pytest.mark.long
def test_a_run_that_was_trained_here_comes_back(tmp_path: Path) -> None:
    """Parameters, tokens and logits to the bit."""
    config = tiny(
        model={"qk_norm": False},
        budget={"steps": 2},
        evaluation={"times": 1, "every": None},
    )
    train_run(config, tmp_path / "run")
    found = export_run(tmp_path / "run", tmp_path / "out")
    assert (found["notes"], found["step"]) == ([], 2)
    import_model(tmp_path / "out", tmp_path / "back", corpus="markov")
    mine, got, tokenizer = loaded(tmp_path / "back")
    own = RunFolder(tmp_path / "run")
    _, params = load_params(own)
    assert_equal(got, params)
    text = "some words   of\n\nthe markov source, naïve 你好 123"
    ids = own.read_tokenizer().encode(text)
    np.testing.assert_array_equal(tokenizer.encode(text), ids)
    network, tokens = build(config.model, tokenizer.vocab_size), ids[None, :32]
    np.testing.assert_array_equal(logits(mine, got, tokens), logits(network, params, tokens))


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte"])
def test_the_written_tokenizer_gives_our_tokens(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Theirs

    size = 258 if kind == "byte" else 300
    config = tiny(tokenizer={"kind": kind, "vocab_size": size}).tokenizer
    own = train_tokenizer(config, texts(), corpus_hash="", corpus_name="texts")
    files, notes = tokenizer_files(own, 64)
    assert notes == []
    theirs = Theirs.from_str(files["tokenizer.json"].decode())
    for text in (
        *texts(),
        "  two  spaces\n\n\tand 123 \x00 \U0001f469\u200d\U0001f52c",
        "<s>a</s>",
    ):
        want = own.encode(text).tolist()
        if "<s>" not in text:  # which theirs takes for a special token
            assert theirs.encode(text, add_special_tokens=False).ids == want
        assert own.decode(want) == text.encode()
    named = json.loads(files["tokenizer_config.json"])
    assert theirs.token_to_id(named["eos_token"]) == own.eos_id
    assert theirs.token_to_id(named["bos_token"]) == own.bos_id


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Status, output and messages of a command, run in this process."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["calibtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        found = capsys.readouterr()
        return end.value.code, found.out, found.err

    return run


@pytest.mark.long
def test_every_command_takes_an_imported_run_and_train_refuses_it(
    said: Say, tmp_path: Path
) -> None:
    network, params = random_model()
    folder = write_folder(tmp_path / "folder", network, params)
    run = tmp_path / "run"
    status, out, err = said(
        "import", folder, "--run", run, "--corpus", corpus(tmp_path), "--context", "64", "--json"
    )
    assert status == 0, err
    imported, summary = err, json.loads(out)
    assert (summary["status"], summary["step"]) == ("imported", 0)
    assert summary == RunFolder(run).require_summary().document()
    assert summary["imported"]["sha256"].keys() >= {"model.safetensors", "tokenizer.json"}
    sizes = [f.stat().st_size for f in (run / "checkpoints").rglob("*") if f.is_file()]
    assert sum(sizes) < 1.5 * 4 * summary["parameters"]["total"] + 100_000  # no moments in it
    status, out, err = said("evaluate", run, "--json")
    assert status == 0, err
    assert abs(json.loads(out)["nll"] - np.log(VOCAB)) < 1.5  # of a model that knows nothing
    status, out, err = said("evaluate", run, "--events", "byte", "--bytes", "200", "--json")
    assert status == 0, err
    status, out, err = said("report", run)
    assert status == 0, err
    page = (run / "report.html").read_text()
    assert "imported, not trained here" in page
    assert f"SHA-256 {summary['imported']['sha256']['model.safetensors'][:16]}" in page
    before = {
        path: path.read_bytes()
        for path in run.rglob("*")
        if path.name != ".lock" and path.is_file()
    }
    status, out, err = said("train", run / "config.yaml", "--run", run)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "imported model" in err
    status, out, err = said("train", run / "config.yaml", "--run", tmp_path / "other")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "tokenizer.kind" in err
    assert not (tmp_path / "other").exists()
    assert {path: path.read_bytes() for path in before} == before
    assert all(f"note: {note}" in imported for note in summary["imported"]["notes"])
    status, out, err = said("export", run, tmp_path / "out", "--json")
    assert json.loads(out)["architecture"] == "LlamaForCausalLM"
    status, out, err = said("export", run, tmp_path / "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is there already" in err


def test_a_model_with_more_rows_than_pieces_keeps_them(tmp_path: Path) -> None:
    """Rows behind the tokenizer's pad the table; the model still spends probability on them."""
    network, params = random_model(vocab=VOCAB + 16)
    folder = write_folder(tmp_path / "folder", network, params)
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path))
    mine, got, tokenizer = loaded(tmp_path / "run")
    assert mine.vocab_size == tokenizer.vocab_size == VOCAB + 16
    assert not any(tokenizer.piece_bytes[VOCAB:])
    assert_equal(got, params)


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    network, params = random_model()
    folder = write_folder(tmp_path / "folder", network, params, tokenizer=tokenizer_json())
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        index |= dict.fromkeys(names, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path))
    assert_equal(loaded(tmp_path / "run")[1], params)
