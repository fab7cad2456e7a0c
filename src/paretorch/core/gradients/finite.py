"""Whether gradients contain inf or nan, by one sum over all of their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import summing_dtype

WIDE = (torch.float32, torch.float64)


def all_finite(parts: Sequence[Tensor | None]) -> bool:
    """Whether all numbers are finite: by the sums, and entry by entry where a sum is not."""
    total = total_sum(parts)
    if total is None or math.isfinite(total):
        return True
    return all(bool(torch.isfinite(_values(part)).all()) for part in parts if part is not None)


def total_sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    """() the sum of all numbers, which is finite only where all numbers are; None without a part."""
    sums = [tensor_sum(part) for part in parts if part is not None]
    return torch.stack(sums).sum() if sums else None


def tensor_sum(part: Tensor) -> Tensor:
    """() the sum of the numbers of a tensor, in float32 or wider."""
    values = _values(part)
    return values.sum() if values.dtype in WIDE else values.sum(dtype=summing_dtype(values.dtype))


def _values(part: Tensor) -> Tensor:
    """The real numbers in a dense, sparse or complex tensor."""
    dense = part.coalesce().values() if part.is_sparse else part
    return torch.view_as_real(dense) if dense.is_complex() else dense
