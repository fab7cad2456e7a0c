"""Adam on one scalar for each task, for methods with learned weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """The state of Adam for all declared tasks: first and second moments, and the number of steps of each scalar."""

    first: Tensor
    second: Tensor
    taken: Tensor


def adam(
    values: Tensor,
    gradient: Tensor,
    moments: Moments,
    present: Tensor,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[Tensor, Moments]:
    """One step of Adam (eps 1e-8) on the scalars of the present tasks; the state of absent tasks is unchanged.

    Args:
        values: (all,) the scalars.
        gradient: (T,) for the present tasks.
        moments: before the step.
        present: (all,) mask.
        rate: the learning rate.
        betas: the decay rates of the moments.

    Returns:
        (all,) the scalars after the step, and the moments.
    """
    first, second, taken = moments.first.clone(), moments.second.clone(), moments.taken.clone()
    first[present] = betas[0] * first[present] + (1 - betas[0]) * gradient
    second[present] = betas[1] * second[present] + (1 - betas[1]) * gradient.square()
    taken[present] += 1
    mean = first[present] / (1 - betas[0] ** taken[present])
    size = (second[present] / (1 - betas[1] ** taken[present])).sqrt() + 1e-8
    moved = values.clone()
    moved[present] -= rate * mean / size
    return moved, Moments(first, second, taken)


def no_moments(values: Tensor) -> Moments:
    """The moments before the first step."""
    return Moments(torch.zeros_like(values), torch.zeros_like(values), torch.zeros_like(values))
