"""Gradients that a method stores for each task, and their means over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.core.contract import Evidence
from paretorch.core.gradients.task_gradients import Gradients


def stored_rows(rows: Tensor, evidence: Evidence) -> Tensor:
    """(all, n) a copy of the stored rows on the device and in the dtype of the Jacobian; zeros before the first step."""
    jacobian = evidence.needed("jacobian")
    if rows.shape[1] == 0:
        return jacobian.new_zeros(len(evidence.present), jacobian.shape[1])
    return rows.to(jacobian.device, jacobian.dtype, copy=True)


def mean_over_ranks(rows: Tensor, evidence: Evidence) -> Tensor:
    """The mean over ranks of a tensor that is linear in the gradients: its value for the averaged losses."""
    one = torch.ones((), dtype=rows.dtype, device=rows.device)
    ranks = evidence.total(one)
    return rows if ranks is one else evidence.total(rows) / ranks  # to read the number would wait for the device


def mean_gramian(rows: Tensor, evidence: Evidence) -> Tensor:
    """(T, T) inner products of the mean over ranks of (T, n) rows, in float64 on the host."""
    mean = mean_over_ranks(rows, evidence)
    return torch.from_numpy(Gradients([[row] for row in mean], [mean[0]]).gramian()[0])
