"""Devices to compile for that are not here: the names of `--topology`, and the compiler's setup.

libtpu has the compiler for TPUs, JAX's CUDA plugin that for GPUs; neither needs a device. Call
`prepare` before JAX is used.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from calibtrain.errors import UserError
from calibtrain.parallel.gpu import GPUS, find_gpus
from calibtrain.parallel.tpu import GENERATIONS, find_slice, generation_of

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        name: name of a slice, or of a host's GPUs.
        platform: "tpu" or "gpu".
        slices: how many slices or hosts are joined.
        memory: bytes of memory per device.
        usable: bytes of memory per device that programs can use.
        capability: major compute capability of a GPU; None for a TPU.
        environment: environment variables for the compiler's library.
        description: arguments of `jax.experimental.topologies.get_topology_desc`.
    """

    name: str
    platform: str
    slices: int
    memory: int
    usable: int
    capability: int | None
    environment: Mapping[str, str]
    description: Mapping[str, Any]

    def devices(self) -> list[jax.Device]:
        """Returns the devices, which can be compiled for but not computed on.

        Raises:
            UserError: where the compiler does not know them.
        """
        from jax.experimental import topologies

        try:
            return topologies.get_topology_desc(**self.description).devices
        except Exception as error:  # the libraries raise no narrower class
            reason = " ".join(str(error).split())[:400]
            raise UserError(
                f"--topology: the compiler does not know {self.name}: {reason}"
            ) from None


def find_target(name: str, slices: int = 1) -> Target:
    """Returns the devices that `--topology` names: "v5e:4x4", "v5e-16", "h100:8".

    Raises:
        UserError: for an unknown name; it lists the known ones.
    """
    key = "--topology"
    if (found := find_gpus(name, key)) is not None:
        gpu, count = found
        return Target(
            name=name.strip().lower(),
            platform="gpu",
            slices=slices,
            memory=gpu.memory,
            usable=gpu.usable,
            capability=gpu.capability,
            environment={},
            description={
                "platform": "cuda",
                "topology": f"1x{slices}x{count}",
                "target_config": gpu.target_config(),
            },
        )
    kind = name.strip().lower().replace("v5litepod", "v5e").replace(":", "-").partition("-")[0]
    if kind not in GENERATIONS:
        raise UserError(
            f"{key}: {name!r} is neither a TPU slice nor a host of GPUs; write for example v5e:4x4 "
            f"or h100:8; TPUs: {', '.join(GENERATIONS)}; GPUs: {', '.join(GPUS)}"
        )
    tpu = find_slice(name, key)
    generation = generation_of(tpu)
    sides = tpu.topology.count("x") + 1
    per_host = (2, 2, 1) if tpu.chips >= 4 else (1, 1, 1)
    return Target(
        name=tpu.name,
        platform="tpu",
        slices=slices,
        memory=generation.memory // generation.devices,
        usable=generation.memory // generation.devices,
        capability=None,
        environment={
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": tpu.xpk,
        },
        description={
            "platform": "tpu",
            "topology_name": f"{generation.compiler}:{tpu.topology}",
            "chip_config_name": "megacore" if generation.megacore else "default",
            "chips_per_host_bounds": (*per_host[:sides], *(1,) * (3 - sides)),
            "num_slices": slices,
        },
    )


def prepare(target: Target) -> None:
    """Makes the compiler's library load on a machine without such a device; keeps JAX on the CPU.

    Raises:
        UserError: where the library is not installed.
    """
    if target.platform == "tpu":
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                "libtpu is not installed, which holds the compiler for TPUs; install the extra: "
                "pip install calibtrain[tpu-compile]"
            )
    else:
        plugins = importlib.metadata.entry_points(group="jax_plugins")
        if not any(plugin.name.startswith("xla_cuda") for plugin in plugins):
            raise UserError(
                "JAX's CUDA plugin is not installed, which holds the compiler for GPUs; install "
                "the extra: pip install calibtrain[cuda12]"
            )
    os.environ.update(target.environment)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")  # in case JAX has already read the environment
