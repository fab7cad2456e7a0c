"""The memory that the gradients of all tasks need."""

from __future__ import annotations

import torch

from paretorch.device_memory import total_memory


def check_memory(tasks: int, numbers: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ValueError if the gradients of T tasks with respect to n numbers do not fit into the memory of the device.

    Args:
        tasks: T.
        numbers: n.
        dtype: of the gradients.
        device: of the gradients.
    """
    size, total = tasks * numbers * dtype.itemsize, total_memory(device)
    if total is not None and size > total:
        raise ValueError(
            f"the gradients of {tasks} tasks with respect to {numbers:,} numbers take {size / 2**30:.3g} GiB, and {device} has "
            f"{total / 2**30:.3g} GiB: balance on the features (paretorch.Fork, for methods that support it), on "
            "fewer parameters (shared=, for example the last shared layer), or with a method that needs the Gramian alone"
        )
