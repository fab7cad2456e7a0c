"""How far the update measured on the features is from the exact one on the encoder's parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.core.contract import Balance
from paretorch.core.distributed import Ranks
from paretorch.core.evidence import Gradients, to_host
from paretorch.core.graph import reach, task_gradients


def parameter_gramian(features: Sequence[Tensor], gradients: Gradients, ranks: Ranks) -> Tensor:
    """(all, all) inner products of the task gradients on the encoder's parameters, given those on the features.

    One encoder backward for each task that is known here.
    """
    leaves = reach([features]).leaves
    rows: list[list[Tensor | None] | None] = [None] * gradients.tasks
    for task in gradients.known:
        unit = torch.zeros(gradients.tasks, dtype=torch.float64)
        unit[task] = 1.0
        rows[task] = task_gradients(features, gradients.combined(unit), leaves, retain_graph=True)
    return summed_gramian(Gradients(rows, leaves), ranks)


def summed_gramian(gradients: Gradients, ranks: Ranks) -> Tensor:
    """(T, T) the Gramian of the gradients of the losses' average over ranks, in float64 on the host.

    Inner products of sums are not sums of inner products: over ranks the gradients themselves are added, each rank keeping a
    share of the sum, and the Gramian is that of the shares, added.
    """
    if ranks.size == 1:
        return gradients.gramian(to_host([gradients.products()])[0])
    everything = torch.ones(gradients.tasks, dtype=torch.bool)
    shares = [ranks.shard_of_sum(row) for row in gradients.jacobian(everything)]
    shared = Gradients([[share] for share in shares], [shares[0]])
    return ranks.sum(shared.gramian(to_host([shared.products()])[0])) / ranks.size**2


def gap_between(exact: Tensor, used: Balance, expected: Balance) -> dict[str, float]:
    """Cosine between the update that was used and the exact one, and the least cosine of the former with any task gradient.

    Args:
        exact: (all, all) Gramian on the parameters.
    """
    assert used.weights is not None
    assert expected.weights is not None
    length = (used.weights @ exact @ used.weights).clamp_min(0).sqrt()
    other = (expected.weights @ exact @ expected.weights).clamp_min(0).sqrt()
    present = exact.diagonal() > 0
    with_tasks = (exact @ used.weights)[present] / (exact.diagonal()[present].sqrt() * length)
    return {
        "cosine": float(used.weights @ exact @ expected.weights / (length * other)),
        "worst_task_cosine": float(with_tasks.min()),
    }
