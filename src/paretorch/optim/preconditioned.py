"""A balancing method in the metric of Adam: a common descent direction with Adam's step sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core.contract import Balance, Method
from paretorch.core.gradients.ranks import ALL
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.per_task.gradients import TaskGradients
from paretorch.optim.per_task.moments import decay_weights
from paretorch.optim.per_task.step import Losses, TaskStep, UpdateRule
from paretorch.optim.weighing import Weighing, metric_gramian

METRICS = ("adam", "identity")


class Preconditioned(MultiTaskOptimizer):
    r"""A balancing method in the metric of Adam's second moments, which are common to all tasks.

    .. math:: M = \text{diag}\big(\sqrt{\hat v} + \epsilon\big), \quad
              G_{st} = \langle g_s, M^{-1} g_t \rangle, \quad
              w = \text{method}(G), \quad p = M^{-1} \sum_t w_t g_t

    With MGDA :math:`\langle g_t, p \rangle \ge \lVert p \rVert_M^2 \ge 0` for every task: to first order no loss increases,
    although every parameter has its own step size. Adam on a balanced sum has no such guarantee: its division can increase a
    loss. The Gramian is taken over the tensors that two tasks or more reach; other tensors take the step of their own task.
    v is the moving mean of the squared gradients, averaged over the present tasks that reach the tensor, and w is scaled so
    that equal gradients take Adam's steps. The step has momentum, :math:`M^{-1}` times the moving mean of :math:`\sum_t w_t g_t`,
    unless that increases a loss that p does not: then it is p.

    Args:
        params: parameters or parameter groups.
        method: a balancing method that needs losses or inner products, such as ``MGDA()``.
        metric: ``"adam"``, or ``"identity"``: M = 1, balanced steepest descent with the same momentum.
        lr: step size.
        betas: of the momentum and of v.
        eps: added to the denominator.
        weight_decay: decoupled, as in AdamW.
        tasks: names; required by methods with state for each task or weights by name.
        max_norm: clip each task's gradient, over all parameters, to this length.
        group: ranks whose losses are averaged.
        seed: of the method's random draws.

    Example:
        >>> import torch
        >>> import paretorch as pt
        >>> point = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Preconditioned([point], pt.MGDA(), lr=0.1)
        >>> optimizer.step({"left": 100 * point[0] ** 2 - point[1], "right": point[1] ** 2})
        >>> optimizer.balance.weights.sum().item() > 0, optimizer.momentum_dropped
        (True, 0)

    References:
        Ours; the minimum norm in a metric is Fliege & Svaiter 2000 with M in place of the identity.
    """

    def __init__(
        self,
        params: Any,
        method: Method[Any],
        *,
        metric: Literal["adam", "identity"] = "adam",
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        tasks: Iterable[str] | None = None,
        max_norm: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric is {METRICS[0]!r} or {METRICS[1]!r}, got {metric!r}")
        if len(betas) != 2:
            raise ValueError(f"Preconditioned: betas are two values, of the momentum and of v, got {betas}")
        self.weighing = Weighing(method, seed)
        self.metric = metric
        self.momentum_dropped = 0  # steps
        self._losses: Mapping[str, float] = {}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weights": None, "weight_decay": weight_decay}
        rule = UpdateRule(self._apply, losses=self._record_losses)
        super().__init__(params, defaults, rule, tasks=tasks, max_norm=max_norm, group=group)
        if self.tasks:
            self.weighing.know(self.tasks)

    def __getstate__(self) -> dict[str, Any]:
        own = {"weighing": self.weighing, "metric": self.metric, "momentum_dropped": self.momentum_dropped}
        return {**super().__getstate__(), **own, "_losses": self._losses}

    @property
    def balance(self) -> Balance | None:
        """Weights, Gramian in the metric and its cosines in the last step; None before the first."""
        return self.weighing.balance

    def state_dict(self) -> dict[str, Any]:
        """The state of torch's optimizer and of the method."""
        own = {"method": self.weighing.state_dict(), "momentum_dropped": self.momentum_dropped}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state."""
        super().load_state_dict(state_dict)
        self.weighing.load_state_dict(state_dict["method"])
        self.momentum_dropped = state_dict["momentum_dropped"]

    def end_epoch(self) -> None:
        """Notifies a method that depends on epochs of the end of one."""
        self.weighing.end_epoch()

    def _record_losses(self, given: Losses, options: Mapping[str, Any]) -> Losses:
        del options
        self.weighing.know(self.tasks)
        self._losses = self._mean_losses({task: float(loss.detach()) for task, loss in given.items()})
        return given

    def _mean_losses(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Losses averaged over the ranks that have them."""
        if self.ranks.size == 1:
            return dict(losses)
        own = [[losses.get(task, 0.0), float(task in losses)] for task in self.tasks]
        total = self.ranks.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        return {task: value / count for task, (value, count) in zip(self.tasks, total, strict=True) if count}

    def _apply(self, step: TaskStep) -> None:
        parameters, gradients = step.parameters, step.gradients
        options = {place: group for group, places in step.groups for place in places}
        reaching = {
            place: [task for task in gradients.tasks if gradients.rows[task][place] is not None] for place in options
        }
        reaching = {place: tasks for place, tasks in reaching.items() if tasks}
        inverse = {
            place: self._inverse(options[place], parameters[place], [_row(gradients, task, place) for task in tasks])
            for place, tasks in reaching.items()
        }
        weights = self._weights(gradients, reaching, inverse)
        direction, moved = {}, {}
        for place, tasks in reaching.items():
            factors = weights if len(tasks) > 1 else dict.fromkeys(tasks, 1.0)
            parts = [_row(gradients, task, place) * factors[task] for task in tasks]
            combined = torch.stack(parts).sum(dim=0)
            moved[place] = self._momentum(options[place], parameters[place], combined).mul_(inverse[place])
            direction[place] = combined.mul_(inverse[place])
        if self._increases(gradients, moved, direction):
            self.momentum_dropped += 1
            moved = direction
        for place, displacement in moved.items():
            lr = float(options[place]["lr"])
            decay_weights([parameters[place]], lr, options[place]["weight_decay"])
            parameters[place].add_(displacement, alpha=-lr)

    def _inverse(self, options: Mapping[str, Any], parameter: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """The diagonal of M^-1 on one parameter, after the update of v by this step's gradients."""
        state = self.state[parameter]
        if not state:
            state["taken"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["taken"] += 1
        if self.metric == "identity":
            return torch.ones_like(parameter)
        beta = options["betas"][1]
        state["exp_avg_sq"].mul_(beta)
        for row in rows:
            state["exp_avg_sq"].addcmul_(row, row, value=(1 - beta) / len(rows))
        second: Tensor = state["exp_avg_sq"]
        root = second.div(1 - beta ** state["taken"]).sqrt_()
        return root.add_(options["eps"]).reciprocal_()

    def _weights(
        self, gradients: TaskGradients, reaching: Mapping[int, Sequence[str]], inverse: Mapping[int, Tensor]
    ) -> dict[str, float]:
        """The weights of the method by task, from the tensors that several tasks reach."""
        shared = {place: inverse[place] for place, tasks in reaching.items() if len(tasks) > 1}
        gramian, resolution = metric_gramian(gradients, self.tasks, shared)
        if not bool((gramian.diagonal() > 0).any()):
            return dict.fromkeys(self.tasks, 1.0)
        return self.weighing.weights(gramian, self._losses, resolution)

    def _momentum(self, options: Mapping[str, Any], parameter: Tensor, combined: Tensor) -> Tensor:
        """The bias-corrected moving mean of the combined gradients."""
        state, beta = self.state[parameter], options["betas"][0]
        mean: Tensor = state["exp_avg"].lerp_(combined, 1 - beta)
        return mean.div(1 - beta ** state["taken"])

    def _increases(
        self, gradients: TaskGradients, moved: Mapping[int, Tensor], direction: Mapping[int, Tensor]
    ) -> bool:
        """Whether the momentum increases, to first order, a loss that the direction alone does not."""
        return any(_slope(gradients, task, moved) < 0 <= _slope(gradients, task, direction) for task in gradients.tasks)


def _row(gradients: TaskGradients, task: str, place: int) -> Tensor:
    part = gradients.rows[task][place]
    assert part is not None
    return part


def _slope(gradients: TaskGradients, task: str, step: Mapping[int, Tensor]) -> float:
    """<g_t, step>: the decrease of the loss along the step, to first order."""
    total = 0.0
    for place, part in step.items():
        own = gradients.rows[task][place]
        if own is not None:
            total += float(torch.dot(own.flatten(), part.flatten()))
    return total
