"""Comparisons of tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def equal_tensors(left: Iterable[Tensor], right: Iterable[Tensor]) -> bool:
    """Whether both have the same tensors, at least one, bit for bit."""
    pairs = list(zip(left, right, strict=True))
    return len(pairs) > 0 and all(torch.equal(one, other) for one, other in pairs)
