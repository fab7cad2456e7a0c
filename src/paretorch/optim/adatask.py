"""AdaTask (Yang et al., AAAI 2023): an adaptive step of its own for every task on the shared parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch.distributed as dist

from paretorch.core.gradients.ranks import ALL
from paretorch.optim.multitask import Weights
from paretorch.optim.per_task.adam import AdamPerTask
from paretorch.optim.per_task.moments import Bucket, decay, descend, remember


def adatask(
    bucket: Bucket,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    weights: Mapping[str, float],
) -> None:
    r"""The update of AdaTask on one bucket; it depends on its arguments alone and changes parameters and memories in place.

    .. math:: \theta \leftarrow \theta - \eta \sum_t r_t \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    Args:
        bucket: parameters with the gradients, memories and factors of the tasks that reach them.
        lr: eta.
        betas: of the two moments.
        eps: added to each denominator.
        weight_decay: decoupled.
        weights: r, by task.
    """
    decay(bucket.parameters, lr, weight_decay)
    for task in bucket.tasks:
        memories = bucket.memories[task]
        remember(bucket.gradients[task], memories, bucket.factors[task], betas)
        descend(bucket.parameters, [memories], lr * weights[task], betas, eps)


class AdaTask(AdamPerTask):
    r"""Adam for every task apart: its accumulated squares hold no other task's gradients, so none sets another's step.

    .. math:: \theta \leftarrow \theta - \eta \sum_t r_t \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    With one task it is AdamW. ``optimizer.step(losses)`` takes the place of ``backward()`` and ``step()``.

    Args:
        params: parameters or parameter groups.
        lr: eta; T equal gradients take T steps of Adam at once.
        betas: of the first and the second moment.
        eps: added to each denominator.
        weights: r, by task name or in the order of the tasks, above 0; 1 by default.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        foreach: one kernel for many tensors; by default on CUDA. The numbers are the same to rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`.
        max_norm: shorten each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged.

    Example:
        >>> import torch
        >>> point = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = AdaTask([point], lr=0.1)
        >>> optimizer.step({"small": point[0] - 1e-3 * point[1], "large": 1e3 * point[1]})
        >>> round(point[0].item(), 4), abs(point[1].item()) < 1e-4  # where they disagree, neither drowns the other
        (-0.1, True)

    References:
        Yang et al., "AdaTask: A Task-Aware Adaptive Learning Rate Approach to Multi-Task Learning", AAAI 2023, with Adam.
        The weights are ours: a factor on a task's loss would cancel in its own denominator.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weights: Weights = None,
        weight_decay: float = 0.0,
        *,
        amsgrad: bool = False,
        foreach: bool | None = None,
        tasks: Iterable[str] | None = None,
        max_norm: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        if len(betas) != 2:
            raise ValueError(f"AdaTask: betas are two, of both moments, got {betas}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weights": weights,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
        }
        super().__init__(params, defaults, tasks=tasks, max_norm=max_norm, group=group)

    def _move(self, options: Mapping[str, Any], bucket: Bucket) -> None:
        weights = self._weights(options)
        adatask(bucket, float(options["lr"]), options["betas"], options["eps"], options["weight_decay"], weights)
