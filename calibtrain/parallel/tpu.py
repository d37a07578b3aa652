"""Cloud TPU slices: names of their sizes, topologies, memory of their chips, and names in GKE.

Sources: Google's pages on planning TPUs in GKE, and XPK's table of system characteristics. XPK's
node layout is used, so that one node pool serves both ways to launch.
"""

import dataclasses
import math
import os
import re
from contextlib import suppress
from pathlib import Path

from calibtrain.errors import TransientError, UserError


def has_chips() -> bool:
    """Returns whether this machine has TPUs, or other devices that are passed through to it."""
    return any((*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/[0-9]*")))


_GOOGLE = "0x1ae0"
_CHIPS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")
"""PCI numbers of Google, and of its TPUs (v2 and v3, v4, v5p, v5e, v6e, 7x), as in JAX."""


def has_tpus(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Returns whether this machine certainly has TPUs, by their PCI numbers."""
    for device in devices.glob("*"):
        with suppress(OSError):
            vendor, chip = ((device / name).read_text().strip() for name in ("vendor", "device"))
            if vendor == _GOOGLE and chip in _CHIPS:
                return True
    return False


def backend_failure(error: BaseException) -> UserError | None:
    """Returns what to tell where JAX cannot use devices that were demanded, or None.

    Chips that another process holds may be free at the next start.
    """
    text = " ".join(str(error).split())
    found = re.match(r"Unable to initialize backend '(\w+)': ?(.*)", text)
    if not isinstance(error, RuntimeError) or found is None:
        return None
    demanded = os.environ.get("JAX_PLATFORMS", "")
    if re.search(r"already in use|in use by|UNAVAILABLE|ABORTED|[Bb]usy", found[2]):
        return TransientError(
            f"JAX_PLATFORMS={demanded}: the {found[1].upper()}s cannot be used ({found[2][:300]}); "
            "another process holds them: stop it or wait for it, and start again"
        )
    return UserError(
        f"JAX_PLATFORMS={demanded}: {found[1]} cannot be used ({found[2][:300]}); see that its "
        "driver and its package fit this machine, or compute on the CPU with JAX_PLATFORMS=cpu"
    )


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs.

    Attributes:
        accelerator: value of GKE's node label for it.
        machine: machine type of a node, without its number of chips.
        xpk: its prefix in XPK and in Cloud TPU accelerator types.
        per_chip: units per chip in a size's name (v4, v5p and tpu7x count cores).
        topologies: topologies of the slices known here, in chips.
        memory: bytes of memory per chip.
        compiler: its name in libtpu.
        megacore: whether the two cores of a chip are one device.
        devices: of a chip, which share its memory.
    """

    accelerator: str
    machine: str
    xpk: str
    per_chip: int
    topologies: tuple[str, ...]
    memory: int
    compiler: str
    megacore: bool = False
    devices: int = 1


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")

_GIB = 2**30

GENERATIONS = {
    "v4": Generation(
        "tpu-v4-podslice", "ct4p-hightpu", "v4", 2, (*_CUBES, "8x16x16"), 32 * _GIB, "v4", True
    ),
    "v5e": Generation(
        "tpu-v5-lite-podslice", "ct5lp-hightpu", "v5litepod", 1, _FLAT, 16 * _GIB, "v5e"
    ),
    "v5p": Generation(
        "tpu-v5p-slice",
        "ct5p-hightpu",
        "v5p",
        2,
        (*_CUBES, "8x16x16", "16x16x16", "16x16x24"),
        95 * _GIB,
        "v5p",
        True,
    ),
    "v6e": Generation("tpu-v6e-slice", "ct6e-standard", "v6e", 1, _FLAT, 32 * _GIB, "v6e"),
    "tpu7x": Generation(
        "tpu7x", "tpu7x-standard", "tpu7x", 2, _CUBES, 192 * _GIB, "tpu7x", devices=2
    ),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of TPU chips: hosts that share one fast network.

    Attributes:
        name: its short name, such as "v5e-16".
        accelerator: value of the node label cloud.google.com/gke-tpu-accelerator.
        topology: value of the node label cloud.google.com/gke-tpu-topology.
        machine: machine type of the node pool.
        chips: number of chips.
        chips_per_host: chips per node (google.com/tpu).
        xpk: its name in XPK and as a Cloud TPU accelerator type.
    """

    name: str
    accelerator: str
    topology: str
    machine: str
    chips: int
    chips_per_host: int
    xpk: str

    @property
    def hosts(self) -> int:
        """Number of nodes of the slice."""
        return self.chips // self.chips_per_host


def _slices() -> dict[str, Slice]:
    table = {}
    for short, generation in GENERATIONS.items():
        for topology in generation.topologies:
            chips = math.prod(int(side) for side in topology.split("x"))
            size = chips * generation.per_chip
            per_host = min(4, chips)
            table[f"{short}-{size}"] = Slice(
                name=f"{short}-{size}",
                accelerator=generation.accelerator,
                topology=topology,
                machine=f"{generation.machine}-{per_host}t",
                chips=chips,
                chips_per_host=per_host,
                xpk=f"{generation.xpk}-{size}",
            )
    return table


SLICES = _slices()
"""All slices by name."""


def generation_of(tpu: Slice) -> Generation:
    """Returns the generation of a slice's chips."""
    return GENERATIONS[tpu.name.partition("-")[0]]


def find_slice(name: str, key: str = "--tpu") -> Slice:
    """Returns the slice called "v5e-16", "v5litepod-16" or "v5e:4x4"; `key` names it in errors.

    Raises:
        UserError: for an unknown size; it lists the known ones.
    """
    text = name.strip().lower()
    for entry in SLICES.values():
        short = entry.name.partition("-")[0]
        if text in (entry.name, entry.xpk, f"{short}:{entry.topology}"):
            return entry
    generation = re.split("[-:]", text)[0].replace("v5litepod", "v5e")
    if generation not in GENERATIONS:
        raise UserError(
            f"{key}: {name!r} is no TPU known here; write GENERATION-SIZE, for example v5e-16; "
            f"generations: {', '.join(GENERATIONS)}"
        )
    sizes = [s for s in SLICES if s.startswith(f"{generation}-")]
    unit = "cores" if GENERATIONS[generation].per_chip == 2 else "chips"
    raise UserError(
        f"{key}: {name!r} is no size of {generation} (its sizes count {unit}); allowed: "
        f"{', '.join(sizes)}"
    )
