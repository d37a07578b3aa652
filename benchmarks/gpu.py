"""A step on a GPU, with what it is made of: step, chunks of the readout, attention of one layer.

python -m benchmarks.gpu [--depth 12] [--vocab 32768] [--chunks 2048 8192 16384] [--documents 4] ...

A line of JSON per measurement, then tables for benchmarks/README.md. Attention's candidates are
timed only where their values and gradients are those of `models.attention`; the causal one without
documents computes something else, and is compared with nothing. Without a GPU, what a CPU has is
measured. It takes some minutes on a GPU, most of them for the compilers.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

# PyTorch needs memory in the same process; set before JAX looks for devices
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import readout, step
from benchmarks.measure import in_rounds, report
from calibtrain.config import ModelConfig
from calibtrain.models import compute_dtype
from calibtrain.models.attention import attend, choose

OURS = "ours"
NO_DOCUMENTS = "cuDNN, causal"
ALLOWED = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative distance from our values and gradients, in the Euclidean norm, by type."""

_REFUSALS = (AttributeError, NotImplementedError, TypeError, ValueError, jax.errors.JaxRuntimeError)

Attention = Callable[[Any, Any, Any], Any]
"""Maps queries, keys and values [rows, context, heads, size] to what the heads see."""


def drawn_segments(rows: int, context: int, documents: int) -> np.ndarray:
    """Numbers of documents [rows, context]: as many in each row, of random lengths."""
    rng = np.random.default_rng(1)
    bounds = [
        np.sort(rng.choice(np.arange(1, context), documents - 1, replace=False))
        for _ in range(rows)
    ]
    return np.stack([np.searchsorted(own, np.arange(context), side="right") for own in bounds])


def offsets_of(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each row's documents begin and end, and their lengths, as cuDNN takes them."""
    documents = int(segments.max()) + 1
    lengths = np.stack([np.bincount(row, minlength=documents) for row in segments])
    offsets = np.concatenate([np.zeros((len(segments), 1), int), lengths.cumsum(axis=1)], axis=1)
    return offsets.astype(np.int32), lengths.astype(np.int32)


def packed(segments: np.ndarray) -> Attention:
    """cuDNN's packed layout: documents by their offsets, so that no mask is read.

    Raises:
        ImportError: where the installed JAX does not have it. It is not part of JAX's public API.
    """
    from jax._src.cudnn import fused_attention_stablehlo as fused

    offsets, lengths = map(jnp.asarray, offsets_of(segments))

    def seen(query: Any, key: Any, value: Any) -> Any:
        return fused.dot_product_attention(
            query,
            key,
            value,
            q_seqlen=lengths,
            kv_seqlen=lengths,
            q_offsets=offsets,
            kv_offsets=offsets,
            scale=query.shape[-1] ** -0.5,
            mask_type=fused.MaskType.PADDING_CAUSAL,
        )

    return seen


def mask_alone(segments: np.ndarray) -> Attention:
    """cuDNN with documents as a mask, whose gradient JAX's own function asks for and nobody reads.

    Raises:
        ImportError: where the installed JAX does not have it. It is not part of JAX's public API.
    """
    from jax._src.cudnn import fused_attention_stablehlo as fused

    together = jnp.asarray(segments[:, None, :, None] == segments[:, None, None, :])

    def seen(query: Any, key: Any, value: Any) -> Any:
        hidden = fused.get_large_negative_number(query.dtype)
        mask = jnp.where(together, jnp.zeros((), query.dtype), hidden)
        absent = jnp.zeros(0, query.dtype)
        return fused._dot_product_attention(
            *(query, key, value, mask),
            *(absent,) * 6,  # lengths, offsets and tables of pages
            query.shape[-1] ** -0.5,
            0,  # seed
            0.0,  # of dropout
            (True, False),  # a bias, without its gradient
            fused.MaskType.CAUSAL,
            fused.AttentionLayout.BTNH.value,
            None,  # no window
            fused.check_cudnn_version(),
            False,  # no residual
        )

    return seen


def candidates(segments: np.ndarray, implementation: str) -> dict[str, Attention]:
    """Ways to compute the attention of a layer, ours first."""
    ids = jnp.asarray(segments)

    def by(name: str) -> Attention:
        return lambda q, k, v: attend(q, k, v, ids, name)

    found = {f"{OURS} ({implementation})": by(implementation)}
    if jax.default_backend() != "gpu":
        return found | {"xla": by("xla")}
    found[NO_DOCUMENTS] = lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, is_causal=True, implementation="cudnn"
    )
    others = {
        "cuDNN, the mask without its gradient": mask_alone,
        "cuDNN, packed documents": packed,
    }
    for name, make in others.items():
        try:
            found[name] = make(segments)
        except ImportError as error:
            note(f"{name}: not measured: {error}")
    return found


def both_passes(function: Attention) -> Callable[..., Any]:
    """Compiles the output and the gradients of a weighted sum of it."""

    def run(query: Any, key: Any, value: Any, weights: Any) -> Any:
        output, pull_back = jax.vjp(function, query, key, value)
        return output, *pull_back(weights)

    return jax.jit(run)


def distance(found: Any, wanted: Any) -> float:
    """The largest ||found - wanted|| / ||wanted|| of output and gradients; NaN where either is."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(found, wanted, strict=True)
    ]
    return float(np.max([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]))


def compare_attention(given: argparse.Namespace, config: ModelConfig) -> list[dict[str, Any]]:
    """Measures the attention of one layer, forward and backward."""
    dtype = compute_dtype(config)
    shape = (given.rows, given.context, config.heads, config.size_of_head)
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
    segments = drawn_segments(given.rows, given.context, given.documents)
    platform = jax.default_backend()
    implementation = choose(platform, dtype, config.size_of_head, given.context)
    runs: dict[str, Callable[[], Any]] = {}
    apart: dict[str, float | None] = {}
    wanted: Any = None
    for name, function in candidates(segments, implementation).items():
        run = both_passes(function)
        try:
            found = jax.block_until_ready(run(*arrays))
        except _REFUSALS as error:
            if wanted is None:  # ours must run
                raise
            note(f"{name}: not measured: {' '.join(str(error).split())[:200]}")
            continue
        wanted = found if wanted is None else wanted
        apart[name] = None if name == NO_DOCUMENTS else distance(found, wanted)
        off = apart[name]
        if off is not None and not off <= ALLOWED[str(dtype)]:
            note(f"{name}: not measured: it is {off:.2g} away from ours, in relative terms")
            continue
        runs[name] = lambda run=run: run(*arrays)
    seconds = in_rounds(runs, given.repeats, steps=given.steps)
    own = next(iter(runs))
    return [
        report(
            "gpu: attention",
            name,
            times,
            peer=seconds[own],
            peer_name=own,
            distance=apart[name],
            documents=0 if name == NO_DOCUMENTS else given.documents,
            rows=given.rows,
            context=given.context,
            heads=config.heads,
            compute=str(dtype),
        )
        for name, times in seconds.items()
    ]


def compare_chunks(given: argparse.Namespace, vocab: int) -> list[dict[str, Any]]:
    """Measures the loss and its gradients, by how many tokens are multiplied at once."""
    tokens = given.rows * given.context
    losses: dict[str, readout.Loss] = {"additive_loss (default)": readout.fused()}
    for chunk in given.chunks:
        losses[f"additive_loss, {chunk} tokens at once"] = readout.fused(chunk=chunk)
    losses[readout.WHOLE] = readout.whole
    return readout.compare(losses, tokens, given.width, vocab, given.repeats)


def note(text: str) -> None:
    """Says in one line what is not measured."""
    print(f"benchmarks.gpu: {text}", file=sys.stderr, flush=True)


def table(title: str, lines: list[dict[str, Any]], peer: str) -> list[str]:
    """A Markdown table of measurements, with each one's speed beside a peer's."""
    medians: Mapping[str, float] = {line["name"]: line["seconds_median"] for line in lines}
    rows = [f"| {title} | ms (min to max) | utilisation | against {peer} |", "|---|---|---|---|"]
    for line in lines:
        low, middle, high = (1e3 * line[f"seconds_{key}"] for key in ("min", "median", "max"))
        share = line.get("utilisation")
        used = "" if share is None else f"{100 * share:.1f} %"
        speed = f"{medians[peer] / line['seconds_median']:.2f}" if peer in medians else ""
        rows.append(
            f"| {line['name']} | {middle:.3f} ({low:.3f} to {high:.3f}) | {used} | {speed} |"
        )
    return [*rows, ""]


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    step.add_arguments(parser)
    sizes = [512, 1024] if on_cpu else [2048, 4096, 8192, 16_384]
    parser.add_argument("--chunks", type=int, nargs="+", default=sizes, help="tokens at once")
    parser.add_argument("--documents", type=int, default=4, help="of a row, for attention")
    parser.set_defaults(no_flax=True, torch_compile=not on_cpu)
    given = parser.parse_args()
    if not 1 <= given.documents < given.context:
        parser.error(f"--documents {given.documents}: allowed are 1 to {given.context - 1}")
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    if jax.default_backend() != "gpu":
        note("JAX has no GPU here: neither cuDNN's attention nor utilisation is measured")
    if given.no_torch or not importlib.util.find_spec("torch"):
        note("PyTorch is left out or not installed: there is nothing to compare a step with")
    tables = []
    attention = compare_attention(given, config)
    tables += table("attention of a layer, both passes", attention, attention[0]["name"])
    for vocab in given.vocab:
        chunks = compare_chunks(given, vocab)
        tables += table(f"the loss and its gradients, V = {vocab:,}", chunks, readout.WHOLE)
        steps = step.compare(given, config, vocab)
        peer = step.COMPILED_PEER if given.torch_compile else step.PEER
        tables += table(f"a step, V = {vocab:,}", steps, peer)
    print("\n".join(tables))


if __name__ == "__main__":
    main()
