"""Classical backtracking: every trial is a whole forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Need
from paretorch.core.gradients.task_gradients import Gradients
from paretorch.core.method.runner import combined_gradient
from paretorch.linesearch.armijo.closures import check_finite, losses_in_order, requiring_grad, resolution, values_of
from paretorch.linesearch.backwards import Backwards
from paretorch.linesearch.contract import Found, Outcome, Slopes, Step
from paretorch.linesearch.directions.metrics import Row, combined, common_descent, divided, gramian_in
from paretorch.linesearch.parameter_line import Moving, inners, resolved
from paretorch.linesearch.replay.forward import Repeat
from paretorch.linesearch.search import LineSearch, LossesOf


class Backtracking(LineSearch):
    r"""Armijo's condition for every task on the whole model.

    .. math:: L_t(\theta - \eta u,\; \theta_t - \eta p_t) \le L_t - \eta \beta s_t \quad \text{for all } t, \qquad
              s_t = \Big\langle \frac{\partial L_t}{\partial \theta}, u \Big\rangle
                  + \Big\langle \frac{\partial L_t}{\partial \theta_t}, p_t \Big\rangle

    The method balances the tasks' gradients on the shared parameters: T encoder backwards, and a forward for every trial.
    The slopes are known before the first trial. Where one is not above 0 (with MGDA none is below), no small step can be
    accepted, and the direction becomes the minimum norm of the gradients in its metric; where that is zero, nothing moves.

    Args:
        encoder: inputs -> features, whatever they are.
        heads: modules by task, or one module that holds them all; may be empty.
        method: the balancing method, such as ``MGDA()``.
        max_step: the largest step; None: found, see :class:`~paretorch.UpperBound`.
        beta: share of the slope that is asked for as decrease, in (0, 1).
        shrink: factor on a refused step, in (0, 1), or ``"violation"``: by how far it was missed; see ``linesearch.Rules``.
        floor: the search ends below this part of the bound.
        trial: ``"backtracking"``, ``"parabolic"``, ``"golden"``.
        memory: ``"monotone"``, ``"nonmonotone"``, ``"smoothed"``.
        start: ``"reset"``, ``"keep"``, ``"grow"``, ``"polyak"``; see ``linesearch.Rules``.
        lowest: what no loss falls below, for ``"polyak"``.
        bound: when the largest step is lowered: an :class:`UpperBound`, or the name of its rule.
        direction: an optimizer or a metric that turns the balanced gradient into the direction. In a metric, the method
            balances by the inner products of that metric.
        accept: of which part of the slopes a share is asked: ``"both"``, ``"heads"``, ``"features"``.
        scale: of the method's weights: ``"calibrated"``, ``"paper"``.
        imbalance: how many times as curved as another a task may be before its loss is divided for the direction, at least 1;
            inf: never. See ``linesearch.Units``.
        verify: not needed: predicted losses are the true ones.
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

    def step(self, x: Any, losses_of: LossesOf) -> Step:
        """Moves the parameters by one step on a batch; see ``LineSearch.step``."""
        graph = self.differentiates or bool(requiring_grad(x))
        repeat = Repeat([self.encoder, self.heads], self.shared[0].device, graph=graph)
        with repeat.first(), torch.enable_grad():
            given = self.given(losses_of(self.encoder(x)))
        values = values_of(given)

        def anew() -> list[Tensor]:
            with repeat.anew():
                return list(self.given(losses_of(self.encoder(x))).values())

        rows = self._rows(Backwards(list(given.values()), anew), values)
        if not values:
            return self.absent(given)
        direction, slopes, fallback = self._direction(rows, values)
        moving = Moving([*self.shared, *self.own], direction)

        def at(step: float) -> Array:
            moving.to(step)
            losses = repeat.evaluated(lambda: losses_in_order(losses_of(self.encoder(x)), values))
            self.differentiates = repeat.graph
            return losses

        line = self.line(values, slopes, at, resolution(given, self.shared[0]))
        if not self.usable(slopes):
            return self.refused(Found(Outcome.STATIONARY, 0.0, line.losses, 0), line, given, fallback)
        with moving.kept():
            found = resolved(self.searched(line, lambda: line), [moving])
        if found.outcome is not Outcome.ACCEPTED:
            moving.to(0)
            return self.refused(found, line, given, fallback)
        moving.to(found.step)
        actual = dict(zip(values, found.losses.tolist(), strict=True)) if self.verify else {}
        return self.accepted(found, line, given, fallback, actual, [moving])

    def _rows(self, losses: Backwards, values: dict[str, float]) -> dict[str, list[Tensor | None]]:
        """By task, its gradient on all parameters; tasks whose gradient is zero are absent and leave ``values``."""
        rows, leaves = {}, [*self.shared, *self.own]
        for place, task in enumerate(list(values)):
            rows[task] = losses.gradients(leaves, place=place, last=place + 1 == len(values))
        sizes = {task: inners([row], row)[0] for task, row in rows.items()}
        check_finite(values, sizes)
        for task in [task for task, size in sizes.items() if size == 0]:
            del values[task], rows[task]
        return rows

    def _direction(
        self, rows: Mapping[str, list[Tensor | None]], values: Mapping[str, float]
    ) -> tuple[list[Tensor | None], Slopes, str]:
        """The direction of all parameters, its slopes, and why it is not the method's; empty where it is."""
        count, metric, divisors = len(self.shared), self.direction.metric_before, self.divisors(rows)
        everything = [*self.shared, *self.own]
        if metric is not None and metric.needs_tasks:
            metric.learn_tasks(everything, list(rows.values()))
        if not self.runner.uses_gradients:
            divisors = dict.fromkeys(rows, 1.0)
        weighed = {task: divided(row, divisors[task]) for task, row in rows.items()}
        losses = {task: value / divisors[task] for task, value in values.items()}
        shared = {task: row[:count] for task, row in weighed.items()}
        every: list[Row | None] = [shared.get(task) for task in self.tasks]
        gradients = Gradients(every, self.shared)
        gramian = gradients.gramian()[0]
        if metric is not None and Need.JACOBIAN not in self.runner.method.needs and not self.direction.plain:
            gap: list[Tensor | None] = [None] * len(self.own)
            inside, _ = gramian_in(metric, [[*row, *gap] for row in shared.values()])
            places = [self.tasks.index(task) for task in shared]
            gramian[np.ix_(places, places)] = inside
        answer = self.runner.run_on(losses, gradients, gramian)
        weights = self.runner.head_weights(answer)
        heads = [row[count:] for row in weighed.values()]
        own = combined([weights[self.tasks.index(task)] for task in rows], heads)
        direction: list[Tensor | None] = [*combined_gradient(answer, gradients), *own]
        if not self.direction.plain:
            if metric is not None and metric.needs_tasks and answer.weights is not None:
                metric.remember([answer.weights[self.tasks.index(task)] / divisors[task] for task in rows])
            direction = self.direction.make(everything, direction, rows, values)
        slopes = self._slopes(list(rows.values()), direction)
        if self.usable(slopes):
            return direction, slopes, ""
        worst = int(slopes.total.argmin())
        fallback = f"the direction would raise task {list(rows)[worst]!r} (slope {slopes.total[worst]:.3g})"
        divisors = self.divisors(rows)
        weighed = {task: divided(row, divisors[task]) for task, row in rows.items()}
        direction = self._common(list(weighed.values()))
        slopes = self._slopes(list(rows.values()), direction)
        if not self.usable(slopes):  # heads meet, in the metric or in a parameter of several tasks
            direction = common_descent(self.direction.metric, list(weighed.values()))[0]
            slopes = self._slopes(list(rows.values()), direction)
        return direction, slopes, fallback

    def _common(self, rows: Sequence[Row]) -> list[Tensor | None]:
        """The minimum norm on the shared parameters, each head along its own gradient, both in the metric."""
        count, metric = len(self.shared), self.direction.metric
        gap: list[Tensor | None] = [None] * len(self.own)
        shared, _, _ = common_descent(metric, [[*row[:count], *gap] for row in rows])
        own = combined([1.0] * len(rows), [row[count:] for row in rows])
        nothing: list[Tensor | None] = [None] * count
        return [*shared[:count], *metric.inverse([*nothing, *own])[count:]]

    def _slopes(self, rows: Sequence[Row], direction: Row) -> Slopes:
        count = len(self.shared)
        shared = inners([row[:count] for row in rows], direction[:count])
        own = inners([row[count:] for row in rows], direction[count:])
        return Slopes(np.array(own), np.array(shared))
