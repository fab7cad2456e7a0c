"""Weights on the simplex that a method keeps from step to step, while tasks may be absent."""

from __future__ import annotations

import torch
from torch import Tensor


def present_weights(weights: Tensor, present: Tensor) -> Tensor:
    """(T,) the weights of the present tasks, normalized to sum to one; equal where all are zero."""
    chosen = weights.to("cpu", torch.float64)[present]
    total = chosen.sum()
    return chosen / total if total > 0 else torch.full_like(chosen, 1 / len(chosen))


def with_present_weights(weights: Tensor, present: Tensor, shares: Tensor) -> Tensor:
    """(all,) the weights with the (T,) shares for the present tasks, whose sum is unchanged."""
    updated = weights.to("cpu", torch.float64, copy=True)
    total = updated[present].sum()
    if not total > 0:  # absent tasks have all the weight: the present ones receive a part in proportion to their number
        total = present.double().mean()
        updated[~present] *= 1 - total
    updated[present] = shares * total
    return updated
