"""Token metrics of a stream: a state of sums that is computed on the device, merged, then read."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.metrics.arguments import (
    as_array,
    counted,
    is_traced,
    numbers,
    require_bins,
    require_kind,
    require_number,
    traced_labels,
    whole_numbers,
)
from calibtrain.metrics.calibration import bin_edges, bin_index, sums_by_bin
from calibtrain.readout import TokenStats

FIELDS = ("nll", "log_confidence", "correct", "entropy")
"""What must be asked of `readout`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenMetrics:
    """Unreduced sums over tokens, by group (frequency decile) and confidence bin.

    States of parts of the data add up, leaf by leaf, to the state of the whole.

    Attributes:
        sums: per group, the sums of weight, nll (nats) and entropy (nats).
        table: per group and bin, the sums of weight, confidence and correctness.
    """

    sums: Float[Array, "groups 3"]
    table: Float[Array, "groups bins 3"]

    @classmethod
    def of(
        cls,
        stats: TokenStats,
        weights: Float[Array, "*tokens"],
        group: Int[Array, "*tokens"],
        *,
        groups: int,
        bins: int,
    ) -> "TokenMetrics":
        """The state of some tokens. Runs inside `jax.jit`.

        Args:
            stats: with the fields in `FIELDS`.
            weights: 1 where a token counts.
            group: the group of each token, in [0, groups).
            groups: number of groups.
            bins: number of equal-width confidence bins.
        """
        require_kind("stats", stats, TokenStats)
        groups, bins = require_bins("groups", groups), require_bins("bins", bins)
        fields, weights = counted({name: getattr(stats, name) for name in FIELDS}, weights)
        nll, log_confidence, correct, entropy = (each.reshape(-1) for each in fields.values())
        group = as_array("group", group)
        if group.shape != weights.shape:
            raise ValueError(f"group: shape {group.shape} must be that of nll, {weights.shape}")
        if is_traced(group):
            group = traced_labels("group", group)
        else:
            group = jnp.asarray(whole_numbers("group", group, groups), jnp.int32)
        weights, group = weights.reshape(-1), group.reshape(-1)
        confidence = jnp.exp(log_confidence)
        cell = group * bins + bin_index(confidence, bin_edges(bins))
        table = sums_by_bin(confidence, correct, cell, groups * bins, weights)
        values = jnp.stack([jnp.ones_like(weights), nll, entropy])
        values = jnp.where(weights > 0, values * weights, 0.0)
        member = jax.nn.one_hot(group, groups, dtype=jnp.float32)
        sums = jnp.matmul(member.T, values.T, precision="highest")
        return cls(sums, table.reshape(groups, bins, 3))

    def merge(self, other: "TokenMetrics") -> "TokenMetrics":
        """The state of both parts together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def exact(self) -> "TokenMetrics":
        """The same on the host in float64, for merging many batches without rounding."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


def token_metrics(
    state: TokenMetrics, raw_bytes: int, vocabulary_entries: np.ndarray | None = None
) -> dict[str, Any]:
    """Read a state: the results by their public names.

    Args:
        state: merged over all the tokens.
        raw_bytes: bytes of text that the tokens stand for.
        vocabulary_entries: how many vocabulary entries each group holds, for the table.

    Returns:
        tokens, bytes, nll (nats a token), bits_per_byte, accuracy, mean_confidence, signed_gap,
        ece, entropy_rate (nats a token), entropy_bits_per_byte; `reliability`, a row a bin; and
        `frequency_deciles`, a row a group. What an empty bin or group would hold is None.
    """
    require_kind("state", state, TokenMetrics)
    parts: list[Any] = [
        numbers("state", leaf, -np.inf, np.inf) for leaf in (state.sums, state.table)
    ]
    state = TokenMetrics(*parts)
    groups = len(state.sums) if state.sums.ndim else 0
    if state.sums.shape != (groups, 3) or state.table.shape[::2] != (groups, 3):
        raise ValueError(
            f"state: shapes {state.sums.shape} and {state.table.shape} must be [groups, 3] and "
            "[groups, bins, 3]"
        )
    if not 0 <= require_number("raw_bytes", raw_bytes) < math.inf:
        raise ValueError(f"raw_bytes: {raw_bytes} is not allowed; at least 0")
    if vocabulary_entries is not None:
        vocabulary_entries = numbers("vocabulary_entries", vocabulary_entries, 0.0, np.inf)
        if vocabulary_entries.shape != (len(state.sums),):
            raise ValueError(
                f"vocabulary_entries: shape {vocabulary_entries.shape} must be ({len(state.sums)},)"
            )
    whole = _reduce(state.sums.sum(0), state.table.sum(0))
    if not whole["tokens"]:
        raise ValueError("state: is empty; at least one token is needed")
    per_byte = whole["tokens"] / math.log(2) / raw_bytes if raw_bytes else None
    bins = state.table.shape[1]
    edges = [i / bins for i in range(bins + 1)]
    reliability = []
    for lower, upper, (weight, confidence, correct) in zip(
        edges[:-1], edges[1:], state.table.sum(0), strict=True
    ):
        reliability.append(
            {
                "lower": lower,
                "upper": upper,
                "tokens": float(weight),
                "confidence": float(confidence / weight) if weight else None,
                "accuracy": float(correct / weight) if weight else None,
            }
        )
    deciles = []
    for number, (sums, table) in enumerate(zip(state.sums, state.table, strict=True)):
        entries = None if vocabulary_entries is None else int(vocabulary_entries[number])
        row = {"decile": number + 1, "vocabulary_entries": entries, **_reduce(sums, table)}
        deciles.append(row)
    return {
        "tokens": int(whole["tokens"]),
        "bytes": int(raw_bytes),
        "nll": whole["nll"],
        "bits_per_byte": whole["nll"] * per_byte if per_byte else None,
        **{key: whole[key] for key in ("accuracy", "mean_confidence", "signed_gap", "ece")},
        "entropy_rate": whole["entropy_rate"],
        "entropy_bits_per_byte": whole["entropy_rate"] * per_byte if per_byte else None,
        "reliability": reliability,
        "frequency_deciles": deciles,
    }


def _reduce(sums: Any, table: Any) -> dict[str, Any]:
    weight, nll, entropy = (float(value) for value in sums)
    _, confidence, correct = (float(value) for value in table.sum(0))
    if not weight:
        names = ("nll", "accuracy", "mean_confidence", "signed_gap", "ece", "entropy_rate")
        return {"tokens": 0.0, **dict.fromkeys(names)}
    return {
        "tokens": weight,
        "nll": nll / weight,
        "accuracy": correct / weight,
        "mean_confidence": confidence / weight,
        "signed_gap": (confidence - correct) / weight,
        "ece": float(np.abs(table[:, 2] - table[:, 1]).sum()) / weight,
        "entropy_rate": entropy / weight,
    }
