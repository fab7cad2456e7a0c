"""MTAdam (Malkiel & Wolf, 2020): Adam whose tasks are brought to one gradient length, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch.distributed as dist

from paretorch.core.gradients.ranks import ALL
from paretorch.optim.multitask import Weights
from paretorch.optim.per_task.adam import AdamPerTask, LengthOver, check_length_over, mean_length
from paretorch.optim.per_task.moments import Bucket, Memory, decay, descend, remember

NOTHING = 1e-10  # relative to the longest: a mean length below it is no anchor


def mtadam(
    bucket: Bucket, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, divisor: float
) -> None:
    r"""The update of MTAdam on one bucket; it depends on its arguments alone and changes parameters and memories in place.

    .. math:: \theta \leftarrow \theta - \frac{\eta}{d} \sum_i \frac{m_i}{1 - \beta_1^{t_i}} \Big/
              \max_i \Big( \sqrt{\frac{v_i}{1 - \beta_2^{t_i}}} + \epsilon \Big)

    Args:
        bucket: parameters with the gradients, memories and factors of the tasks that reach them.
        lr: eta.
        betas: of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled.
        divisor: d.
    """
    decay(bucket.parameters, lr, weight_decay)
    for task in bucket.tasks:
        remember(bucket.gradients[task], bucket.memories[task], bucket.factors[task], betas)
    descend(bucket.parameters, [bucket.memories[task] for task in bucket.tasks], lr / divisor, betas, eps)


class MTAdam(AdamPerTask):
    r"""Adam on T losses: on every tensor each task's gradient is brought to the length of the first one's.

    .. math:: g_i \leftarrow r_i \frac{n_a}{n_i} g_i, \qquad
              \theta \leftarrow \theta - \eta \sum_i \hat m_i \Big/ \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    with n_i the moving mean of the gradient's length, a the first task with one, and moments of every task apart.
    ``optimizer.step(losses)`` takes the place of ``backward()`` and ``step()``. T equal gradients take T steps of Adam
    at once.

    Args:
        params: parameters or parameter groups.
        lr: eta.
        betas: of the first moment, the second, and the mean length.
        eps: added to the denominator.
        weights: r, by task name or in the order of the tasks, above 0; 1 by default.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        length_over: ``"tensor"``, or ``"group"``: one length for all tensors of a parameter group.
        foreach: one kernel for many tensors; by default on CUDA. The numbers are the same to rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`; the first one is the anchor.
        max_norm: shorten each task's gradient, over all parameters, to this length.
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
        Malkiel & Wolf, "MTAdam: Automatic Balancing of Multiple Training Loss Terms", 2020, Algorithm 1. There the counter
        of steps is shared and the mean length of a tensor starts at 1; here every task counts its own steps on a tensor,
        so that one that comes late starts with a full step, the mean starts at the first length above zero, and nothing
        depends on the order of the parameters. Absent tasks keep the anchor they are.
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
            raise ValueError(f"MTAdam: betas are three, of both moments and of the mean length, got {betas}")
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
        super().__init__(params, defaults, tasks=tasks, max_norm=max_norm, group=group)

    def _factors(
        self,
        options: Mapping[str, Any],
        by_task: Mapping[str, Memory],
        present: Mapping[str, Memory],
        lengths: Mapping[str, float],
    ) -> dict[str, float]:
        own = {task: mean_length(each, lengths[task], options["betas"][2]) for task, each in present.items()}
        # an absent task stays the anchor: a change of unit would mix two of them in every moment
        known = {task: by_task[task].get("length", 0.0) for task in self.tasks if task in by_task}
        longest = max(known.values())
        anchor = next((length for length in known.values() if length > NOTHING * longest), 0.0)
        weights = self._weights(options)
        return {task: weights[task] * (anchor / length if length > 0 else 1.0) for task, length in own.items()}

    def _move(self, options: Mapping[str, Any], bucket: Bucket) -> None:
        betas = options["betas"][0], options["betas"][1]
        mtadam(bucket, float(options["lr"]), betas, options["eps"], options["weight_decay"], divisor=1.0)
