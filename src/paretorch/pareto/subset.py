"""Which few of many points dominate the most: what a front of N models could be worth at best."""

from __future__ import annotations

import torch
from torch import Tensor

PASSES = 20  # of exchanges, at most


def best_subset(points: Tensor, count: int, reference: Tensor) -> Tensor:
    """Points of large joint hypervolume: the greedy choice, improved by exchanging one at a time until none gains.

    Args:
        points: (M, T) to choose from.
        count: N, how many.
        reference: (T,) from which the hypervolume is measured.

    Returns:
        (N,) rows, ascending and all different, even where further points gain nothing; a local optimum of the exchanges, not
        proven to be the best of all.

    Raises:
        ValueError: fewer points than wanted lie below the reference, or none is wanted.

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
        raise ValueError(f"{int(below.sum())} points lie below the reference {reference.tolist()}, {count} are wanted")
    candidates = points[below]
    chosen: list[int] = []
    for _ in range(count):
        found = gains(candidates, candidates[chosen], corner)
        found[chosen] = -1  # a point is taken once, though all others gain nothing
        chosen.append(int(found.argmax()))
    for _ in range(PASSES):
        before = list(chosen)
        for place in range(count):
            rest = chosen[:place] + chosen[place + 1 :]
            found = gains(candidates, candidates[rest], corner)
            found[rest] = -1
            best = int(found.argmax())
            if float(found[best]) > float(found[chosen[place]]) * (1 + 1e-12):
                chosen[place] = best
        if chosen == before:
            break
    rows: Tensor = below.nonzero()[:, 0][torch.tensor(sorted(chosen))]
    return rows


def gains(points: Tensor, chosen: Tensor, reference: Tensor) -> Tensor:
    r"""By how much the hypervolume of some points grows with each of others.

    Space is cut into cells at the chosen points' values; a point adds what it covers of the cells that none of them dominates.

    Args:
        points: (M, T) below the reference.
        chosen: (N, T) below the reference; (0, T) for none.
        reference: (T,).

    Returns:
        (M,) gains; costs M (N + 1)^T numbers.

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
    total = free.to(points) @ covered[-1].T  # (..., M): one axis of cells less at each turn
    for part in reversed(covered[:-1]):
        total = (total * part.T).sum(dim=-2)
    return total
