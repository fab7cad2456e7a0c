"""Devices by name."""

from __future__ import annotations

import torch


def available_devices() -> tuple[str, ...]:
    """The kinds of device of this machine that this build of torch supports, fastest first: of cuda, mps and cpu."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, is_available in available.items() if is_available)


def find_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        ValueError: it is no device, or this machine or this build of torch does not have it.
    """
    expected = f"device is 'cpu', 'cuda', 'cuda:0' or 'mps', got {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(expected) from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(expected)
    if device.type not in available_devices() or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ValueError(
            f"device {name!r} is not available: this torch ({torch.__version__}) finds no such device. Use 'cpu'"
        )
    return device
