"""How a step's time and memory grow with vocabulary, context and devices, and whether as predicted.

python -m benchmarks.growth [--vocab 512 2048 ...] [--context 64 128 ...] [--devices 1 2 4 8]
                            [--clock wall|cpu] [--write benchmarks]

Times are fitted by a + b FLOPs, and by a + b FLOPs + c bytes moved (`benchmarks.cost`). On a CPU,
devices are simulated: they share its cores, so that their time would say nothing and only memory
and FLOPs a device are reported, of the program that the compiler made. `--write` keeps growth.md
and growth.svg in a folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cost import ALLOWED, Fit, fit, step_bytes, step_flops
from benchmarks.growth_report import to_markdown, to_svg
from benchmarks.measure import CLOCKS, in_rounds, report
from benchmarks.step import example, make
from calibtrain.config import MeshConfig, ModelConfig, OptimizerConfig
from calibtrain.data.batches.stream import Batch
from calibtrain.models import build
from calibtrain.parallel.mesh import Layout, make_layout
from calibtrain.training.objective import Objective
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.shared_gradient import make_gradient
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step

REPEATS = 5


def measure(
    series: str, config: ModelConfig, shapes: Sequence[tuple[int, int, int]], given: Any
) -> list[dict[str, Any]]:
    """Time a step at each (vocab, rows, context), in rounds; print and return what was found."""
    runs: dict[str, Callable[[], jax.Array]] = {}
    temporary = []
    for vocab, rows, context in shapes:
        batch = example(np.random.default_rng(0), vocab, rows, context)
        name = f"{series} {vocab if series == 'vocab' else context}"
        runs[name], size = make(config, vocab, batch)
        temporary.append(size)
    times = in_rounds(runs, given.repeats, clock=given.clock)
    platform = jax.default_backend()
    medians = [statistics.median(times[name]) for name in runs]
    flops = [step_flops(config, *shape) for shape in shapes]
    moved = [step_bytes(config, *shape, platform) for shape in shapes]
    simple = fit(medians, flops)
    full = fit(medians, flops, [sum(parts.values()) for parts in moved])
    found = []
    for index, (name, (vocab, rows, context)) in enumerate(zip(runs, shapes, strict=True)):
        facts = {
            "series": series,
            "vocab": vocab,
            "rows": rows,
            "context": context,
            "width": config.width,
            "depth": config.depth,
            "heads": config.heads,
            "temporary_bytes": temporary[index],
            "bytes_moved": moved[index],
            "deviation_flops": round(simple.deviations[index], 4),
            "deviation_flops_and_bytes": round(full.deviations[index], 4),
        }
        clock = {"clock": given.clock}
        report(
            "growth", name, times[name], tokens=rows * context, flops=flops[index], **facts, **clock
        )
        found.append({**facts, "seconds": medians[index], "flops": flops[index]})
    for label, result in (("flops", simple), ("flops and bytes", full)):
        print(json.dumps(describe(series, label, result)), flush=True)
    return found


def describe(series: str, label: str, result: Fit) -> dict[str, Any]:
    """The JSON line of a fit."""
    names = ("seconds", "seconds_per_gigaflop", "seconds_per_gigabyte")
    scales = (1.0, 1e9, 1e9)
    values = dict(
        zip(
            names,
            np.multiply(result.coefficients, scales[: len(result.coefficients)]),
            strict=False,
        )
    )
    return {
        "benchmark": "growth",
        "name": f"fit of {series} by {label}",
        **{name: float(f"{value:.4g}") for name, value in values.items()},
        "largest_deviation": round(result.largest, 4),
        "within": ALLOWED,
        "fits": result.largest <= ALLOWED,
    }


def on_devices(
    config: ModelConfig, vocab: int, rows: int, context: int, layout: Layout
) -> dict[str, Any]:
    """Bytes and FLOPs of one device's part of a step, by the compiler's count."""
    network, optimizer = build(config, vocab), make_optimizer(OptimizerConfig(), 1000)

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shapes = jax.eval_shape(lambda: initial_state(network, optimizer, 0))
    shardings = layout.state_shardings(shapes)
    state = jax.tree.map(placed, shapes, shardings)
    batch: Batch = jax.eval_shape(lambda: example(np.random.default_rng(0), vocab, rows, context))
    batch = jax.tree.map(lambda leaf: placed(leaf, layout.rows), batch)
    gradient = make_gradient(network, Objective(), layout=layout, chunk=rows * context)
    step = make_train_step(network, optimizer, gradient=gradient)
    outputs = (shardings, layout.everywhere)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=outputs).lower(state, batch).compile()
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return {
        "state_bytes": int(memory.argument_size_in_bytes),
        "temporary_bytes": int(memory.temp_size_in_bytes),
        "flops_compiled": (cost[0] if isinstance(cost, list) else cost).get("flops"),
        "flops_analytic": step_flops(config, vocab, rows, context) / layout.devices,
    }


def measure_devices(config: ModelConfig, given: Any) -> list[dict[str, Any]]:
    """One batch shared among more and more devices: by rows alone, and the state as well."""
    vocab, rows, context = 4096, max(8, *given.devices), 128
    found = []
    for axis in ("data", "fsdp"):
        for count in given.devices:
            if count > jax.device_count():
                continue
            mesh = MeshConfig(fsdp=count if axis == "fsdp" else 1)
            layout = make_layout(mesh, rows, devices=jax.devices()[:count])
            line = {
                "series": "devices",
                "mesh": axis,
                "devices": count,
                "vocab": vocab,
                "rows": rows,
                "context": context,
                "width": config.width,
                "depth": config.depth,
                "heads": config.heads,
                **on_devices(config, vocab, rows, context, layout),
            }
            print(
                json.dumps({"benchmark": "growth", "name": f"{axis} {count}", **line}), flush=True
            )
            found.append(line)
    return found


def elsewhere(given: Any) -> list[dict[str, Any]]:
    """`measure_devices` in a process of its own: simulated devices would share out our threads."""
    command = [sys.executable, "-m", "benchmarks.growth", "--vocab", "--context", "--devices"]
    command += map(str, given.devices)
    for name in ("width", "depth", "heads", "rows"):
        command += [f"--{name}", str(getattr(given, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--vocab", type=int, nargs="*", default=[512, 2048, 8192, 16384, 32768, 65536, 131072]
    )
    parser.add_argument("--context", type=int, nargs="*", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    found: list[dict[str, Any]] = []
    if given.devices and (given.vocab or given.context):
        found += elsewhere(given)
    elif given.devices:  # before JAX looks for devices; those of an accelerator are what they are
        jax.config.update("jax_num_cpu_devices", max(given.devices))
        found += measure_devices(config, given)
    if given.vocab:
        shapes = [(vocab, given.rows, 256) for vocab in given.vocab]
        found += measure("vocab", config, shapes, given)
    if given.context:
        shapes = [(1024, given.rows, context) for context in given.context]
        found += measure("context", config, shapes, given)
    if given.write:
        (given.write / "growth.md").write_text(to_markdown(found, given.clock))
        (given.write / "growth.svg").write_text(to_svg(found, given.clock))


if __name__ == "__main__":
    main()
