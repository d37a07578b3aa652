"""Timing in rounds, and the JSON line of a measurement."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from benchmarks.peaks import peak_flops

REPEATS = 7


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts the seconds of all this process's threads: on a crowded machine, what work costs."""


def in_rounds(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: str = "wall",
    warm_up: int = 2,
    steps: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each function, called in turn, round after round, after some rounds to warm up.

    What disturbs the machine for a while then disturbs all of them. A turn is so many calls, at
    whose end what the last one returns is waited for; of a turn, the seconds of one call.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(repeats + warm_up):
        for name, function in functions.items():
            began = now()
            for _ in range(steps):
                last = function()
            if getattr(last, "shape", None) == ():
                float(last)  # a number of PyTorch, or of JAX
            else:
                jax.block_until_ready(last)
            if round_ >= warm_up:
                seconds[name].append((now() - began) / steps)
    return seconds


def report(
    benchmark: str,
    name: str,
    seconds: list[float],
    *,
    tokens: int | None = None,
    size: int | None = None,
    flops: float | None = None,
    peer: list[float] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Prints a measurement, and returns what it says.

    Args:
        benchmark: which program measures.
        name: what was measured.
        seconds: of each repeat.
        tokens: worked on in each.
        size: bytes worked on in each.
        flops: analytic, of each.
        peer: seconds of the peer in the same rounds; its median over ours is `speed_to_peer`, the
            median of its seconds over ours, round by round, `speed_to_peer_by_round`.
        facts: shapes and whatever else belongs to it.
    """
    median = statistics.median(seconds)
    device = jax.devices()[0]
    line: dict[str, Any] = {
        "benchmark": benchmark,
        "name": name,
        "device": device.device_kind,
        "platform": device.platform,
        **facts,
        "repeats": len(seconds),
        "seconds_median": round(median, 6),
        "seconds_min": round(min(seconds), 6),
        "seconds_max": round(max(seconds), 6),
    }
    if tokens is not None:
        line["tokens_per_second"] = round(tokens / median, 1)
    if size is not None:
        line["megabytes_per_second"] = round(size / 1e6 / median, 2)
    peak = peak_flops(device.device_kind)
    if flops is not None:
        line["flops"] = flops
        # no guess where the peak is not known
        line["utilisation"] = round(flops / median / peak, 4) if peak else None
    if peer is not None:
        line["speed_to_peer"] = round(statistics.median(peer) / median, 3)
        by_round = [theirs / ours for theirs, ours in zip(peer, seconds, strict=True)]
        line["speed_to_peer_by_round"] = round(statistics.median(by_round), 3)
    print(json.dumps(line), flush=True)
    return line
