"""Adaptation of preferences during training, towards the largest hypervolume or even spacing."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.pareto.hypervolume import hypervolume_gradient
from paretorch.pareto.preferences import rays

FLOOR = 0.005  # the least weight of a task: a loss of weight zero is not minimized
SMOOTH = 0.9  # of the running means of losses and weights
WARMUP = 0.05  # of the training, before the first update
EVERY = 4  # steps between two updates
RETURN = 0.02  # share of the distance to its initial preference, for a member that adds nothing to the hypervolume


class PreferenceAdapter:
    r"""Updates preferences until each member's task weights are proportional to the gradient of the front's quality.

    For a converged member, the weights :math:`\lambda_i = \partial s / \partial L` are a normal of the front. The
    hypervolume is stationary there if :math:`h_i = -\partial H / \partial L_i` is a normal too, so

    .. math:: w_{it} \leftarrow w_{it}\, e^{\rho (h_{it} - \lambda_{it})} / Z_i

    with both normalized to the sum one, as derivatives by losses divided by their range where the front normalizes them. The
    rule holds for any scalarization. A member beyond the reference point is moved towards it; one that adds nothing returns to
    its initial preference. For even spacing, the repulsive force between the losses replaces :math:`h - \lambda`.

    Args:
        kind: ``"hypervolume"`` or ``"spacing"``.
        rate: rho, in (0, 1].
        preferences: (N, T) initial ones.
        reference: (T,) reference point of the hypervolume.

    References:
        The fixed point is that of hypervolume gradient ascent, Wang et al., "Hypervolume indicator gradient ascent
        multi-objective optimization", EMO 2017; updating preferences instead of weights is ours.
    """

    def __init__(self, kind: str, rate: float, preferences: Tensor, reference: Tensor | None) -> None:
        self.kind, self.rate, self.reference = kind, rate, reference
        self.initial = _floored(preferences)
        self.losses: Tensor | None = None
        self.shares: Tensor | None = None
        self.steps = 0

    def update(
        self,
        preferences: Tensor,
        losses: Tensor,
        weights: Tensor,
        ranges: Tensor | None,
        progress: float,
        active: Tensor,
    ) -> Tensor:
        """(N, T) the preferences of the next step.

        Args:
            preferences: (N, T) of this step.
            losses: (N, T) of this step, nan for absent tasks.
            weights: (N, T) of the task gradients in this step.
            ranges: (T,) or (N, T) by which the scalarization divides the losses; None: it does not.
            progress: of the training, in [0, 1].
            active: (N,) mask of the members that train.
        """
        now = losses.cpu().double()
        if not bool(now[active].isfinite().all()) or not bool(active.any()):
            return preferences  # a task is absent in this batch: the front is unknown
        share = weights.cpu().double()
        if ranges is not None:
            share = share * ranges
        share = share / share.sum(dim=1, keepdim=True).clamp_min(1e-300)
        first = self.losses is None or self.shares is None
        self.losses = now if first else SMOOTH * self.losses + (1 - SMOOTH) * now  # type: ignore[operator]
        self.shares = share if first else SMOOTH * self.shares + (1 - SMOOTH) * share  # type: ignore[operator]
        self.steps += 1
        if progress < WARMUP or self.steps % EVERY:
            return preferences
        direction, known = self._direction(1.0 if ranges is None else ranges, active)
        rate = self.rate * EVERY * min(1.0, 2 * (1 - progress) + 0.01)
        moved = preferences * torch.exp(rate * direction)
        back = (1 - RETURN) * preferences + RETURN * self.initial
        return torch.where(active[:, None], _floored(torch.where(known[:, None], moved, back)), preferences)

    def _direction(self, ranges: Tensor | float, active: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T) changes of the task weights, and (N,) the mask of members for which they are known."""
        assert self.losses is not None
        assert self.shares is not None
        if self.kind == "spacing":
            return _repulsion(self.losses, active), active
        assert self.reference is not None
        losses = torch.where(active[:, None], self.losses, torch.inf)
        target = hypervolume_gradient(losses, self.reference) * ranges
        beyond = (self.losses - self.reference).clamp_min(0) / ranges
        target = torch.where((beyond.sum(dim=1) > 0)[:, None], beyond, target)
        total = target.sum(dim=1, keepdim=True)
        return target / total.clamp_min(1e-300) - self.shares, (total[:, 0] > 0) & active


def initial_preferences(preferences: Tensor) -> Tensor:
    """(N, T) initial preferences of an adaptation: their rays, instead of their weights, are distributed as the given ones.

    Each new preference is assigned to the member with the most similar given one, so that the order is kept.
    """
    free = list(range(len(preferences)))
    distributed = _floored(rays(preferences))
    result = torch.empty_like(distributed)
    for member in preferences.max(dim=1).values.argsort(descending=True, stable=True).tolist():
        nearest = min(free, key=lambda other: float((distributed[other] - preferences[member]).square().sum()))
        result[member] = distributed[nearest]
        free.remove(nearest)
    return result


def _repulsion(losses: Tensor, active: Tensor) -> Tensor:
    """(N, T) the negative repulsive force between points, of length at most one half."""
    low, high = losses[active].min(dim=0).values, losses[active].max(dim=0).values
    points = (losses - low) / (high - low).clamp_min(1e-12)
    difference = points[:, None, :] - points[None, :, :]
    distance = difference.norm(dim=2).clamp_min(1e-6)
    mask = active[None, :] & ~torch.eye(len(points), dtype=torch.bool)
    force = torch.where(mask[..., None], difference / distance[..., None] ** (points.shape[1] + 1), 0.0).sum(dim=1)
    length = force.norm(dim=1, keepdim=True)
    scale = length[active].median().clamp_min(1e-12)
    return -0.5 * force / torch.maximum(length, scale)


def _floored(preferences: Tensor) -> Tensor:
    values = preferences.clamp_min(FLOOR)
    return values / values.sum(dim=1, keepdim=True)
