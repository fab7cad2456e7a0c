"""Dominance and distances among many points, in memory that grows with their number and not with its square."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core.arrays import Mask

BLOCK = 1024  # points that are compared at once with as many others, or four times as many


def non_dominated(losses: Tensor) -> Tensor:
    """Which points no other point dominates: is at most as large in every task and smaller in one.

    The memory is O(N T); the time O(N log N) for two tasks, and O(N F T) with F points kept for more.

    Args:
        losses: (N, T); a row that is not finite counts as dominated. Of equal rows all are kept.

    Returns:
        (N,) bool.

    Example:
        >>> non_dominated(torch.tensor([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]]))
        tensor([ True,  True, False])

    References:
        Kung, Luccio & Preparata, "On finding the maxima of a set of vectors", Journal of the ACM 1975: sorted points, of which
        none dominates one before it.
    """
    values = losses.detach()
    finite: Tensor = values.isfinite().all(dim=1)
    if not values.shape[1] or not bool(finite.any()):
        return finite
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    points, place = torch.unique(values[finite] + 0, dim=0, return_inverse=True)  # + 0: no zero has a sign
    result = finite.clone()
    result[finite] = (_of_two(points) if points.shape[1] <= 2 else _of_many(points))[place]
    return result


def _of_two(points: Tensor) -> Tensor:
    """(M,) of points of one or two tasks that all differ, sorted by the first and then the second value."""
    last = points[:, -1]
    kept = torch.ones(len(points), dtype=torch.bool, device=points.device)
    if points.shape[1] == 1:
        kept[1:] = False
    else:
        kept[1:] = last[1:] < last.cummin(dim=0).values[:-1]
    return kept


def _of_many(points: Tensor) -> Tensor:
    """(M,) of points that all differ, sorted by the first value, then by the second, and so on.

    A point is dominated only by one before it, and then by one before it that is kept. NumPy compares several times faster.
    """
    columns = np.ascontiguousarray(points.cpu().numpy().T)  # compared task by task: neighbours in memory
    kept = np.zeros(len(points), bool)
    front = columns[:, :0]
    for start in range(0, len(points), BLOCK):
        block = columns[:, start : start + BLOCK]
        index = np.arange(start, start + block.shape[1])
        for place in range(0, front.shape[1], 4 * BLOCK):
            left = ~_no_worse(front[:, place : place + 4 * BLOCK], block).any(axis=1)
            block, index = block[:, left], index[left]
        left = ~np.tril(_no_worse(block, block), -1).any(axis=1)
        kept[index[left]] = True
        front = np.concatenate([front, block[:, left]], axis=1)
    return torch.from_numpy(kept).to(points.device)


def _no_worse(these: NDArray[Any], those: NDArray[Any]) -> Mask:
    """(n, m) which of (T, n) points have one of (T, m) that is at most as large in all tasks but the first, of sorted points."""
    result: Mask = these[1] <= those[1, :, None]
    for task in range(2, len(these)):
        result &= these[task] <= those[task, :, None]
    return result


def nearest_distances(points: Tensor) -> Tensor:
    """(N,) how far each of (N, T) points is from the nearest other one, in memory O(N BLOCK).

    Example:
        >>> nearest_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]))
        tensor([5., 1., 1.])
    """
    nearest = []
    for start in range(0, len(points), BLOCK):
        apart = torch.cdist(points[start : start + BLOCK], points)
        apart.diagonal(start).fill_(torch.inf)
        nearest.append(apart.min(dim=1).values)
    return torch.cat(nearest)
