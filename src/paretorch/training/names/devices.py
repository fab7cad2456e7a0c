"""Devices by name."""

from __future__ import annotations

import torch


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
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in available:
        raise ValueError(expected)
    if not available[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(
            f"device {name!r} is not available: this torch ({torch.__version__}) finds no such device. Use 'cpu'"
        )
    return device
