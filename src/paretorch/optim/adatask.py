"""AdaTask (Yang et al., AAAI 2023): one adaptive step for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch.distributed as dist

from paretorch.core.gradients.ranks import ALL
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.per_task.adam import ParameterTasks, adam_per_task, check_precision
from paretorch.optim.per_task.moments import Bucket, adam_step, decay_weights, update_moments
from paretorch.optim.per_task.step import UpdateRule, Weights


def adatask(bucket: Bucket, options: Mapping[str, Any]) -> None:
    r"""Updates the parameters and moments of one bucket in place.

    .. math:: \theta \leftarrow \theta - \eta \sum_t r_t \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    Args:
        bucket: parameters with the gradients, moments and factors of the tasks that reach them.
        options: ``lr``, eta; ``betas``; ``eps``; ``weight_decay``.
    """
    lr = float(options["lr"])
    decay_weights(bucket.parameters, lr, options["weight_decay"])
    for task in bucket.tasks:
        moments = bucket.moments[task]
        update_moments(bucket.gradients[task], moments, bucket.factors[task], options["betas"])
        adam_step(bucket.parameters, [moments], lr * bucket.weights[task], options["betas"], options["eps"])


def unscaled(parameter: ParameterTasks) -> dict[str, float]:
    """Factors of one: Adam's step does not depend on the scale of a gradient."""
    return dict.fromkeys(parameter.lengths, 1.0)


class AdaTask(MultiTaskOptimizer):
    r"""Adam with separate moments for each task: a task's squared gradients do not affect the step of another task.

    .. math:: \theta \leftarrow \theta - \eta \sum_t r_t \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    With one task it is AdamW. ``optimizer.step(losses)`` replaces ``backward()`` and ``step()``.

    Args:
        params: parameters or parameter groups.
        lr: eta; with T equal gradients one step equals T steps of Adam.
        betas: of the first and the second moment.
        eps: added to each denominator.
        weights: r, by task name or in the order of the tasks, above 0; 1 by default.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        foreach: update many tensors by one kernel; by default on CUDA. Results are equal to rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`.
        max_norm: clip each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged.

    Example:
        >>> import torch
        >>> point = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = AdaTask([point], lr=0.1)
        >>> optimizer.step({"small": point[0] - 1e-3 * point[1], "large": 1e3 * point[1]})
        >>> round(point[0].item(), 4), abs(point[1].item()) < 1e-4  # the large gradient does not dominate the small one
        (-0.1, True)

    References:
        Yang et al., "AdaTask: A Task-Aware Adaptive Learning Rate Approach to Multi-Task Learning", AAAI 2023, with Adam.
        The weights are ours: a factor of a loss cancels in its own denominator.
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
            raise ValueError(f"AdaTask: betas are two values, one for each moment, got {betas}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weights": weights,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
        }
        rule = UpdateRule(partial(adam_per_task, factors=unscaled, update=adatask), check_precision)
        super().__init__(params, defaults, rule, tasks=tasks, max_norm=max_norm, group=group)
