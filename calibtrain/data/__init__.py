"""Text in, batches out: corpora, lossless tokenizers, token stores. NumPy, no JAX of our own."""

import importlib
from typing import Any

_HOMES = {
    "Corpus": "corpus",
    "Document": "corpus",
    "open_corpus": "corpus",
    "Tokenizer": "tokenizer",
    "obtain_tokenizer": "tokenizer_choice",
    "TokenStore": "store",
    "open_store": "store",
    "TextStream": "batches",
    "TrainingBatches": "batches",
    "EvaluationWindows": "windows",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"calibtrain.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'calibtrain.data' has no attribute {name!r}")
