"""Pareto multi-task learning: a sector of the losses for each model (Lin et al., NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.preferences import rays


@dataclass(frozen=True)
class ParetoMTL(FrontAlgorithm):
    r"""Each member descends all tasks within the sector of loss vectors that are nearest in angle to its own ray.

    With unit rays u_i, proportional to :math:`1 / \max(w_i, 0.02)`, the sector of member i is where
    :math:`(u_j - u_i)^T L \le 0` for all j. A member outside descends along the shortest combination of the gradients of the
    constraints it violates; one inside, along that of the tasks' gradients and of the constraints that are nearly active,

    .. math:: \min_{\alpha, \beta}
              \Big\lVert \sum_t \alpha_t \nabla L_t + \sum_{j \in I} \beta_j \nabla (u_j - u_i)^T L \Big\rVert
              \quad \text{s.t.} \quad \alpha, \beta \ge 0,\; 1^T \alpha + 1^T \beta = 1

    so that task t has the weight alpha_t + sum_j beta_j (u_j - u_i)_t, which may be negative. Supports any number of tasks.

    Args:
        slack: distance to the border, relative to the norm of the losses, at which a constraint is active; at least 0.

    Example:
        >>> ParetoMTL().needs_gramian
        True

    References:
        Lin, Zhen, Li, Zhang & Kwong, "Pareto multi-task learning", NeurIPS 2019, eq. (8)-(13), Algorithm 1. Theirs takes the
        preference as the ray; ours, the ray on which weighted losses are equal, so that a larger entry means a smaller loss.
        Theirs moves to the sector once, before training; ours returns whenever a member leaves it.
    """

    slack: float = 0.01

    needs_gramian = True

    def __post_init__(self) -> None:
        if not self.slack >= 0:
            raise ValueError(f"slack is at least 0, got {self.slack}")

    def weights(self, evidence: FrontEvidence) -> Tensor:
        """(n, T) weights; constraints may make them negative."""
        assert evidence.gramian is not None
        unit = torch.nn.functional.normalize(rays(evidence.all_preferences), dim=1)
        members = zip(evidence.rows, evidence.losses, evidence.gramian, strict=True)
        return torch.stack([self._member(unit, row, losses, gramian) for row, losses, gramian in members])

    def _member(self, unit: Tensor, row: int, losses: Tensor, gramian: Tensor) -> Tensor:
        if not (bool(gramian.isfinite().all()) and bool(losses.isfinite().all())):
            return torch.full_like(losses, torch.nan)
        borders = torch.cat([unit[:row], unit[row + 1 :]]) - unit[row]
        borders = borders[borders.norm(dim=1) > 0]  # equal preferences have no border
        beyond = borders @ losses / losses.norm().clamp_min(1e-300)
        if bool((beyond > 0).any()):
            rows = borders[beyond > 0]
        else:
            rows = torch.cat([torch.eye(len(losses), dtype=losses.dtype), borders[beyond >= -self.slack]])
        products = rows @ gramian @ rows.T
        weights: Tensor = minimum_norm((products + products.T) / 2).weights @ rows
        return weights
