"""Projection on the dual cone (Lopez-Paz & Ranzato, NeurIPS 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paretorch.balance.parts.dual_cone import DualConeMethod
from paretorch.core.solvers.minimum_norm import Solution
from paretorch.core.solvers.projections import project_on_dual_cone


@dataclass(frozen=True)
class DualProjection(DualConeMethod):
    r"""The preferred mean of the gradients, projected on the cone of directions that conflict with no task.

    .. math:: d = \arg\min_{\langle d, g_t \rangle \ge 0 \,\forall t} \Big\lVert d - \sum_t p_t g_t \Big\rVert

    :class:`UPGrad` projects each gradient and then averages.

    Args:
        preference: p, by task name or in the declared order; even by default. Scaled to sum to one.

    Example:
        >>> import torch
        >>> from paretorch.core.method.weights import weights
        >>> w = weights(DualProjection(), torch.tensor([[1.0, -2.0], [-2.0, 16.0]]))
        >>> w
        tensor([1.0000, 0.5000], dtype=torch.float64)

    References:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, section 3, where the tasks that
        must not conflict are earlier ones. We project in units of each gradient's own length.
    """

    def projected(self, gramian: Tensor, preferred: Tensor) -> Solution:
        rows, converged = project_on_dual_cone(gramian, preferred[None])
        return Solution(rows[0], converged)
