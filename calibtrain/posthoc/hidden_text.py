"""The last hidden states of a run's model on a text, kept in the cache and mapped into memory."""

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
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from calibtrain.config import MeshConfig
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import EvaluationWindows
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer
from calibtrain.models import TEMPERATURE, Network, Params, compute_dtype
from calibtrain.models.pieces import apply_in_pieces
from calibtrain.parallel.mesh import ROWS, Layout, make_layout
from calibtrain.runs import checkpoint
from calibtrain.runs.loading import SavedRun
from calibtrain.storage.disk import make_folder
from calibtrain.storage.prepared import is_whole, prepare_once

SHARE = 0.5
"""Share of the free disk that kept states may take; larger ones are computed in every pass."""
FORM = 1

Progress = Callable[[int, int], None]
"""Is told the number of batches or steps done, and of all."""


@dataclasses.dataclass(frozen=True)
class HiddenText:
    """A text as a frozen model sees it.

    Attributes:
        output_layer: the frozen model's.
        states: hidden states of the text.
        store: its tokens.
        documents: indices of the documents that are read.
        size: bytes that the hidden states take.
        kept: whether they are in the cache; else they are computed each time they are read.
        key: changes with anything that changes them.
    """

    output_layer: OutputLayer
    states: HiddenStates
    store: TokenStore
    documents: Int[np.ndarray, " chosen"]
    size: int
    kept: bool
    key: str


class Computed:
    """Hidden states that the model computes each time they are read (`hidden_states.Rows`).

    The devices of a layout share the rows.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        tokens: Int[np.ndarray, "rows time"],
        segments: Int[np.ndarray, "rows time"],
        layout: Layout,
    ):
        def apply(params: Params, tokens: Array, segments: Array) -> Array:
            return apply_in_pieces(network, params, tokens, segments, layout.platform)[0]

        self._tokens, self._segments, self._layout = tokens, segments, layout
        self._params = jax.device_put(params, layout.everywhere)
        self._apply = jax.jit(layout.on_each_device(apply, (P(), P(ROWS), P(ROWS)), P(ROWS)))

    def __getitem__(self, rows: Any) -> Float[np.ndarray, "some time width"]:
        rows, shares = np.arange(len(self._tokens))[rows], self._layout.row_shares
        even = np.resize(rows, -(-len(rows) // shares) * shares)
        batch = self._layout.share_out((self._tokens[even], self._segments[even]))
        return np.asarray(self._apply(self._params, *batch))[: len(rows)]


def read_hidden_text(
    saved: SavedRun,
    corpus: str | None,
    split: str,
    limit: int | None,
    *,
    keep: bool = True,
    progress: Progress = lambda done, total: None,
) -> HiddenText:
    """Returns the hidden states of a split, from the cache if they are there and whole.

    Args:
        saved: a run without a head.
        corpus: as the command line names it; None means the run's own.
        split: the split of the corpus.
        limit: about how many bytes of text are read; None means all.
        keep: put the states into the cache, if the disk has room.
        progress: is told of the batches whose states are computed.
    """
    store = saved.store(corpus, split)
    config, network = saved.config, dataclasses.replace(saved.network, head=None)
    rows = config.evaluation.rows
    windows = EvaluationWindows(store, rows=rows, context=saved.context, limit=limit)
    params = {name: part for name, part in saved.params().items() if name != TEMPERATURE}
    output_layer = OutputLayer(
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
    layout = make_layout(MeshConfig(), jax.local_device_count(), devices=jax.local_devices())
    computed = Computed(network, params, tokens, segments, layout)

    def fill(folder: Path) -> None:
        with (folder / "hidden.bin").open("wb") as file:
            for index in range(len(windows)):
                part = computed[np.arange(index * rows, (index + 1) * rows)]
                np.asarray(part).astype(dtype).tofile(file)
                progress(index + 1, len(windows))
        (folder / "hidden.json").write_text(json.dumps({"shape": shape, "dtype": dtype.name}))

    key = _key(saved, corpus, split, limit, shape, dtype.name)
    folder = saved.cache / "hidden" / key
    kept = (keep and size < SHARE * _free(folder)) or is_whole(folder)
    hidden: Any = computed
    if kept:
        prepare_once(folder, fill)
        hidden = np.memmap(folder / "hidden.bin", dtype=dtype, mode="r", shape=shape)
    states = HiddenStates(hidden, labels, segments, weights > 0, documents)
    return HiddenText(output_layer, states, store, windows.documents, size, kept, key)


def _key(
    saved: SavedRun,
    corpus: str | None,
    split: str,
    limit: int | None,
    shape: tuple[int, ...],
    dtype: str,
) -> str:
    """A name that changes with anything that changes the states."""
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
        *([shares] if (shares := jax.local_device_count()) > 1 else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _free(folder: Path) -> int:
    make_folder(folder.parent)
    return shutil.disk_usage(folder.parent).free
