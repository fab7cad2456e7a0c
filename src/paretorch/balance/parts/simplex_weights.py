"""Weights on the simplex that a method carries from step to step, while tasks may be absent."""

from __future__ import annotations

import torch
from torch import Tensor


def of_present(weights: Tensor, present: Tensor) -> Tensor:
    """(T,) the weights of the present tasks as shares of one; even where they have none."""
    chosen = weights.to("cpu", torch.float64)[present]
    total = chosen.sum()
    return chosen / total if total > 0 else torch.full_like(chosen, 1 / len(chosen))


def put_back(weights: Tensor, present: Tensor, shares: Tensor) -> Tensor:
    """(all,) the weights after the present tasks have divided anew what they hold together."""
    moved = weights.to("cpu", torch.float64, copy=True)
    held = moved[present].sum()
    if not held > 0:  # all of it lies with tasks that are away: the present ones take the part that is their number's
        held = present.double().mean()
        moved[~present] *= 1 - held
    moved[present] = shares * held
    return moved
