"""The memory of a device."""

from __future__ import annotations

import os
from functools import lru_cache

import torch


@lru_cache(maxsize=16)
def total_memory(device: torch.device) -> int | None:
    """The total memory of a device in bytes; None where it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
