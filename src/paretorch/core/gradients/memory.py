"""Whether the gradients of all tasks, kept side by side, find room in memory."""

from __future__ import annotations

import os
from functools import lru_cache

import torch


def check_memory(tasks: int, numbers: int, dtype: torch.dtype, device: torch.device) -> None:
    """The gradients of T tasks with respect to n numbers fit into the memory that the device has.

    Args:
        tasks: T; ``numbers``: n; ``dtype`` and ``device``: what they are kept in, and where.

    Raises:
        ValueError: they do not; says how large they are, and what needs less.
    """
    size, there = tasks * numbers * dtype.itemsize, memory(device)
    if there is not None and size > there:
        raise ValueError(
            f"the gradients of {tasks} tasks with respect to {numbers:,} numbers take {size / 2**30:.3g} GiB, and {device} has "
            f"{there / 2**30:.3g} GiB: balance on the features (pt.Fork, where the method can be used on them), on fewer "
            "parameters (shared=, for example the last shared layer), or with a method that needs inner products only"
        )


@lru_cache(maxsize=16)
def memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has in all; None where that cannot be asked."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
