"""What Jacobian methods keep per task: (all, n) rows that begin when a task is first seen, averaged over ranks where measured."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.core.contract import Evidence
from paretorch.core.gradients.task_gradients import Gradients


def kept_rows(rows: Tensor, evidence: Evidence) -> Tensor:
    """(all, n) a copy of what was kept, on the Jacobian's device and in its dtype; zeros before the first step."""
    jacobian = evidence.needed("jacobian")
    if rows.shape[1] == 0:
        return jacobian.new_zeros(len(evidence.present), jacobian.shape[1])
    return rows.to(jacobian.device, jacobian.dtype, copy=True)


def over_ranks(rows: Tensor, evidence: Evidence) -> Tensor:
    """The mean over ranks of tensors that are linear in the gradients: those of the averaged losses."""
    ranks = evidence.total(torch.ones((), dtype=rows.dtype, device=rows.device))
    return rows if float(ranks) == 1 else evidence.total(rows) / ranks


def gramian_of(rows: Tensor, evidence: Evidence) -> Tensor:
    """(T, T) inner products of (T, n) rows, averaged over ranks, in float64 on the host."""
    mean = over_ranks(rows, evidence)
    return torch.from_numpy(Gradients([[row] for row in mean], [mean[0]]).gramian()[0])
