"""The Gramian of the compared leaves at a level without explicit gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.task_gradients import summing_limits, to_host
from paretorch.core.multi_vjp.autograd_backward import products_by_autograd
from paretorch.core.multi_vjp.entry_cotangents import EntryCotangents
from paretorch.core.multi_vjp.levels import Level
from paretorch.core.multi_vjp.rule_backward import products_by_rules
from paretorch.core.multi_vjp.shared_graph import SharedGraph

ATTEMPTS = 6  # to move the squares into the safe range
STEP = 30  # powers of two between attempts


def products_at(level: Level, shared_graph: SharedGraph, cotangents: EntryCotangents) -> Tensor:
    """(k, k) inner products of the tasks' gradients on the compared leaves, on their device."""
    if level is Level.RULES:
        return products_by_rules(shared_graph, cotangents)
    return products_by_autograd(shared_graph, cotangents.entries, cotangents.masked())


def gramian_at(
    level: Level, shared_graph: SharedGraph, cotangents: EntryCotangents, others: Sequence[Tensor] = ()
) -> tuple[Array, EntryCotangents, list[Array]]:
    """(k, k) the Gramian in float64 on the host, the cotangents that it was computed from, and others from its transfer.

    If squares leave the safe range of float32, the products are computed again from cotangents that are multiplied by powers of
    two. If a task has no part in the samples, although it has a cotangent, the Gramian is computed from all samples.
    """
    _, low, high = summing_limits(shared_graph.compared[0].dtype)
    # The squares do not show whether samples outside the subset are finite; the sums do.
    extra = [stack.sum() for stack in cotangents.stacks] if cotangents.is_subset else []
    transferred = to_host([products_at(level, shared_graph, cotangents), *extra, *others])
    products, *found = [tensor.numpy() for tensor in transferred]
    sums, arrays = found[: len(extra)], found[len(extra) :]
    exponents = np.zeros(len(products), np.int64)
    finite = all(np.isfinite(each) for each in sums)
    if not finite or not all(low < square < high for square in products.diagonal().tolist()):  # nan is neither
        largest = cotangents.largest()
        usable = np.isfinite(largest) & (largest > 0)
        if cotangents.is_subset:
            if (usable & (products.diagonal() == 0)).any() and not cotangents.samples_contain_all_tasks():
                return gramian_at(level, shared_graph, cotangents.whole_batch(), others)
            products[~np.isfinite(largest)] = np.nan  # in samples outside the subset
        for attempt in range(ATTEMPTS):
            squares = products.diagonal()
            small, large = usable & ~(squares > low), usable & ~(squares < high)
            if not (small | large).any():
                break
            if attempt == 0:
                exponents = -np.frexp(np.where(usable, largest, 1.0))[1].astype(np.int64)
            else:
                exponents = exponents + STEP * (small & ~large) - STEP * large
            scaled = cotangents.scaled(torch.from_numpy(np.ldexp(1.0, exponents)))
            products = to_host([products_at(level, shared_graph, scaled)])[0].numpy()
    with np.errstate(over="ignore"):
        return np.ldexp(products, -(exponents[:, None] + exponents)), cotangents, arrays
