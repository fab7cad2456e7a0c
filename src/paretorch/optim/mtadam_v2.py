"""MTAdamV2: MTAdam without a reference task, and Adam on the mean loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial, reduce
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.optim.adam import adam

from paretorch.core.gradients.ranks import ALL
from paretorch.core.option_checks import check_choice, check_fraction
from paretorch.optim.mtadam import mtadam
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.per_task.adam import (
    LengthOver,
    ParameterTasks,
    adam_per_task,
    check_length_over,
    check_precision,
    mean_length,
)
from paretorch.optim.per_task.step import Losses, TaskStep, UpdateRule, Weights, task_weights

MEAN = "the mean of the losses"  # the only differentiated loss of mode "equal"


def to_unit_length(parameter: ParameterTasks) -> dict[str, float]:
    """Factors that give each task's gradient a mean length of one."""
    beta = parameter.options["length_beta"]
    own = {task: mean_length(parameter.moments[task], length, beta) for task, length in parameter.lengths.items()}
    return {task: parameter.weights[task] / length if length > 0 else 1.0 for task, length in own.items()}


def mean_loss(losses: Losses, options: Mapping[str, Any], present: int) -> Losses:
    """The weighted mean of the losses, as the only loss; of ``present`` tasks, of which a rank may have fewer."""
    if not losses:
        return {}
    with torch.enable_grad():
        if options["weights"] is None:
            return {MEAN: reduce(torch.add, losses.values()) / present}
        factors = task_weights(options["weights"], options["tasks"])
        return {MEAN: reduce(torch.add, (loss * factors[task] for task, loss in losses.items()))}


def adam_on_mean(step: TaskStep) -> None:
    """One step of torch's own Adam on the mean loss; a parameter's state is that of torch.optim.Adam."""
    gradients = step.gradients.rows.get(MEAN)
    if gradients is None:
        return
    for options, places in step.groups:
        names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if options["amsgrad"] else ()))
        reached = [(step.parameters[place], part) for place in places if (part := gradients[place]) is not None]
        states = [step.state[parameter] for parameter, _ in reached]
        for (parameter, _), state in zip(reached, states, strict=True):
            if not state:
                state["step"] = torch.tensor(0.0, dtype=torch.float32)
                for name in names:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        adam(
            [parameter for parameter, _ in reached],
            [part for _, part in reached],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states if options["amsgrad"]],
            [state["step"] for state in states],
            foreach=options["foreach"],
            decoupled_weight_decay=True,
            amsgrad=options["amsgrad"],
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            lr=options["lr"],
            weight_decay=options["weight_decay"],
            eps=options["eps"],
            maximize=False,
        )


RULES = {
    "balanced": UpdateRule(
        partial(adam_per_task, factors=to_unit_length, update=partial(mtadam, mean=True)), check_precision
    ),
    "equal": UpdateRule(adam_on_mean, check=None, losses=mean_loss, rows=(MEAN,)),
}


class MTAdamV2(MultiTaskOptimizer):
    r"""MTAdam without a reference task: on every tensor each task's gradient is scaled to length one.

    .. math:: g_i \leftarrow \frac{r_i}{n_i} g_i, \qquad
              \theta \leftarrow \theta - \frac{\eta}{T_\theta} \sum_i \hat m_i \Big/
              \max_i \big( \sqrt{\hat v_i} + \epsilon \big)

    with n_i the moving mean of the gradient's length, and T_theta the number of present tasks that reach the tensor (1 for a
    head): with equal gradients the step is Adam's. ``optimizer.step(losses)`` replaces ``backward()`` and ``step()``.

    Args:
        params: parameters or parameter groups.
        lr: eta.
        betas: of the first and the second moment.
        eps: added to the denominator.
        mode: ``"balanced"`` as above; ``"equal"``: torch's Adam on the mean of the losses, bit for bit, as in the study
            that introduced MTAdamV2.
        weights: by task name or in the order of the tasks, above 0. Balanced: r, 1 by default. Equal: the factors of the
            losses; by default one over the number of tasks in this step, (.5, .5) for two.
        weight_decay: decoupled, as in AdamW.
        amsgrad: divide by the largest second moment so far.
        length_beta: of the mean length.
        length_over: ``"tensor"``, or ``"group"``: one length for all tensors of a parameter group.
        foreach: update many tensors by one kernel; by default on CUDA. Balanced, results are equal to rounding.
        tasks: see :class:`~paretorch.optim.MultiTaskOptimizer`.
        max_norm: clip each task's gradient (equal: the mean's), over all parameters, to this length.
        group: ranks whose losses are averaged.

    Example:
        >>> import torch
        >>> point = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = MTAdamV2([point], lr=0.1)
        >>> optimizer.step({"left": point.sum(), "right": 1e6 * point.sum()})
        >>> round(point.item(), 6)
        -0.1

    References:
        Malkiel & Wolf, "MTAdam", 2020. Adam's ratio needs no common scale; with a reference task whose gradients vanish, all
        other tasks stall.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        mode: Literal["balanced", "equal"] = "balanced",
        weights: Weights = None,
        weight_decay: float = 0.0,
        *,
        amsgrad: bool = False,
        length_beta: float = 0.9,
        length_over: LengthOver = "tensor",
        foreach: bool | None = None,
        tasks: Iterable[str] | None = None,
        max_norm: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
    ) -> None:
        check_choice("mode", mode, tuple(RULES))
        if len(betas) != 2:
            raise ValueError(f"MTAdamV2: betas are two values, one for each moment, got {betas}")
        check_fraction("MTAdamV2: length_beta", length_beta)
        check_length_over(length_over)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "mode": mode,
            "weights": weights,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "length_beta": length_beta,
            "length_over": length_over,
            "foreach": foreach,
        }
        super().__init__(params, defaults, RULES[mode], tasks=tasks, max_norm=max_norm, group=group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state.

        Raises:
            ValueError: it belongs to the other mode.
        """
        stored = {group.get("mode") for group in state_dict["param_groups"]}
        if stored != {self.defaults["mode"]}:
            raise ValueError(
                f"the stored state is of mode {', '.join(map(repr, stored))}, this MTAdamV2 is of mode "
                f"{self.defaults['mode']!r}: create it with the mode that was saved"
            )
        super().load_state_dict(state_dict)
