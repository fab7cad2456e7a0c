"""How far the update measured on the features is from the exact one on the encoder's parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.graph import reach, task_gradients
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import Gradients, to_host


def parameter_gramian(features: Sequence[Tensor], gradients: Gradients, ranks: Ranks) -> Array:
    """(all, all) inner products of the task gradients on the encoder's parameters, given those on the features.

    One encoder backward for each task that is known here.
    """
    leaves = reach([features]).leaves
    rows: list[list[Tensor | None] | None] = [None] * gradients.tasks
    for task in gradients.known:
        unit = [float(other == task) for other in range(gradients.tasks)]
        rows[task] = task_gradients(features, gradients.combined(unit), leaves, retain_graph=True)
    return summed_gramian(Gradients(rows, leaves), ranks)


def summed_gramian(gradients: Gradients, ranks: Ranks) -> Array:
    """(T, T) the Gramian of the gradients of the losses' average over ranks, in float64 on the host.

    Inner products of sums are not sums of inner products: over ranks the gradients themselves are added, each rank keeping a
    share of the sum, and the Gramian is that of the shares, added.
    """
    if ranks.alone:
        return gradients.gramian()[0]
    everything = torch.ones(gradients.tasks, dtype=torch.bool)
    shares = [ranks.shard_of_sum(row) for row in gradients.jacobian(everything)]
    shared = Gradients([[share] for share in shares], [shares[0]])
    return over_ranks(shared.gramian()[0], ranks)


def cross_gramian(first: Gradients, second: Gradients, ranks: Ranks) -> tuple[Array, Array]:
    """Inner products of one batch's task gradients with another's, of the losses' average over ranks.

    Returns:
        (T, T) inner products, and (2, T) numbers above zero where a task has a gradient on the one and on the other batch, inf
        or nan where it is not finite.
    """
    everything = torch.ones(first.tasks, dtype=torch.bool)
    one, two = first.jacobian(everything), second.jacobian(everything)
    if not ranks.alone:
        one, two = (torch.stack([ranks.shard_of_sum(row) for row in rows]) for rows in (one, two))
    largest = torch.stack([rows.abs().amax(dim=1) for rows in (one, two)])
    cross, sizes = to_host([one @ two.T, largest])
    if ranks.alone:
        return cross.numpy(), sizes.numpy()
    return over_ranks(cross.numpy(), ranks), ranks.sum(sizes).numpy()


def over_ranks(gramian: Array, ranks: Ranks) -> Array:
    """(T, T) the Gramian of the gradients of averaged losses, from each rank's own part of it."""
    return ranks.sum(torch.from_numpy(gramian)).numpy() / ranks.size**2


def gap_between(exact: Array, used: Sequence[float] | Array, expected: Sequence[float] | Array) -> dict[str, float]:
    """Cosine between the update that was used and the exact one, and the least cosine of the former with any task gradient.

    Args:
        exact: (all, all) Gramian on the parameters.
        used: (all,) weights that were used; ``expected``: (all,) those that the method gives on the parameters.
    """
    used, expected = np.asarray(used), np.asarray(expected)
    length, other = (math.sqrt(max(float(weights @ exact @ weights), 0.0)) for weights in (used, expected))
    present = exact.diagonal() > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # nan where an update is zero
        with_tasks = (exact @ used)[present] / (np.sqrt(exact.diagonal()[present]) * length)
        return {
            "cosine": float(used @ exact @ expected / (length * other)),
            "worst_task_cosine": float(with_tasks.min()),
        }
