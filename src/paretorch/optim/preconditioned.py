"""A balancing method in the metric of Adam: a common descent direction with Adam's step sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core import checks
from paretorch.core.arrays import Array
from paretorch.core.contract import Balance, Method, Need
from paretorch.core.gradients.ranks import ALL
from paretorch.core.gradients.step_evidence import StepEvidence
from paretorch.core.gradients.task_gradients import to_host
from paretorch.core.method.runner import MethodRunner
from paretorch.core.option_checks import check_choice
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.optim.per_task.adam import check_precision
from paretorch.optim.per_task.gradients import TaskGradients
from paretorch.optim.per_task.metric_gramian import metric_gramian
from paretorch.optim.per_task.moments import decay_weights
from paretorch.optim.per_task.step import Losses, TaskStep, UpdateRule

METRICS = ("adam", "identity")
FIELD = "state_"  # the prefix of a method's fields among the tensors of its runner


class Preconditioned(MultiTaskOptimizer):
    r"""A balancing method in the metric of Adam's second moments, which are common to all tasks.

    .. math:: M = \text{diag}\big(\sqrt{\hat v} + \epsilon\big), \quad
              G_{st} = \langle g_s, M^{-1} g_t \rangle, \quad
              w = \text{method}(G), \quad p = M^{-1} \sum_t w_t g_t

    With MGDA :math:`\langle g_t, p \rangle \ge \lVert p \rVert_M^2 \ge 0` for every task: to first order no loss increases,
    although every parameter has its own step size. That of a parameter group is part of the metric: M is multiplied by the
    largest ``lr`` over that of the group, so that groups of different ``lr`` keep this property. Adam on a balanced sum has no
    such guarantee: its division can increase a loss. The Gramian is taken over the tensors that two tasks or more reach; other
    tensors take the step of their own task. v is the moving mean of the squared gradients, averaged over the present tasks that
    reach the tensor, and w is scaled so that equal gradients take Adam's steps. The step has momentum, :math:`M^{-1}` times the
    moving mean of :math:`\sum_t w_t g_t`, unless that increases a loss that p does not: then it is p.

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
        check_choice("metric", metric, METRICS)
        if len(betas) != 2:
            raise ValueError(f"Preconditioned: betas are two values, of the momentum and of v, got {betas}")
        self.runner = MethodRunner(method, seed=seed, owner="Preconditioned")
        self.runner.state.counts_steps = True
        if Need.JACOBIAN in method.needs or method.batches > 1 or method.observes:
            raise ValueError(
                "Preconditioned takes a method that gives weights for one batch, from losses or inner products; "
                f"{method} does not. Use it in a Balancer, with torch.optim.Adam"
            )
        self.metric = metric
        self.momentum_dropped = 0  # steps
        self._losses: Mapping[str, float] = {}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weights": None, "weight_decay": weight_decay}
        check = check_precision if metric == "adam" else checks.check_real  # v is a mean of squares
        rule = UpdateRule(self._apply, check, losses=self._record_losses)
        super().__init__(params, defaults, rule, tasks=tasks, max_norm=max_norm, group=group)
        self._declare()

    def __getstate__(self) -> dict[str, Any]:
        own = {"runner": self.runner, "metric": self.metric, "momentum_dropped": self.momentum_dropped}
        return {**super().__getstate__(), **own, "_losses": self._losses}

    @property
    def balance(self) -> Balance | None:
        """Weights, Gramian in the metric and its cosines in the last step; None before the first."""
        return self.runner.balance

    def state_dict(self) -> dict[str, Any]:
        """The state of torch's optimizer and of the method."""
        state = self.runner.state
        method = {
            "tasks": state.tasks,
            "steps": state.steps() if state.tasks else 0,
            "state": {name.removeprefix(FIELD): field.clone() for name, field in self._fields().items()},
        }
        return {**super().state_dict(), "method": method, "momentum_dropped": self.momentum_dropped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of another method.
        """
        super().load_state_dict(state_dict)
        stored, state = state_dict["method"], self.runner.state
        state.undeclare()
        if stored["tasks"]:
            state.declare(tuple(stored["tasks"]))
        own = {name.removeprefix(FIELD) for name in self._fields()}
        if own != set(stored["state"]):
            raise ValueError(
                f"the stored state is of another method: {self.runner.method} has {tuple(own) or 'none'}, "
                f"got {tuple(stored['state']) or 'none'}"
            )
        self.runner.load_state_dict(
            self.runner.state_dict()
            | {f"{FIELD}{name}": field for name, field in stored["state"].items()}
            | ({"steps": torch.tensor(stored["steps"])} if state.tasks else {})
        )
        self.momentum_dropped = state_dict["momentum_dropped"]

    def _fields(self) -> dict[str, Tensor]:
        """The tensors of the method's state by name."""
        return {name: field for name, field in self.runner.state_dict().items() if name.startswith(FIELD)}

    def end_epoch(self) -> None:
        """Notifies a method that depends on epochs of the end of one."""
        self.runner.end_epoch()

    def _declare(self) -> None:
        """Declare the tasks; later ones are added as long as the method has no state.

        Raises:
            ValueError: the method has a state of its tasks.
        """
        state = self.runner.state
        if not self.tasks or self.tasks == state.tasks:
            return
        if self._fields():
            raise ValueError(
                f"{self.runner.method} has a state of its tasks {state.tasks} and got {self.tasks}: declare all of them with "
                "Preconditioned(params, method, tasks=...)"
            )
        state.declare(self.tasks)

    def _record_losses(self, given: Losses, options: Mapping[str, Any], present: int) -> Losses:
        del options, present
        self._declare()
        self._losses = self._mean_losses(_on_host(given))
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
        rates = {place: float(options[place]["lr"]) for place in options}
        largest = max(rates.values(), default=0.0)
        inverse = {}
        for place, tasks in reaching.items():
            rows = [_row(gradients, task, place) for task in tasks]
            inverse[place] = self._inverse(options[place], parameters[place], rows)
            if rates[place] != largest:
                inverse[place].mul_(rates[place] / largest)
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
            decay_weights([parameters[place]], rates[place], options[place]["weight_decay"])
            parameters[place].add_(displacement, alpha=-largest)

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
        return self._method_weights(gramian.numpy(), resolution)

    def _method_weights(self, gramian: Array, resolution: float) -> dict[str, float]:
        """One step of the method: weights by task, which sum to one where the gradients are equal; zero for absent tasks."""
        losses = np.array([self._losses.get(task, np.nan) for task in self.tasks])
        present, factor = gramian.diagonal() > 0, np.ones(len(self.tasks))
        evidence = StepEvidence(present, ~np.isnan(losses), losses, factor, gramian, resolution)
        result = self.runner.run(evidence)
        assert result.weights is not None
        weights = [weight / int(present.sum()) for weight in result.weights]
        self.runner.record(result._replace(weights=weights, heads=None))
        return dict(zip(self.tasks, weights, strict=True))

    def _momentum(self, options: Mapping[str, Any], parameter: Tensor, combined: Tensor) -> Tensor:
        """The bias-corrected moving mean of the combined gradients."""
        state, beta = self.state[parameter], options["betas"][0]
        mean: Tensor = state["exp_avg"].lerp_(combined, 1 - beta)
        return mean.div(1 - beta ** state["taken"])

    def _increases(
        self, gradients: TaskGradients, moved: Mapping[int, Tensor], direction: Mapping[int, Tensor]
    ) -> bool:
        """Whether the momentum increases, to first order, a loss that the direction alone does not."""
        increasing = [task for task, slope in _slopes(gradients, gradients.tasks, moved).items() if slope < 0]
        return any(slope >= 0 for slope in _slopes(gradients, increasing, direction).values())


def _row(gradients: TaskGradients, task: str, place: int) -> Tensor:
    part = gradients.rows[task][place]
    assert part is not None
    return part


def _on_host(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, with one transfer from the device."""
    values = to_host([loss.detach() for loss in losses.values()])
    return dict(zip(losses, map(float, values), strict=True))


def _slopes(gradients: TaskGradients, tasks: Sequence[str], step: Mapping[int, Tensor]) -> dict[str, float]:
    """<g_t, step> by task: the decrease of the loss along the step, to first order; with one transfer from the device."""
    products = {
        task: [
            torch.dot(own.flatten(), part.flatten()) for place, part in step.items() if (own := rows[place]) is not None
        ]
        for task in tasks
        for rows in [gradients.rows[task]]
    }
    values = iter(to_host([product for row in products.values() for product in row]))
    return {task: sum(float(next(values)) for _ in row) for task, row in products.items()}
