"""Where the losses of a front lie, from the ideal point to the nadir point, tracked while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.pareto.dominance import non_dominated
from paretorch.pareto.scalarize import Scalarization

SMOOTH = 0.9  # of the running means of losses: single batches are too noisy to be anyone's least loss
LEAST = 0.1  # of its size at the beginning, to which a task's range may shrink


@dataclass(frozen=True)
class ObjectiveRange:
    r"""The range of each task's losses, in which a scalarization may measure them.

    .. math:: F(\theta) = s\big((L(\theta) - z^{ideal}) / (z^{nadir} - z^{ideal});\; w\big)

    A scalarization of these is the same in whatever units the tasks' losses are: its slopes have no unit, so the learning rate of
    plain descent is per range, not per loss.

    Args:
        ideal: (T,) or (n, T) the least losses.
        nadir: of the same shape, above them.

    Example:
        >>> from paretorch.pareto import WeightedSum
        >>> half, losses = torch.tensor([[0.5, 0.5]]), torch.tensor([[3.0, 400.0]])
        >>> ObjectiveRange(torch.tensor([2.0, 200.0]), torch.tensor([4.0, 600.0])).value(WeightedSum(), losses, half)
        tensor([0.5000])

    References:
        Miettinen, "Nonlinear Multiobjective Optimization", 1999, section 2.4: ideal and nadir, and losses in units of what lies
        between them.
    """

    ideal: Tensor
    nadir: Tensor

    def value(self, scalarization: Scalarization, losses: Tensor, preferences: Tensor) -> Tensor:
        """(n,) the scalarization of (n, T) losses in this range."""
        return scalarization.value(self._within(losses), preferences)

    def weights(self, scalarization: Scalarization, losses: Tensor, preferences: Tensor) -> Tensor:
        """(n, T) its slopes by the losses."""
        return scalarization.weights(self._within(losses), preferences) / (self.nadir - self.ideal).to(losses)

    def _within(self, losses: Tensor) -> Tensor:
        ideal, nadir = self.ideal.to(losses), self.nadir.to(losses)
        return (losses - ideal) / (nadir - ideal)


class RangeTracker:
    """Ideal and nadir of the members' running mean losses.

    The ideal point is the least that any member ever had; the nadir the largest of those that no other dominates now.

    Attributes:
        means: (N, T) running means; nan before a task was seen.
        ideal: (T,).
        least: (T,) what no range is below.
    """

    def __init__(self, members: int, tasks: int) -> None:
        self.means = torch.full((members, tasks), torch.nan, dtype=torch.float64)
        self.ideal = torch.full((tasks,), torch.inf, dtype=torch.float64)
        self.least = torch.full((tasks,), torch.nan, dtype=torch.float64)

    def add(self, losses: Tensor, active: Tensor) -> None:
        """The losses of a step.

        Args:
            losses: (N, T), nan where a task was absent.
            active: (N,) which members count.
        """
        seen = losses.isfinite() & active[:, None]
        first = self.means.isnan()
        means = torch.where(first, losses, SMOOTH * self.means + (1 - SMOOTH) * losses)
        self.means = torch.where(seen, means, self.means)
        known = self.means.isfinite() & active[:, None]
        self.ideal = torch.minimum(self.ideal, torch.where(known, self.means, torch.inf).min(dim=0).values)
        size = LEAST * torch.where(known, self.means.abs(), torch.nan).nanmean(dim=0)
        self.least = torch.where(self.least.isnan(), size, self.least)

    def extent(self, losses: Tensor, active: Tensor, present: Tensor) -> ObjectiveRange:
        """Of the tasks that are present; before every task was seen once, from zero to the losses at hand.

        Args:
            losses: (n, present tasks) of some members in this step.
            active: (N,) which members count.
            present: (T,) which tasks.
        """
        whole = self.means.isfinite().all(dim=1) & active
        if not bool(whole.any()):
            return ObjectiveRange(torch.zeros_like(losses), losses.abs().clamp_min(1e-12))
        front = self.means[whole]
        nadir = front[non_dominated(front)].max(dim=0).values
        nadir = torch.maximum(nadir, self.ideal + self.least.clamp_min(1e-12))
        return ObjectiveRange(self.ideal[present], nadir[present])
