"""Dominance and nearest distances of many points, in linear memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core.arrays import Mask

BLOCK = 1024  # points per comparison, with as many others or four times as many


def non_dominated(losses: Tensor) -> Tensor:
    """The mask of points that no other point dominates.

    A point dominates another if it is at most as large in every task and smaller in one.

    The memory is O(N T); the time O(N log N) for two tasks, and O(N F T) with F points kept for more.

    Args:
        losses: (N, T); non-finite rows count as dominated; equal rows are all kept.

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
    points, place = torch.unique(values[finite] + 0, dim=0, return_inverse=True)  # + 0: removes the sign of zeros
    result = finite.clone()
    result[finite] = (_two_tasks(points) if points.shape[1] <= 2 else _many_tasks(points))[place]
    return result


def _two_tasks(points: Tensor) -> Tensor:
    """(M,) mask of distinct points of one or two tasks, in lexicographic order."""
    last = points[:, -1]
    kept = torch.ones(len(points), dtype=torch.bool, device=points.device)
    if points.shape[1] == 1:
        kept[1:] = False
    else:
        kept[1:] = last[1:] < last.cummin(dim=0).values[:-1]
    return kept


def _many_tasks(points: Tensor) -> Tensor:
    """(M,) mask of distinct points in lexicographic order.

    A dominated point is dominated by an earlier one that is kept. NumPy compares several times faster than torch.
    """
    columns = np.ascontiguousarray(points.cpu().numpy().T)  # contiguous for the comparison task by task
    kept = np.zeros(len(points), bool)
    front = columns[:, :0]
    for start in range(0, len(points), BLOCK):
        block = columns[:, start : start + BLOCK]
        index = np.arange(start, start + block.shape[1])
        for place in range(0, front.shape[1], 4 * BLOCK):
            remaining = ~_no_worse(front[:, place : place + 4 * BLOCK], block).any(axis=1)
            block, index = block[:, remaining], index[remaining]
        remaining = ~np.tril(_no_worse(block, block), -1).any(axis=1)
        kept[index[remaining]] = True
        front = np.concatenate([front, block[:, remaining]], axis=1)
    return torch.from_numpy(kept).to(points.device)


def _no_worse(these: NDArray[Any], those: NDArray[Any]) -> Mask:
    """(n, m) mask: for points (T, n), whether a point of (T, m) is at most as large in all tasks but the first."""
    result: Mask = these[1] <= those[1, :, None]
    for task in range(2, len(these)):
        result &= these[task] <= those[task, :, None]
    return result


def nearest_distances(points: Tensor) -> Tensor:
    """(N,) distance of each of (N, T) points to its nearest neighbour, in memory O(N BLOCK).

    Example:
        >>> nearest_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]))
        tensor([5., 1., 1.])
    """
    nearest = []
    for start in range(0, len(points), BLOCK):
        distances = torch.cdist(points[start : start + BLOCK], points)
        distances.diagonal(start).fill_(torch.inf)
        nearest.append(distances.min(dim=1).values)
    return torch.cat(nearest)
