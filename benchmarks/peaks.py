"""Dense bfloat16 FLOPs a second of one device, by `device_kind`, as their makers state them."""

PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # two devices a chip
}


def peak_flops(device_kind: str) -> float | None:
    """FLOPs a second, or None for a device that is not in the table."""
    return PEAKS.get(device_kind)
