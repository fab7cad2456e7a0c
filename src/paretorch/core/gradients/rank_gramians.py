"""Gramians of the gradients of losses that are averaged over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import Gradients, full_precision, inner_products, to_host


def summed_gramian(gradients: Gradients, ranks: Ranks) -> Array:
    """(T, T) the Gramian of the gradients of the losses' mean over ranks, in float64 on the host.

    Inner products of sums are not sums of inner products. The gradients themselves are therefore summed over ranks; each rank
    receives a shard of the sum, and the Gramians of the shards are added.
    """
    return summed_gramian_and(gradients, ranks, ())[0]


def summed_gramian_and(gradients: Gradients, ranks: Ranks, others: Sequence[Tensor]) -> tuple[Array, list[Array]]:
    """:func:`summed_gramian`, and other tensors of this rank from the same transfer to the host."""
    if ranks.alone:
        return gradients.gramian(others)
    shards = [ranks.shard_of_sum(row) for row in gradients.jacobian(_all_tasks(gradients))]
    local, found = Gradients([[shard] for shard in shards], [shards[0]]).gramian(others)
    return averaged_gramian(local, ranks), found


def cross_gramian(first: Gradients, second: Gradients, ranks: Ranks) -> tuple[Array, Array]:
    """Inner products of one batch's task gradients with another's, of the losses' mean over ranks.

    Returns:
        (T, T) inner products, and (2, T) the largest absolute entry of each task's gradient on the first and the second batch:
        zero where the task has no gradient, inf or nan where it is not finite.
    """
    one, two = (gradients.jacobian(_all_tasks(gradients)) for gradients in (first, second))
    if not ranks.alone:
        one, two = (torch.stack([ranks.shard_of_sum(row) for row in rows]) for rows in (one, two))
    largest = torch.stack([rows.abs().amax(dim=1) for rows in (one, two)])
    with full_precision(one):
        products = inner_products(one, two)
    cross, sizes = to_host([products, largest])
    if ranks.alone:
        return cross.numpy(), sizes.numpy()
    return averaged_gramian(cross.numpy(), ranks), ranks.sum(sizes).numpy()


def averaged_gramian(gramian: Array, ranks: Ranks) -> Array:
    """(T, T) the Gramian of the gradients of averaged losses, from this rank's part of it."""
    return ranks.sum(torch.from_numpy(gramian)).numpy() / ranks.size**2


def _all_tasks(gradients: Gradients) -> torch.Tensor:
    return torch.ones(gradients.tasks, dtype=torch.bool)
