"""The Gramian of the tasks' gradients in a diagonal metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from paretorch.core.gradients.rounding import product_rounding
from paretorch.core.gradients.task_gradients import full_precision, summing_dtype, to_host
from paretorch.optim.per_task.gradients import TaskGradients


def metric_gramian(
    gradients: TaskGradients, tasks: Sequence[str], inverse: Mapping[int, Tensor]
) -> tuple[Tensor, float]:
    """(all, all) inner products <g_s, M^-1 g_t> in float64 on the host, and the bound on their rounding, relative to the lengths.

    Rows are scaled to length one before the products are summed, so that no square leaves the range of float32.

    Args:
        gradients: of the present tasks.
        tasks: all of them, in order.
        inverse: by place of a parameter, the diagonal of M^-1; other places are left out.
    """
    here = [task for task in gradients.tasks if any(gradients.lengths[task][place] > 0 for place in inverse)]
    lengths = {task: math.hypot(*(gradients.lengths[task][place] for place in inverse)) for task in here}
    products: list[Tensor] = []
    spacing, summands = torch.finfo(torch.float64).eps, 0
    for place, diagonal in inverse.items():
        wide = diagonal.to(summing_dtype(diagonal.dtype))
        spacing, summands = max(spacing, torch.finfo(wide.dtype).eps), summands + wide.numel()
        rows = [gradients.rows[task][place] for task in here]
        units = [
            torch.zeros_like(wide) if row is None else row.to(wide.dtype) / lengths[task]
            for task, row in zip(here, rows, strict=True)
        ]
        if units:
            matrix = torch.stack([unit.flatten() for unit in units])
            with full_precision(matrix):
                products.append(matrix @ (matrix * wide.flatten()).T)
    total = sum(to_host(products), torch.zeros(len(here), len(here), dtype=torch.float64))
    places = torch.tensor([list(tasks).index(task) for task in here], dtype=torch.long)
    sizes = torch.tensor([lengths[task] for task in here], dtype=torch.float64)
    full = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    total = (total + total.T) / 2 * sizes[:, None] * sizes[None, :]
    full[places[:, None], places[None, :]] = total
    return full, product_rounding(spacing, summands)
