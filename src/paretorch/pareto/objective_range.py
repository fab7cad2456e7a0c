"""The range of each task's losses, from the ideal to the nadir point, and its estimate during training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.scalarize import Scalarization

SMOOTH = 0.9  # of the running means of losses: the least loss of single batches is too noisy
LEAST = 0.1  # the smallest range, relative to the initial size of a task's losses


@dataclass(frozen=True)
class ObjectiveRange:
    r"""The range of each task's losses, by which a scalarization normalizes them.

    .. math:: F(\theta) = s\big((L(\theta) - z^{ideal}) / (z^{nadir} - z^{ideal});\; w\big)

    The scalarization of normalized losses does not depend on the units of the losses. The learning rate of plain descent is
    relative to the range.

    Args:
        ideal: (T,) or (n, T) the least losses.
        nadir: the largest losses, of the same shape.

    Example:
        >>> from paretorch.pareto import WeightedSum
        >>> half, losses = torch.tensor([[0.5, 0.5]]), torch.tensor([[3.0, 400.0]])
        >>> ObjectiveRange(torch.tensor([2.0, 200.0]), torch.tensor([4.0, 600.0])).value(WeightedSum(), losses, half)
        tensor([0.5000])

    References:
        Miettinen, "Nonlinear Multiobjective Optimization", 1999, section 2.4: ideal and nadir point, and the
        normalization by their distance.
    """

    ideal: Tensor
    nadir: Tensor

    def value(self, scalarization: Scalarization, losses: Tensor, preferences: Tensor) -> Tensor:
        """(n,) the scalarization of (n, T) normalized losses."""
        return scalarization.value(self._normalized(losses), preferences)

    def weights(self, scalarization: Scalarization, losses: Tensor, preferences: Tensor) -> Tensor:
        """(n, T) its derivatives by the losses."""
        return scalarization.weights(self._normalized(losses), preferences) / (self.nadir - self.ideal).to(losses)

    def _normalized(self, losses: Tensor) -> Tensor:
        ideal, nadir = self.ideal.to(losses), self.nadir.to(losses)
        return (losses - ideal) / (nadir - ideal)


class RangeTracker:
    """An estimate of the objective range from the members' running mean losses.

    The ideal point is the least mean of any member so far; the nadir point is the largest of the members that are
    non-dominated now.

    Attributes:
        means: (N, T) running means; nan for tasks without a loss so far.
        ideal: (T,).
        least: (T,) the smallest range.
    """

    def __init__(self, members: int, tasks: int) -> None:
        self.means = torch.full((members, tasks), torch.nan, dtype=torch.float64)
        self.ideal = torch.full((tasks,), torch.inf, dtype=torch.float64)
        self.least = torch.full((tasks,), torch.nan, dtype=torch.float64)

    def add(self, losses: Tensor, active: Tensor) -> None:
        """Adds the losses of a step.

        Args:
            losses: (N, T), nan for absent tasks.
            active: (N,) mask of the members that count.
        """
        observed = losses.isfinite() & active[:, None]
        first = self.means.isnan()
        means = torch.where(first, losses, SMOOTH * self.means + (1 - SMOOTH) * losses)
        self.means = torch.where(observed, means, self.means)
        known = self.means.isfinite() & active[:, None]
        self.ideal = torch.minimum(self.ideal, torch.where(known, self.means, torch.inf).min(dim=0).values)
        size = LEAST * torch.where(known, self.means.abs(), torch.nan).nanmean(dim=0)
        self.least = torch.where(self.least.isnan(), size, self.least)

    def range(self, losses: Tensor, active: Tensor, present: Tensor) -> ObjectiveRange:
        """The range of the present tasks; from zero to the given losses until every task has had a loss.

        Args:
            losses: (n, present tasks) of n members in this step.
            active: (N,) mask of the members that count.
            present: (T,) mask of the present tasks.
        """
        complete = self.means.isfinite().all(dim=1) & active
        if not bool(complete.any()):
            return ObjectiveRange(torch.zeros_like(losses), losses.abs().clamp_min(1e-12))
        front = self.means[complete]
        nadir = front[non_dominated(front)].max(dim=0).values
        nadir = torch.maximum(nadir, self.ideal + self.least.clamp_min(1e-12))
        return ObjectiveRange(self.ideal[present], nadir[present])
