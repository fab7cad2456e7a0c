"""Preferences that move while a front is trained, so that its points end where they are worth most."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.pareto.hypervolume import hypervolume_gradient
from paretorch.pareto.preferences import rays

FLOOR = 0.005  # the least that a task matters: a loss without weight would be left anywhere
SMOOTH = 0.9  # of the running means of losses and weights
SETTLE = 0.05  # of the training, before preferences first move
EVERY = 4  # steps between two moves
RETURN = 0.02  # part of the way back to where it began, for a member that adds nothing wherever it moves


class PreferenceAdapter:
    r"""Moves preferences until each member's task weights are what the front wants them to be.

    Where a member has converged, its weights :math:`\lambda_i = \partial s / \partial L` are a normal of the front. The
    hypervolume is stationary in its place where :math:`h_i = -\partial H / \partial L_i` is one too, so

    .. math:: w_{it} \leftarrow w_{it}\, e^{\rho (h_{it} - \lambda_{it})} / Z_i

    with both summing to one: a task that the hypervolume wants to matter more than it does gains preference. This holds for any
    scalarization. A member beyond the reference is moved towards it; one that adds nothing goes back to where it began. For even
    spacing, the force of repulsion between the losses takes the place of :math:`h - \lambda`.

    Args:
        kind: ``"hypervolume"`` or ``"spacing"``.
        rate: rho, in (0, 1].
        preferences: (N, T) where members begin.
        reference: (T,) of the hypervolume.

    References:
        The fixed point is that of hypervolume gradient ascent, Wang et al., "Hypervolume indicator gradient ascent
        multi-objective optimization", EMO 2017; that preferences are moved instead of weights is ours.
    """

    def __init__(self, kind: str, rate: float, preferences: Tensor, reference: Tensor | None) -> None:
        self.kind, self.rate, self.reference = kind, rate, reference
        self.home = _floored(preferences)
        self.losses: Tensor | None = None
        self.shares: Tensor | None = None
        self.steps = 0

    def move(self, preferences: Tensor, losses: Tensor, weights: Tensor, progress: float, active: Tensor) -> Tensor:
        """(N, T) the preferences of the next step.

        Args:
            preferences: (N, T) of this step.
            losses: (N, T) of this step, nan where a task was absent.
            weights: (N, T) of the task gradients in this step.
            progress: of the training, in [0, 1].
            active: (N,) which members train.
        """
        now = losses.double().cpu()
        if not bool(now[active].isfinite().all()) or not bool(active.any()):
            return preferences  # a task is absent in this batch: nothing is known about the front
        share = weights.double().cpu()
        share = share / share.sum(dim=1, keepdim=True).clamp_min(1e-300)
        first = self.losses is None or self.shares is None
        self.losses = now if first else SMOOTH * self.losses + (1 - SMOOTH) * now  # type: ignore[operator]
        self.shares = share if first else SMOOTH * self.shares + (1 - SMOOTH) * share  # type: ignore[operator]
        self.steps += 1
        if progress < SETTLE or self.steps % EVERY:
            return preferences
        pull, known = self._pull(active)
        rate = self.rate * EVERY * min(1.0, 2 * (1 - progress) + 0.01)
        moved = preferences * torch.exp(rate * pull)
        back = (1 - RETURN) * preferences + RETURN * self.home
        return torch.where(active[:, None], _floored(torch.where(known[:, None], moved, back)), preferences)

    def _pull(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T) by how much each task should matter more, and (N,) for which members that is known."""
        assert self.losses is not None
        assert self.shares is not None
        if self.kind == "spacing":
            return _repulsion(self.losses, active), active
        assert self.reference is not None
        seen = torch.where(active[:, None], self.losses, torch.inf)
        wanted = hypervolume_gradient(seen, self.reference)
        beyond = (self.losses - self.reference).clamp_min(0)
        wanted = torch.where((beyond.sum(dim=1) > 0)[:, None], beyond, wanted)
        total = wanted.sum(dim=1, keepdim=True)
        return wanted / total.clamp_min(1e-300) - self.shares, (total[:, 0] > 0) & active


def begin(preferences: Tensor) -> Tensor:
    """(N, T) where members begin whose preferences move: their rays, not their weights, are spread as the ones given.

    Each new preference goes to the member whose own it resembles most, so that their order stays.
    """
    free = list(range(len(preferences)))
    spread = _floored(rays(preferences))
    result = torch.empty_like(spread)
    for member in preferences.max(dim=1).values.argsort(descending=True, stable=True).tolist():
        nearest = min(free, key=lambda other: float((spread[other] - preferences[member]).square().sum()))
        result[member] = spread[nearest]
        free.remove(nearest)
    return result


def _repulsion(losses: Tensor, active: Tensor) -> Tensor:
    """(N, T) minus the force between points that repel one another, its length at most one half."""
    low, high = losses[active].min(dim=0).values, losses[active].max(dim=0).values
    points = (losses - low) / (high - low).clamp_min(1e-12)
    apart = points[:, None, :] - points[None, :, :]
    distance = apart.norm(dim=2).clamp_min(1e-6)
    heard = active[None, :] & ~torch.eye(len(points), dtype=torch.bool)
    force = torch.where(heard[..., None], apart / distance[..., None] ** (points.shape[1] + 1), 0.0).sum(dim=1)
    length = force.norm(dim=1, keepdim=True)
    scale = length[active].median().clamp_min(1e-12)
    return -0.5 * force / torch.maximum(length, scale)


def _floored(preferences: Tensor) -> Tensor:
    values = preferences.clamp_min(FLOOR)
    return values / values.sum(dim=1, keepdim=True)
