"""NVIDIA GPUs: their memory, and their descriptions for XLA's compiler when they are not here.

Source: the device descriptions in XLA's repository for compilation without a device
(xla/backends/gpu/target_config/specs), reduced to what differs and what the compiler reads.
"""

import dataclasses
import re

from calibtrain.errors import UserError

PREALLOCATED = 0.75
"""Share of a GPU's memory that JAX takes for arrays by default (JAX documentation, "GPU memory
allocation"; XLA_PYTHON_CLIENT_MEM_FRACTION)."""

MOST_A_HOST = 8
"""GPUs of a host, joined by NVLink."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        device_kind: its name in JAX.
        capability: major CUDA compute capability.
        cores: number of streaming multiprocessors.
        memory: bytes of memory.
        bandwidth: memory bandwidth, in bytes per second.
        cache: bytes of the second-level cache.
        clock: clock rate of a core, in GHz.
        shared: bytes of shared memory per core.
        lanes: float32 units per core.
    """

    device_kind: str
    capability: int
    cores: int
    memory: int
    bandwidth: int
    cache: int
    clock: float
    shared: int
    lanes: int

    @property
    def usable(self) -> int:
        """Bytes that JAX takes for arrays by default."""
        return int(self.memory * PREALLOCATED)

    def target_config(self) -> str:
        """Returns XLA's `GpuTargetConfigProto` as text."""
        extension = "ACCELERATED_FEATURES" if self.capability >= 9 else "NONE"
        return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {self.capability} feature_extension: {extension} }}
  core_count: {self.cores}
  fpus_per_core: {self.lanes}
  clock_rate_ghz: {self.clock}
  device_memory_size: {self.memory}
  memory_bandwidth: {self.bandwidth}
  l2_cache_size: {self.cache}
  shared_memory_per_core: {self.shared}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {self.shared - 1024}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{self.device_kind}"
"""


GPUS = {
    "a100-40gb": Gpu(
        "NVIDIA A100-SXM4-40GB",
        8,
        108,
        42_331_013_120,
        1_555_200_000_000,
        40 * 2**20,
        1.41,
        167_936,
        64,
    ),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB",
        8,
        108,
        85_100_068_864,
        2_039_040_000_000,
        40 * 2**20,
        1.41,
        167_936,
        64,
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3",
        9,
        132,
        84_942_979_072,
        3_352_320_000_000,
        50 * 2**20,
        1.98,
        233_472,
        128,
    ),
    "h200": Gpu(
        "NVIDIA H200",
        9,
        132,
        151_397_597_184,
        4_800_000_000_000,
        50 * 2**20,
        1.98,
        233_472,
        128,
    ),
    "b200": Gpu(
        "NVIDIA B200",
        10,
        148,
        191_514_411_008,
        7_672_320_000_000,
        132_644_864,
        1.965,
        233_472,
        128,
    ),
}
"""Kinds of GPU by their names in `--topology`."""


def find_gpus(name: str, key: str) -> tuple[Gpu, int] | None:
    """Returns the GPU and the number of them in a name such as "h100:8"; None if it is not a GPU.

    Raises:
        UserError: for a number that no host has; `key` names the option in the message.
    """
    kind, _, count = name.strip().lower().partition(":")
    if kind not in GPUS:
        return None
    if not re.fullmatch(r"\d{1,4}", count) or not 1 <= int(count) <= MOST_A_HOST:
        raise UserError(
            f"{key}: {name!r} is not a host of GPUs; write {kind}:N, N from 1 to {MOST_A_HOST}; "
            "join hosts with --slices"
        )
    return GPUS[kind], int(count)
