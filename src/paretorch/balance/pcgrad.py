"""Projecting conflicting gradients (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.option_checks import check_choice
from paretorch.core.solvers.gramian import cosines_and_norms


@dataclass(frozen=True)
class PCGrad(Method[None]):
    r"""The sum of the gradients after the conflict of each with every other is projected out, in random order.

    .. math:: g_i' \leftarrow g_i' - \frac{\langle g_i', g_j \rangle}{\lVert g_j \rVert^2} g_j
              \quad \text{where } \langle g_i', g_j \rangle < 0, \qquad d = \sum_i g_i'

    All inner products follow from the Gramian. With three or more tasks, conflicts can remain.

    Args:
        reduction: ``"sum"`` (the paper's) or ``"mean"`` of the g'.

    Example:
        >>> import paretorch as pt
        >>> pt.weights(pt.PCGrad(), torch.tensor([[18.0, -22.0], [-22.0, 38.0]]))
        tensor([2.2222, 1.5789], dtype=torch.float64)

    References:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1. The authors' code discards its shuffle;
        ours draws an order for each task, as in the paper.
    """

    reduction: str = "sum"
    needs = Need.GRAMIAN
    random = True

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, ("sum", "mean"))

    def gain(self, tasks: int) -> float:
        return float(tasks) if self.reduction == "sum" else 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        weights = _of_two(gramian) if len(gramian) == 2 else _of_many(gramian, evidence.generator)
        return Balance(weights if self.reduction == "sum" else weights / len(gramian)), state


def _of_two(gramian: Tensor) -> Tensor:
    """(2,) weights: two tasks have one order only."""
    (first, cross), (_, second) = gramian.tolist()
    conflict = min(cross, 0.0)
    pair = (1 - (conflict / first if first > 0 else 0.0), 1 - (conflict / second if second > 0 else 0.0))
    return torch.tensor(
        [share if square > 0 else 0.0 for share, square in zip(pair, (first, second), strict=True)], dtype=torch.float64
    )


def _of_many(gramian: Tensor, generator: torch.Generator | None) -> Tensor:
    """(T,) weights; each gradient has its own random order of the others."""
    cosines, lengths = cosines_and_norms(gramian)
    tasks = len(lengths)
    order = torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).numpy().argsort(axis=1)
    rows = np.arange(tasks)
    projected = np.eye(tasks)  # row i: g_i' / n_i as a combination of the unit gradients
    products = cosines.copy()  # <g_i' / n_i, u_j>
    for against in order.T:
        conflict = np.minimum(products[rows, against], 0.0)
        conflict[against == rows] = 0.0
        if conflict.any():
            projected[rows, against] -= conflict
            products -= conflict[:, None] * cosines[against]
    return torch.from_numpy(np.divide(lengths @ projected, lengths, out=np.zeros(tasks), where=lengths > 0))
