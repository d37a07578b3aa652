"""The last hidden states of a run's model on a text: computed once, kept in the cache, mapped."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.fitting.frozen import Frozen
from calibtrain.fitting.states import States
from calibtrain.models import TEMPERATURE, Network, Params, compute_dtype
from calibtrain.runs import checkpoint
from calibtrain.runs.loading import SavedRun
from calibtrain.storage.disk import make_folder
from calibtrain.storage.prepared import is_whole, prepare_once

SHARE = 0.5
"""Of the free disk that kept states may take; larger ones are computed anew each time."""
FORM = 1

Progress = Callable[[int, int], None]
"""Told batches read, and of how many."""


@dataclasses.dataclass(frozen=True)
class HiddenText:
    """A text as a frozen model sees it.

    Attributes:
        frozen: the model's end.
        states: of the text.
        store: its tokens.
        documents: those that are read.
        size: bytes of the hidden states.
        kept: whether they are in the cache; else they are computed anew when they are read.
    """

    frozen: Frozen
    states: States
    store: TokenStore
    documents: Int[np.ndarray, " chosen"]
    size: int
    kept: bool


class Computed:
    """Hidden states that the model makes when they are asked for; see `states.Rows`."""

    def __init__(
        self,
        network: Network,
        params: Params,
        tokens: Int[np.ndarray, "rows time"],
        segments: Int[np.ndarray, "rows time"],
    ):
        self._params, self._tokens, self._segments = params, tokens, segments
        self._apply = jax.jit(lambda params, *batch: network.apply(params, *batch)[0])

    def __getitem__(self, rows: Any) -> Float[Array, "some time width"]:
        return self._apply(self._params, self._tokens[rows], self._segments[rows])


def read_text(
    saved: SavedRun,
    corpus: str | None,
    split: str,
    limit: int | None,
    *,
    keep: bool = True,
    progress: Progress = lambda done, total: None,
) -> HiddenText:
    """The states of a split of a corpus, from the cache if they are there and whole.

    Args:
        saved: a run without a head.
        corpus: as the command line names it; none: the run's own.
        split: of it.
        limit: bytes of text, about; none: all.
        keep: put them into the cache, if the disk has room.
        progress: told of the batches whose states are computed.
    """
    store = saved.store(corpus, split)
    config, network = saved.config, dataclasses.replace(saved.network, head=None)
    rows = config.evaluation.rows
    windows = EvaluationWindows(store, rows=rows, context=saved.context, limit=limit)
    params = {name: part for name, part in saved.params().items() if name != TEMPERATURE}
    frozen = Frozen(
        jnp.asarray(jax.jit(network.unembedding)(params)),
        network.vocab_size,
        config.model.logit_soft_cap,
    )
    batches = [windows[index] for index in range(len(windows))]
    tokens, labels, segments, weights, documents = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("tokens", "labels", "segments", "weights", "documents")
    )
    dtype = compute_dtype(config.model)
    shape = (*tokens.shape, config.model.width)
    size = int(np.prod(shape)) * dtype.itemsize
    computed = Computed(network, params, tokens, segments)

    def fill(folder: Path) -> None:
        with (folder / "hidden.bin").open("wb") as file:
            for index in range(len(windows)):
                part = computed[np.arange(index * rows, (index + 1) * rows)]
                np.asarray(part).astype(dtype).tofile(file)
                progress(index + 1, len(windows))
        (folder / "hidden.json").write_text(json.dumps({"shape": shape, "dtype": dtype.name}))

    folder = saved.cache / "hidden" / _key(saved, corpus, split, limit, shape, dtype.name)
    kept = (keep and size < SHARE * _free(folder)) or is_whole(folder)
    hidden: Any = computed
    if kept:
        prepare_once(folder, fill)
        hidden = np.memmap(folder / "hidden.bin", dtype=dtype, mode="r", shape=shape)
    states = States(hidden, labels, segments, weights > 0, documents)
    return HiddenText(frozen, states, store, windows.documents, size, kept)


def _key(
    saved: SavedRun,
    corpus: str | None,
    split: str,
    limit: int | None,
    shape: tuple[int, ...],
    dtype: str,
) -> str:
    """A name that changes with whatever changes the states."""
    parts = [
        FORM,
        checkpoint.fingerprint(saved.run.checkpoints, saved.step),
        saved.tokenizer.hash,
        saved.corpus(corpus).provenance.content_hash,
        split,
        limit,
        shape,
        dtype,
        jax.default_backend(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _free(folder: Path) -> int:
    make_folder(folder.parent)
    return shutil.disk_usage(folder.parent).free
