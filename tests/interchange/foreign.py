"""Small models of others, made on the spot: tokenizers, Hugging Face folders, GGUF files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.interchange.exported import exported_tensors
from calibtrain.models import Network, Params, build
from calibtrain.models.huggingface.architecture import write_architecture

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Their ids are 0, 1 and 2."""
VOCAB = 384
WORDS = "In the beginning God created the heaven and the earth. And the earth was without form, "
LLAMA = {
    "width": 32,
    "depth": 2,
    "heads": 4,
    "kv_heads": 2,
    "feed_forward_width": 40,
    "qk_norm": False,
    "embedding_scale": False,
}


def texts() -> list[str]:
    """A few dozen short documents that differ."""
    rng = np.random.default_rng(0)
    words = WORDS.split()
    return [" ".join(rng.choice(words, 60)) + f" {i} naïve 你好\n" for i in range(40)]


def corpus(folder: Path) -> str:
    """The documents as a corpus, as the command line names it."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    return f"files:{path}"


def tokenizer_json(vocab: int = VOCAB, **parts: Any) -> bytes:
    """A byte-level BPE as the tokenizers package trains and writes it.

    Args:
        vocab: ids in all.
        parts: of the file, that replace what the package wrote.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tree = {**json.loads(tokenizer.to_str()), **parts}
    return json.dumps(tree).encode()


def random_model(seed: int = 0, vocab: int = VOCAB, **settings: Any) -> tuple[Network, Params]:
    """A model of ours whose norms and biases are no ones and zeros either."""
    network = build(ModelConfig.model_validate({**LLAMA, **settings}), vocab)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def drawn(leaf: Any) -> np.ndarray:
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim == 1:
            return 1 + np.float32(0.2) * noise
        return noise * np.float32(network.config.width**-0.5)

    return network, jax.tree.map(drawn, shapes)


def write_folder(
    folder: Path,
    network: Network,
    params: Params,
    *,
    tokenizer: bytes | None = None,
    changes: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A Hugging Face folder of a model of ours."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tree = write_architecture(network.config, network.vocab_size, 512, bos=1, eos=2)
    tree = {key: value for key, value in {**tree, **(changes or {})}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(tree))
    (folder / "tokenizer.json").write_bytes(tokenizer_json() if tokenizer is None else tokenizer)
    if tensors is None:
        tensors = exported_tensors(network.config, params)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(network: Network, params: Params, tokens: np.ndarray) -> np.ndarray:
    """Next-token logits [batch, time, vocab], float32."""

    def run(params: Params, tokens: Any) -> Any:
        hidden, unembedding, _ = network.apply(params, tokens, jax.numpy.zeros_like(tokens))
        return hidden @ unembedding

    return np.asarray(jax.jit(run)(params, tokens))
