"""MTAdam (Malkiel & Wolf, 2020): Adam with gradients of equal length for all tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch.distributed as dist

from paretorch.core.gradients.ranks import ALL
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.per_task.adam import (
    LengthOver,
    ParameterTasks,
    adam_per_task,
    check_length_over,
    check_precision,
    mean_length,
)
from paretorch.optim.per_task.moments import Bucket, adam_step, decay_weights, update_moments
from paretorch.optim.per_task.step import UpdateRule, Weights

NEGLIGIBLE = 1e-10  # relative to the longest mean length: a shorter one is no reference length


def mtadam(bucket: Bucket, options: Mapping[str, Any], *, mean: bool = False) -> None:
    r"""Updates the parameters and moments of one bucket in place.

    .. math:: \theta \leftarrow \theta - \frac{\eta}{c} \sum_i \frac{m_i}{1 - \beta_1^{t_i}} \Big/
              \max_i \Big( \sqrt{\frac{v_i}{1 - \beta_2^{t_i}}} + \epsilon \Big)

    Args:
        bucket: parameters with the gradients, moments and factors of the tasks that reach them.
        options: ``lr``, eta; ``betas``, of which the first two count; ``eps``; ``weight_decay``.
        mean: whether c is the number of tasks that reach the parameters; else it is 1.
    """
    divisor = float(len(bucket.tasks)) if mean else 1.0
    lr, betas = float(options["lr"]), (options["betas"][0], options["betas"][1])
    decay_weights(bucket.parameters, lr, options["weight_decay"])
    for task in bucket.tasks:
        update_moments(bucket.gradients[task], bucket.moments[task], bucket.factors[task], betas)
    adam_step(bucket.parameters, [bucket.moments[task] for task in bucket.tasks], lr / divisor, betas, options["eps"])


def to_first_length(parameter: ParameterTasks) -> dict[str, float]:
    """Factors that give each task's gradient the mean length of the first task's."""
    beta = parameter.options["betas"][2]
    own = {task: mean_length(parameter.moments[task], length, beta) for task, length in parameter.lengths.items()}
    # of all tasks, absent ones included: another reference length would mix two units in every moment
    known = [moments.get("length", 0.0) for moments in parameter.moments.values()]
    longest = max(known)
    first = next((length for length in known if length > NEGLIGIBLE * longest), 0.0)
    return {task: parameter.weights[task] * (first / length if length > 0 else 1.0) for task, length in own.items()}


class MTAdam(MultiTaskOptimizer):
    r"""Adam on T losses: on every tensor each task's gradient is scaled to the length of the first task's.

    .. math:: g_i \leftarrow r_i \frac{n_a}{n_i} g_i, \qquad
              \theta \leftarrow \theta - \eta \sum_i \hat m_i \Big/ \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    with n_i the moving mean of the gradient's length, a the first task with one, and separate moments for each task.
    ``optimizer.step(losses)`` replaces ``backward()`` and ``step()``. With T equal gradients one step equals T steps of Adam.

    Args:
        params: parameters or parameter groups.
        lr: eta.
        betas: of the first moment, the second, and the mean length.
        eps: added to the denominator.
        weights: r, by task name or in the order of the tasks, above 0; 1 by default.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        length_over: ``"tensor"``, or ``"group"``: one length for all tensors of a parameter group.
        foreach: update many tensors by one kernel; by default on CUDA. Results are equal to rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`; the gradients are scaled to the length of the first one.
        max_norm: clip each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged.

    Example:
        >>> import torch
        >>> shared, left, right = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
        >>> optimizer = MTAdam([*shared.parameters(), *left.parameters(), *right.parameters()], lr=1e-2)
        >>> z = shared(torch.ones(8, 3))
        >>> optimizer.step({"left": left(z).square().mean(), "right": 1e6 * right(z).square().mean()})
        >>> optimizer.tasks
        ('left', 'right')

    References:
        Malkiel & Wolf, "MTAdam: Automatic Balancing of Multiple Training Loss Terms", 2020, Algorithm 1. There the
        step counter is shared and the mean length of a tensor is 1 at first. Here each task has its own step counter on a
        tensor, so that the first step of a late task is a full one; the first mean is the first length above zero; results do
        not depend on the order of the parameters. An absent first task still sets the length.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9),
        eps: float = 1e-8,
        weights: Weights = None,
        weight_decay: float = 0.0,
        *,
        amsgrad: bool = False,
        length_over: LengthOver = "tensor",
        foreach: bool | None = None,
        tasks: Iterable[str] | None = None,
        max_norm: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        if len(betas) != 3:
            raise ValueError(f"MTAdam: betas are three values, for both moments and the mean length, got {betas}")
        check_length_over(length_over)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weights": weights,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "length_over": length_over,
            "foreach": foreach,
        }
        rule = UpdateRule(partial(adam_per_task, factors=to_first_length, update=mtadam), check_precision)
        super().__init__(params, defaults, rule, tasks=tasks, max_norm=max_norm, group=group)
