"""Preferences: weights of the tasks, as vectors on the simplex."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretorch.core.option_checks import check_choice, is_number

KINDS = ("even", "uniform", "dirichlet")
TOLERANCE = 1e-6  # of the sum of a given preference, for float32 values
CANDIDATES = 2000  # lattice points from which counts without a lattice of their own are chosen


def preferences(
    tasks: int, count: int, *, kind: str = "even", margin: float = 0.0, concentration: float = 1.0, seed: int = 0
) -> Tensor:
    r"""``count`` preferences for ``tasks`` tasks, in order of decreasing weight of the first.

    ``"even"`` is the lattice of all vectors whose entries are multiples of 1/H, which has (H + T - 1 choose T - 1) points:
    for two tasks every count, for three 3, 6, 10, 15, 21, ... For other counts, points of a finer lattice are chosen one
    after another, each the farthest from those chosen before, the corners first. ``"uniform"`` samples the simplex
    uniformly, ``"dirichlet"`` with ``concentration``: below 1 near the corners, above 1 near the centre.

    Args:
        tasks: T, at least 2.
        count: N, at least 1; a single preference is the centre.
        kind: ``"even"``, ``"uniform"`` or ``"dirichlet"``.
        margin: the least weight of a task, in [0, 1/T): points are contracted towards the centre.
        concentration: of ``"dirichlet"``, above 0.
        seed: of the two random kinds.

    Returns:
        (N, T) float64; rows sum to one.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> preferences(tasks=2, count=3)
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000],
                [0.0000, 1.0000]], dtype=torch.float64)

    References:
        Das & Dennis, "Normal-boundary intersection", SIAM Journal on Optimization 1998, section 4.
    """
    check_choice("kind", kind, KINDS)
    if tasks < 2:
        raise ValueError(f"preferences are between at least 2 tasks, got tasks={tasks}")
    if count < 1:
        raise ValueError(f"count is at least 1 preference, got {count}")
    if not 0 <= margin < 1 / tasks:
        raise ValueError(f"margin is in [0, 1/T) = [0, {1 / tasks:.4g}), got {margin}")
    if not (math.isfinite(concentration) and concentration > 0):
        raise ValueError(f"concentration is above 0, got {concentration}")
    if kind == "even":
        points = _even(tasks, count)
    else:
        shape = np.full(tasks, concentration if kind == "dirichlet" else 1.0)
        points = np.random.default_rng(seed).dirichlet(shape, size=count)
        points = points[np.lexsort(points.T[::-1])][::-1].copy()
    inner = torch.from_numpy(points)
    return margin + (1 - tasks * margin) * inner


def _even(tasks: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if count == 1:
        return np.full((1, tasks), 1 / tasks)
    steps = 1
    while math.comb(steps + tasks - 1, tasks - 1) < count:
        steps += 1
    if math.comb(steps + tasks - 1, tasks - 1) == count:
        return _lattice(tasks, steps)
    while math.comb(steps + tasks, tasks - 1) < CANDIDATES:
        steps += 1
    return _far_apart(_lattice(tasks, steps), count)


def _lattice(tasks: int, steps: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    bars = itertools.combinations(range(steps + tasks - 1), tasks - 1)
    edges = np.array([(-1, *bar, steps + tasks - 1) for bar in bars])
    return (np.diff(edges, axis=1) - 1)[::-1] / steps


def _far_apart(
    points: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """``count`` of the points, each the farthest from those chosen before; the first is a corner."""
    chosen = [0]
    distance = ((points - points[0]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[sorted(chosen)]


def checked_preferences(given: Tensor | Sequence[Sequence[float]], tasks: tuple[str, ...]) -> Tensor:
    """Checked preferences (N, T) in float64, normalized to the sum one.

    Args:
        given: (N, T), a tensor or rows of numbers.
        tasks: (T,) names.

    Raises:
        ValueError: a row has another length, a value that is negative or not finite, or does not sum to one.

    Example:
        >>> checked_preferences([(0.7, 0.4)], ("a", "b"))
        Traceback (most recent call last):
        ...
        ValueError: preference 0 is [0.7, 0.4]: expected values of at least 0 that sum to 1, got the sum 1.1; divide by it
    """
    if (isinstance(given, Tensor) and given.ndim != 2) or any(isinstance(row, int | float) for row in given):
        raise ValueError(
            "preferences are rows, one for each model: expected [(0.5, 0.5), ...], got a flat list of numbers"
        )
    lengths = {len(row) for row in given}
    if lengths and lengths != {len(tasks)}:
        wrong = next(length for length in sorted(lengths) if length != len(tasks))
        raise ValueError(f"a preference has one value for each of the {len(tasks)} tasks {tasks}, got {wrong} values")
    if not isinstance(given, Tensor) and not all(map(_is_number, itertools.chain.from_iterable(given))):
        raise ValueError(f"preferences are rows of numbers, one for each of {tasks}, got {list(given)!r}")
    values = torch.as_tensor(given, dtype=torch.float64).detach().cpu().clone()
    if values.ndim != 2 or not len(values):
        raise ValueError(f"preferences are (N, T) with N >= 1, got shape {tuple(values.shape)}")
    for place, row in enumerate(values):
        total = float(row.sum())
        if not bool(row.isfinite().all()) or float(row.min()) < 0:
            raise ValueError(
                f"preference {place} is {row.tolist()}: expected finite values of at least 0 that sum to 1"
            )
        if abs(total - 1) > TOLERANCE:
            raise ValueError(
                f"preference {place} is {row.tolist()}: expected values of at least 0 that sum to 1, got the sum "
                f"{total:.6g}; divide by it"
            )
    return values / values.sum(dim=1, keepdim=True)


def drawn(count: int, tasks: int, concentration: float, generator: torch.Generator) -> Tensor:
    """(count, T) preferences in float64 from the Dirichlet distribution, seeded by the generator's next number.

    Args:
        count: number of preferences.
        tasks: T.
        concentration: of every task, above 0.
        generator: on the host.

    Example:
        >>> drawn(3, 2, 1.0, torch.Generator().manual_seed(0)).sum(dim=1)
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(tasks, concentration), size=count))


def rays(weights: Tensor, floor: float = 0.02) -> Tensor:
    r"""Directions in which the weighted losses are equal; for weights above the floor the map is its own inverse.

    .. math:: d_t \propto \frac{1}{\max(w_t, \epsilon)}

    Args:
        weights: (N, T) on the simplex.
        floor: epsilon, lower bound of the weights, in (0, 1/T), so that a weight of zero has a finite direction.

    Returns:
        (N, T) on the simplex.

    Example:
        >>> rays(torch.tensor([[0.8, 0.2]]))
        tensor([[0.2000, 0.8000]])

    References:
        Qi et al., "MOEA/D with adaptive weight adjustment", Evolutionary Computation 2014, section 3.1.
    """
    inverse = 1 / weights.clamp_min(floor)
    return inverse / inverse.sum(dim=1, keepdim=True)


def _is_number(value: object) -> bool:
    return is_number(value) or (isinstance(value, Tensor) and not value.ndim)
