"""L-BFGS metric: one matrix that all tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import Row
from paretorch.core.option_checks import check_above, check_whole
from paretorch.linesearch.directions.metrics import Metric
from paretorch.linesearch.tensor_rows import inner_products


class LBFGS(Metric):
    r"""The inverse Hessian of the weighted sum of objectives, from the last few steps.

    .. math:: s_k = \theta_{k+1} - \theta_k, \qquad y_k = \sum_t w_t \big(g_t(\theta_{k+1}) - g_t(\theta_k)\big)

    with w the weights of the step's direction. A pair whose curvature :math:`s^T y` is not above ``least`` :math:`s^T s` is
    omitted, so that M stays positive definite. For ``Backtracking`` on the same data in every step: between two mini-batches
    the gradients differ by more than the step.

    Args:
        memory: number of pairs.
        least: least curvature of a pair.

    Raises:
        ValueError: a value is out of range.

    References:
        Lapucci & Mansueto, "A limited memory quasi-Newton approach for multi-objective optimization", 2023. They search by
        Wolfe's conditions, which keep every pair's curvature positive; we by Armijo's, and omit the other pairs.
    """

    needs_tasks = True

    def __init__(self, memory: int = 10, least: float = 1e-8) -> None:
        check_whole("LBFGS: memory", memory, unit=" pairs")
        check_above("LBFGS: least", least)
        self.memory, self.least = memory, least
        self.pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        self.point: list[Tensor] = []
        self.rows: list[list[Tensor]] = []
        self.weights: list[float] = []

    def learn_tasks(self, parameters: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Adds the pair of the last step, from the present parameters and gradients."""
        now = [leaf.detach().clone() for leaf in parameters]
        filled = [
            [torch.zeros_like(leaf) if part is None else part.clone() for leaf, part in zip(now, row, strict=True)]
            for row in rows
        ]
        if self.weights and len(self.rows) == len(filled):
            step = [new - old for new, old in zip(now, self.point, strict=True)]
            change = [
                sum(
                    (
                        w * (new[index] - old[index])
                        for w, new, old in zip(self.weights, filled, self.rows, strict=True)
                    ),
                    start=torch.zeros_like(leaf),
                )
                for index, leaf in enumerate(now)
            ]
            if inner_products([step], change)[0] > self.least * inner_products([step], step)[0]:
                self.pairs = [*self.pairs, (step, change)][-self.memory :]
        self.point, self.rows, self.weights = now, filled, []

    def remember(self, weights: Sequence[float]) -> None:
        """Records the weights of the direction, scaled to a sum of 1."""
        total = sum(weights)
        self.weights = [weight / total for weight in weights] if total > 0 else []

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """The two-loop recursion."""
        if not self.pairs:
            return list(gradient)
        result = [
            torch.zeros_like(s) if g is None else g.clone() for g, s in zip(gradient, self.pairs[-1][0], strict=True)
        ]
        shares = []
        for step, change in reversed(self.pairs):
            share = inner_products([step], result)[0] / inner_products([step], change)[0]
            shares.append(share)
            result = [r - share * y for r, y in zip(result, change, strict=True)]
        step, change = self.pairs[-1]
        scale = inner_products([step], change)[0] / inner_products([change], change)[0]
        result = [scale * r for r in result]
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            back = inner_products([change], result)[0] / inner_products([step], change)[0]
            result = [r + (share - back) * s for r, s in zip(result, step, strict=True)]
        return list(result)

    def snapshot(self) -> dict[str, Any]:
        """The state without a copy, since its tensors are replaced and never changed in place."""
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Pairs, the last point and gradients, and the weights there."""
        return {
            "pairs": [[list(s), list(y)] for s, y in self.pairs],
            "point": list(self.point),
            "rows": [list(row) for row in self.rows],
            "weights": list(self.weights),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores them."""
        self.pairs = [(list(s), list(y)) for s, y in state_dict["pairs"]]
        self.point = list(state_dict["point"])
        self.rows = [list(row) for row in state_dict["rows"]]
        self.weights = [float(weight) for weight in state_dict["weights"]]
