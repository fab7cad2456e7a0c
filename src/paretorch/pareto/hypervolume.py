"""The exact hypervolume and its gradient, for any number of tasks."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.option_checks import is_number
from paretorch.pareto.dominance import non_dominated


def check_reference(point: Sequence[float], tasks: Sequence[str]) -> None:
    """Checks that a reference point has a finite value for each task.

    Raises:
        ValueError: it has not.
    """
    if not all(is_number(value) and math.isfinite(value) for value in point):
        raise ValueError(f"a reference is a finite number for each of {tuple(tasks)}, got {tuple(point)}")
    if len(point) != len(tasks):
        raise ValueError(f"the reference has {len(point)} values for the {len(tasks)} tasks {tuple(tasks)}")


def hypervolume(losses: Tensor, reference: Tensor) -> float:
    r"""The volume that a set of points dominates below a reference point.

    .. math:: \mathrm{vol} \bigcup_i [L_{i1}, r_1] \times \dots \times [L_{iT}, r_T]

    A point that is not below the reference in every task contributes nothing. With more than three tasks, moocore computes the
    volume if it is installed; the values agree to rounding.

    Args:
        losses: (N, T) on the host.
        reference: (T,) finite.

    Raises:
        ValueError: the shapes do not fit, or the reference is not finite.

    Example:
        >>> hypervolume(torch.tensor([[0.0, 0.5], [0.5, 0.0]]), torch.tensor([1.0, 1.0]))
        0.75

    References:
        Zitzler & Thiele, "Multiobjective optimization using evolutionary algorithms", PPSN 1998.
    """
    points, corner = _checked(losses, reference)
    points = points[(points < corner).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] > 3 and importlib.util.find_spec("moocore") is not None:
        return float(importlib.import_module("moocore").hypervolume(points, ref=corner))
    return _volume(points, corner)


def hypervolume_gradient(losses: Tensor, reference: Tensor) -> Tensor:
    r"""The derivative of the hypervolume by the decrease of each loss of each point.

    .. math:: h_{it} = -\frac{\partial H}{\partial L_{it}}

    It is the (T - 1)-dimensional volume of the facet at level L_it that belongs to point i alone. Zero for points that are
    dominated or not below the reference.

    Args:
        losses: (N, T) on the host; if two points share a value of a task, the derivative is one-sided.
        reference: (T,).

    Returns:
        (N, T) float64, at least zero.

    Example:
        >>> hypervolume_gradient(torch.tensor([[0.0, 0.5], [0.5, 0.0]]), torch.tensor([1.0, 1.0]))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]], dtype=torch.float64)

    References:
        Emmerich & Deutz, "Time complexity and zeros of the hypervolume indicator gradient field", EVOLVE 2014, section 3.
    """
    points, corner = _checked(losses, reference)
    count, tasks = points.shape
    inside = (points < corner).all(axis=1)
    kept = non_dominated(torch.from_numpy(points)).numpy() & inside
    result = np.zeros((count, tasks))
    for task in range(tasks):
        others = np.arange(tasks) != task
        flat, edge = points[:, others], corner[others]
        for row in np.flatnonzero(kept):
            below = kept & (points[:, task] <= points[row, task])
            below[row] = False
            covered = np.append(flat[below], flat[row][None], axis=0)
            result[row, task] = _volume(covered, edge) - _volume(flat[below], edge)
    return torch.from_numpy(np.maximum(result, 0.0))


def _checked(losses: Tensor, reference: Tensor) -> tuple[Array, Array]:
    if losses.ndim != 2 or reference.shape != losses.shape[1:]:
        raise ValueError(
            f"hypervolume: expected losses (N, T) and a reference of T values, got shapes {tuple(losses.shape)} "
            f"and {tuple(reference.shape)}"
        )
    corner = reference.detach().cpu().double().numpy()
    if not np.isfinite(corner).all():
        raise ValueError(f"hypervolume: the reference is finite, got {corner.tolist()}")
    return losses.detach().cpu().double().numpy(), corner


def _volume(points: Array, corner: Array) -> float:
    """The volume of points below the corner, by slices along the last task."""
    if not len(points):
        return 0.0
    if len(corner) == 0:
        return 1.0
    if len(corner) == 1:
        return float(corner[0] - points.min())
    if len(corner) == 2:
        order = points[:, 0].argsort(kind="stable")
        lowest = np.minimum.accumulate(points[order, 1])
        widths = np.diff(points[order, 0], append=corner[0])
        return float(widths @ (corner[1] - lowest))
    order = points[:, -1].argsort(kind="stable")
    heights = np.diff(points[order, -1], append=corner[-1])
    return float(
        sum(
            height * _volume(points[order[: k + 1], :-1], corner[:-1]) for k, height in enumerate(heights) if height > 0
        )
    )
