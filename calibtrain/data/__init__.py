"""Text in, batches out: corpora, lossless tokenizers and token stores, in NumPy without JAX."""

import importlib
from typing import Any

_HOMES = {
    "Corpus": "corpora.corpus",
    "Document": "corpora.corpus",
    "open_corpus": "corpora.corpus",
    "Tokenizer": "tokenizers.tokenizer",
    "obtain_tokenizer": "tokenizers.tokenizer_choice",
    "TokenStore": "batches.store",
    "open_store": "batches.store",
    "TextStream": "batches.stream",
    "TrainingBatches": "batches.stream",
    "EvaluationWindows": "batches.windows",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"calibtrain.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'calibtrain.data' has no attribute {name!r}")
