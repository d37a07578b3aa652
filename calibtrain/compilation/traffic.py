"""The bytes that devices send each other, read from a compiled program."""

import math
import re

_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)
_BITS = re.compile(r"[a-z]+(\d+)")  # f32, bf16, s8, f8e4m3fn; pred is a byte


def traffic(program: str) -> dict[str, int]:
    """Returns the bytes per device and call of each kind of collective in compiled HLO.

    The size of a collective is that of its result; a collective in a loop is counted once.
    """
    total: dict[str, int] = {}
    pattern = re.compile(rf"= (.*?) ({'|'.join(_COLLECTIVES)})(?:-start)?\(")
    for line in program.splitlines():
        match = pattern.search(line)
        if not match:
            continue
        shapes = re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", match.group(1))
        sizes = [
            _size(kind) * math.prod(int(n) for n in sides.split(",") if n) for kind, sides in shapes
        ]
        if f"{match.group(2)}-start(" in line:  # here the results follow the operands
            if match.group(2) == "all-gather":
                sizes = sizes[len(sizes) // 2 :]
            elif match.group(2) == "collective-permute":
                sizes = sizes[1:2]
        size = sum(sizes)
        total[match.group(2)] = total.get(match.group(2), 0) + size
    return total


def _size(kind: str) -> int:
    """Returns the bytes of an element of an HLO type."""
    match = _BITS.match(kind)
    return max(1, int(match.group(1)) // 8) if match else 1
