"""The Pareto stationarity residual of a model."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor, nn

from paretorch.core.solvers.minimum_norm import minimum_norm
from paretorch.pareto.models.ensemble import inner_products
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import outputs_of
from paretorch.workloads.streams import Stream


def residual(
    workload: Workload, model: nn.Module, streams: tuple[Stream, ...], size: int = 256, *, samples: int | None = None
) -> float:
    r"""The norm of the shortest convex combination of a model's task gradients, zero at Pareto stationary points.

    .. math:: \min_{\alpha \ge 0,\, 1^T \alpha = 1} \Big\lVert \sum_t \alpha_t \nabla L_t(\theta) \Big\rVert

    Losses are means over a split, in the model's current mode; tasks without a label are excluded.

    Args:
        workload: computes the losses.
        model: with an encoder and heads by task.
        streams: the split.
        size: B, samples per batch.
        samples: of each stream, the first ones in the stored order, rounded up to whole batches; None: all of them.

    Raises:
        ValueError: no task has a label, or a gradient is not finite.

    Example:
        >>> from paretorch.workloads.synthetic import Synthetic
        >>> workload = Synthetic("vlmop2")
        >>> model = workload.model()
        >>> _ = nn.init.zeros_(model.encoder.point)  # the middle of the front
        >>> round(residual(workload, model, workload.data().train), 6)
        0.0

    References:
        Desideri, "Multiple-gradient descent algorithm for multiobjective optimization", Comptes Rendus 2012; it is the
        residual of the stationarity condition of Karush, Kuhn and Tucker with the best multipliers.
    """
    parameters = [value for value in model.parameters() if value.requires_grad]
    totals: dict[str, list[Tensor]] = {}
    counts = dict.fromkeys(workload.tasks, 0.0)
    for stream in streams:
        batches = stream.batches(size, order=None)
        for batch in batches if samples is None else islice(batches, math.ceil(samples / size)):
            outputs, targets = outputs_of(model, (batch,))
            losses = workload.losses(outputs, targets)
            for task, loss in losses.items():
                count = float(workload.labelled(task, targets[task], batch.size))
                found = torch.autograd.grad(
                    loss * count, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                before = totals.get(task)
                totals[task] = list(found) if before is None else [a + b for a, b in zip(before, found, strict=True)]
                counts[task] += count
    rows = [[part / counts[task] for part in parts] for task, parts in totals.items() if counts[task]]
    if not rows:
        raise ValueError(f"no task of {workload.tasks} has a label in this split: there is no gradient")
    gramian = inner_products(rows, 1)[0]
    if not bool(gramian.isfinite().all()):
        raise ValueError(f"a gradient of {list(totals)} is not finite: the residual is undefined")
    weights = minimum_norm(gramian).weights
    return float((weights @ gramian @ weights).clamp_min(0).sqrt())
