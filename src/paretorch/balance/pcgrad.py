"""Projecting conflicting gradients (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paretorch.core.contract import Balance, Evidence, Method, Need


@dataclass(frozen=True)
class PCGrad(Method[None]):
    r"""From each gradient remove, one after another in random order, its conflict with every other.

    .. math:: g_i' \leftarrow g_i' - \frac{\langle g_i', g_j \rangle}{\lVert g_j \rVert^2} g_j
              \quad \text{where } \langle g_i', g_j \rangle < 0, \qquad d = \sum_i g_i'

    All inner products follow from the Gramian, so weights suffice. With three tasks or more, conflicts can remain.

    Args:
        reduction: ``"sum"`` (the paper's) or ``"mean"`` of the g'.

    Example:
        >>> from paretorch.core.weights import weights
        >>> weights(PCGrad(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789], dtype=torch.float64)

    References:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1. The authors' code discards its shuffle;
        ours draws an order for each task, as the paper says.
    """

    reduction: str = "sum"
    needs = Need.GRAMIAN
    random = True

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction is 'sum' or 'mean', got {self.reduction!r}")

    def gain(self, tasks: int) -> float:
        return float(tasks) if self.reduction == "sum" else 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        cosines, norms = evidence.cosines, evidence.norms
        tasks = len(norms)
        order = torch.rand(tasks, tasks, generator=evidence.generator, dtype=torch.float64).argsort(dim=1)
        rows = torch.arange(tasks)
        surgery = torch.eye(tasks, dtype=torch.float64)  # row i: g_i' / n_i in terms of the unit gradients
        products = cosines.clone()  # <g_i' / n_i, u_j>
        for step in range(tasks):
            against = order[:, step]
            conflict = products[rows, against].clamp_max(0.0)
            conflict = torch.where(against == rows, 0.0, conflict)
            surgery[rows, against] -= conflict
            products -= conflict[:, None] * cosines[against]
        weights = torch.where(norms > 0, (norms @ surgery) / torch.where(norms > 0, norms, 1.0), 0.0)
        return Balance(weights if self.reduction == "sum" else weights / tasks), state
