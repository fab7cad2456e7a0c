"""Classical backtracking: every trial is a forward of the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Method, Need
from paretorch.core.gradients.task_gradients import Gradients, Row
from paretorch.core.method.runner import MethodRunner, Scale, combined_gradient
from paretorch.core.restoring import RestoredOnError
from paretorch.linesearch.armijo.rules import Memory, Rules, Shrink, Start, Trial
from paretorch.linesearch.bound import UpperBound
from paretorch.linesearch.contract import SearchOutcome, SearchResult, Slopes, Step
from paretorch.linesearch.directions.metrics import Metric, common_descent, gramian_in
from paretorch.linesearch.loss_values import (
    LossesOf,
    check_finite,
    checked_losses,
    losses_in_order,
    requiring_grad,
    resolution,
    values_of,
)
from paretorch.linesearch.parameter_line import ParameterLine, refuse_unresolved
from paretorch.linesearch.parts import Accept, BoundRule, Heads, SearchParts, SearchState, search_parts, verifies
from paretorch.linesearch.repeated_backward import RepeatedBackward
from paretorch.linesearch.replay.autocast import CallerAutocast
from paretorch.linesearch.replay.forward import ForwardReplay
from paretorch.linesearch.search import LineSearch
from paretorch.linesearch.step_results import absent_step, accepted_step, refused_step, step_line, with_bound
from paretorch.linesearch.tensor_rows import divided, inner_products, weighted_sum


class Backtracking(LineSearch):
    r"""Armijo's condition for every task on the whole model.

    .. math:: L_t(\theta - \eta u,\; \theta_t - \eta p_t) \le L_t - \eta \beta s_t \quad \text{for all } t, \qquad
              s_t = \Big\langle \frac{\partial L_t}{\partial \theta}, u \Big\rangle
                  + \Big\langle \frac{\partial L_t}{\partial \theta_t}, p_t \Big\rangle

    The method balances the tasks' gradients on the shared parameters: T encoder backwards, and a forward for every trial.
    The slopes are known before the first trial. Where one is not above 0 (with MGDA none is below), no small step is
    acceptable, and the direction becomes the minimum norm of the gradients in its metric; where that is zero, the parameters
    are unchanged.

    Args:
        encoder: inputs -> features, of any type.
        heads: modules by task, or one module with all of them; may be empty.
        method: the balancing method, such as ``MGDA()``.
        max_step: the largest step; None: found, see :class:`~paretorch.UpperBound`.
        beta, shrink, floor, trial, memory, start, lowest: the acceptance condition and the trials, see
            :class:`~paretorch.linesearch.Rules`.
        bound: when the largest step decreases: an :class:`UpperBound`, or the name of its rule.
        direction: an optimizer or a metric that turns the balanced gradient into the direction. In a metric, the method
            balances by the inner products of that metric.
        accept: part of the slopes of which a share is required as decrease: ``"both"``, ``"heads"``, ``"features"``.
        scale: of the method's weights: ``"calibrated"``, ``"paper"``.
        imbalance: ratio of the tasks' curvatures above which losses are divided for the direction, at least 1; inf: never. See
            :class:`~paretorch.linesearch.LossScaling`.
        verify: steps between two records of the true losses, ``step.actual``; 0: none. They are the predicted ones, at no cost.
        seed: of the method's random draws.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import paretorch as pt
        >>> _ = torch.manual_seed(0)
        >>> encoder, left, right = (nn.Linear(n, m) for n, m in ((4, 3), (3, 1), (3, 1)))
        >>> search = pt.Backtracking(encoder, {"left": left, "right": right}, pt.MGDA(), max_step=1.0)
        >>> x = torch.ones(8, 4)
        >>> step = search.step(x, lambda z: {"left": left(z).square().mean(), "right": (right(z) - 1).square().mean()})
        >>> step.accepted
        True

    References:
        Fliege & Svaiter, "Steepest descent methods for multicriteria optimization", 2000, for the shared parameters; the
        heads' part of the slope as in Filatov & Merkulov, 2021, Algorithm 1.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        heads: Heads,
        method: Method[Any],
        max_step: float | None = None,
        *,
        beta: float = 0.1,
        shrink: Shrink = "violation",
        floor: float = 1e-10,
        trial: Trial = "backtracking",
        memory: Memory = "monotone",
        start: Start = "reset",
        lowest: float = 0.0,
        bound: UpperBound | BoundRule = "fixed",
        direction: torch.optim.Optimizer | Metric | None = None,
        accept: Accept = "both",
        scale: Scale = "calibrated",
        imbalance: float = 10.0,
        verify: int = 0,
        seed: int = 0,
    ) -> None:
        rules = Rules(beta, shrink, floor, trial, memory, start, lowest)
        parts = search_parts(encoder, heads, rules, max_step, bound, direction, accept, imbalance, verify)
        super().__init__(parts, method, scale, seed)

    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch; see ``LineSearch.step``."""
        graph, device = self.state.differentiates or bool(requiring_grad(x)), self.parts.shared[0].device
        modules, autocast = [self.parts.encoder, self.parts.heads], CallerAutocast(device)
        with RestoredOnError(modules), autocast.left(), self.undo_on_error() as undo:
            self.follow_requires_grad()
            parts = self.parts
            replay = ForwardReplay(modules, device, autocast, graph=graph)
            undo.callback(replay.undo_buffers)
            with replay.first(), torch.enable_grad():
                losses = self.declared(losses_of(parts.encoder(x)))
            self.last, self.state = backtracking_step(
                parts, self.runner, self.state, replay, x, losses_of, losses, undo
            )
            undo.pop_all()
            return self.last


def backtracking_step(
    parts: SearchParts,
    runner: MethodRunner,
    state: SearchState,
    replay: ForwardReplay,
    x: Any,
    losses_of: LossesOf,
    losses: Mapping[str, Tensor],
    undo: ExitStack,
) -> tuple[Step, SearchState]:
    """One step: gradients, direction, trials; ``undo`` restores the parameters."""
    values = values_of(losses)

    def repeated() -> list[Tensor]:
        with replay.with_graph():
            return list(checked_losses(losses_of(parts.encoder(x)), state.tasks).values())

    rows = _task_gradients(parts, RepeatedBackward(list(losses.values()), repeated), values)
    if not values:
        return absent_step(state, losses)
    direction, slopes, fallback = _direction(parts, runner, state, rows, values)
    parameter_line = ParameterLine(parts.parameters, direction)
    undo.callback(parameter_line.move_to, 0)

    def losses_at(step: float) -> Array:
        parameter_line.move_to(step)
        return replay.evaluated(lambda: losses_in_order(losses_of(parts.encoder(x)), values))

    line = step_line(parts, state, values, slopes, losses_at, resolution(losses, parts.shared[0]))
    if not slopes.all_positive:
        result = SearchResult(SearchOutcome.STATIONARY, 0.0, line.losses, 0)
        return refused_step(parts, state, result, line, losses, fallback, runner.balance)
    found, state = with_bound(parts, state, line, lambda: line)
    if found is None:
        found, rules = parts.rules.search(line, state.rules, state.bound.bound)
        state = state._replace(rules=rules)
    result = refuse_unresolved(found, [parameter_line])
    state = state._replace(differentiates=replay.graph)
    if not result.accepted:
        parameter_line.move_to(0)
        return refused_step(parts, state, result, line, losses, fallback, runner.balance)
    parameter_line.move_to(result.step)
    actual = dict(zip(values, result.losses.tolist(), strict=True)) if verifies(parts, state) else {}
    return accepted_step(parts, state, result, line, losses, fallback, runner.balance, actual, [parameter_line])


def _task_gradients(
    parts: SearchParts, losses: RepeatedBackward, values: dict[str, float]
) -> dict[str, list[Tensor | None]]:
    """By task, its gradient on all parameters; tasks of zero gradient are absent and removed from ``values``."""
    rows = {}
    for output, task in enumerate(list(values)):
        rows[task] = losses.gradients(parts.parameters, output=output, last=output + 1 == len(values))
    squares = {task: inner_products([row], row)[0] for task, row in rows.items()}
    check_finite(values, squares)
    for task in [task for task, square in squares.items() if square == 0]:
        del values[task], rows[task]
    return rows


def _direction(
    parts: SearchParts,
    runner: MethodRunner,
    state: SearchState,
    rows: Mapping[str, list[Tensor | None]],
    values: Mapping[str, float],
) -> tuple[list[Tensor | None], Slopes, str]:
    """The direction of all parameters, its slopes, and why it is not the method's; empty where it is."""
    count, metric = len(parts.shared), parts.direction.known_metric
    if metric is not None and metric.needs_tasks:
        metric.learn_tasks(parts.parameters, list(rows.values()))
    divisors = state.divisors(rows) if runner.uses_gradients else dict.fromkeys(rows, 1.0)
    scaled = {task: divided(row, divisors[task]) for task, row in rows.items()}
    losses = {task: value / divisors[task] for task, value in values.items()}
    shared = {task: row[:count] for task, row in scaled.items()}
    every: list[Row | None] = [shared.get(task) for task in state.tasks]
    gradients = Gradients(every, parts.shared)
    gramian = gradients.gramian()[0]
    if metric is not None and Need.JACOBIAN not in runner.method.needs and not parts.direction.is_gradient:
        no_heads: list[Tensor | None] = [None] * len(parts.head_parameters)
        inside, _ = gramian_in(metric, [[*row, *no_heads] for row in shared.values()])
        positions = state.positions(shared)
        gramian[np.ix_(positions, positions)] = inside
    method_result = runner.run_on(losses, gradients, gramian)
    weights = runner.head_weights(method_result)
    positions = state.positions(rows)
    own = weighted_sum([weights[position] for position in positions], [row[count:] for row in scaled.values()])
    direction: list[Tensor | None] = [*combined_gradient(method_result, gradients), *own]
    if not parts.direction.is_gradient:
        if metric is not None and metric.needs_tasks and method_result.weights is not None:
            metric.remember(
                [method_result.weights[at] / divisors[task] for task, at in zip(rows, positions, strict=True)]
            )
        direction = parts.direction.make(parts.parameters, direction, rows, values)
    slopes = _slopes(count, list(rows.values()), direction)
    if slopes.all_positive:
        return direction, slopes, ""
    worst = int(slopes.total.argmin())
    fallback = f"the direction would increase the loss of task {list(rows)[worst]!r} (slope {slopes.total[worst]:.3g})"
    divisors = state.divisors(rows)
    divided_rows = [divided(row, divisors[task]) for task, row in rows.items()]
    direction = _common_descent(parts, divided_rows)
    slopes = _slopes(count, list(rows.values()), direction)
    if not slopes.all_positive:  # the heads are coupled, by the metric or by a parameter of several tasks
        direction = common_descent(parts.direction.metric, divided_rows)[0]
        slopes = _slopes(count, list(rows.values()), direction)
    return direction, slopes, fallback


def _common_descent(parts: SearchParts, rows: Sequence[Row]) -> list[Tensor | None]:
    """The minimum norm on the shared parameters, and each head's own gradient, both in the metric."""
    count, metric = len(parts.shared), parts.direction.metric
    no_heads: list[Tensor | None] = [None] * len(parts.head_parameters)
    shared, _, _ = common_descent(metric, [[*row[:count], *no_heads] for row in rows])
    own = weighted_sum([1.0] * len(rows), [row[count:] for row in rows])
    nothing: list[Tensor | None] = [None] * count
    return [*shared[:count], *metric.inverse([*nothing, *own])[count:]]


def _slopes(count: int, rows: Sequence[Row], direction: Row) -> Slopes:
    """Slopes of gradients on all parameters, of which the first ``count`` are shared."""
    shared = inner_products([row[:count] for row in rows], direction[:count])
    own = inner_products([row[count:] for row in rows], direction[count:])
    return Slopes(np.array(own), np.array(shared))
