"""Hypervolume subset selection: the best N of many points."""

from __future__ import annotations

import torch
from torch import Tensor

PASSES = 20  # maximum number of exchange passes


def best_subset(points: Tensor, count: int, reference: Tensor) -> Tensor:
    """A subset of large hypervolume: a greedy choice, improved by single exchanges until none increases it.

    Args:
        points: (M, T) candidates.
        count: N.
        reference: (T,) reference point of the hypervolume.

    Returns:
        (N,) distinct rows in ascending order, even if further points add nothing; a local optimum of the exchanges, not
        always the global one.

    Raises:
        ValueError: fewer than ``count`` points are below the reference, or ``count`` is below 1.

    Example:
        >>> line = torch.linspace(0, 1, 101, dtype=torch.float64)
        >>> best_subset(torch.stack([line, 1 - line], dim=1), 3, torch.ones(2))
        tensor([25, 50, 75])

    References:
        Bringmann, Friedrich & Klitzke, "Two-dimensional subset selection for hypervolume and epsilon-indicator", GECCO 2014,
        whose exact algorithm is for two tasks; ours is for any number.
    """
    corner = reference.to(points)
    below = (points < corner).all(dim=1)
    if count < 1:
        raise ValueError(f"count is at least 1, got {count}")
    if int(below.sum()) < count:
        raise ValueError(
            f"{int(below.sum())} points lie below the reference {reference.tolist()}, expected at least {count}"
        )
    candidates = points[below]
    chosen: list[int] = []
    for _ in range(count):
        found = gains(candidates, candidates[chosen], corner)
        found[chosen] = -1  # each point at most once, even if all others add nothing
        chosen.append(int(found.argmax()))
    for _ in range(PASSES):
        before = list(chosen)
        for place in range(count):
            others = chosen[:place] + chosen[place + 1 :]
            found = gains(candidates, candidates[others], corner)
            found[others] = -1
            best = int(found.argmax())
            if float(found[best]) > float(found[chosen[place]]) * (1 + 1e-12):
                chosen[place] = best
        if chosen == before:
            break
    rows: Tensor = below.nonzero()[:, 0][torch.tensor(sorted(chosen))]
    return rows


def gains(points: Tensor, chosen: Tensor, reference: Tensor) -> Tensor:
    r"""The increase of the hypervolume of chosen points by each of others.

    Space is divided into cells at the values of the chosen points; a point adds its part of the cells that none of them
    dominates.

    Args:
        points: (M, T) below the reference.
        chosen: (N, T) below the reference; (0, T) for none.
        reference: (T,).

    Returns:
        (M,) increases; the memory is M (N + 1)^T values.

    Example:
        >>> gains(torch.tensor([[0.0, 0.5]]), torch.tensor([[0.5, 0.0]]), torch.ones(2))
        tensor([0.2500])
    """
    tasks = points.shape[1]
    free = torch.ones((len(chosen) + 1,) * tasks, dtype=torch.bool)
    covered = []
    edges = torch.cat([points.min(dim=0).values[None], chosen.sort(dim=0).values, reference[None]])
    for task in range(tasks):
        low, high = edges[:-1, task], edges[1:, task]
        covered.append((high - torch.maximum(low, points[:, task, None])).clamp_min(0))
    for point in chosen:
        inside = [edges[:-1, task] >= point[task] for task in range(tasks)]
        free[torch.meshgrid(*[part.nonzero()[:, 0] for part in inside], indexing="ij")] = False
    total = free.to(points) @ covered[-1].T  # (..., M): each product sums one axis of cells
    for part in reversed(covered[:-1]):
        total = (total * part.T).sum(dim=-2)
    return total
