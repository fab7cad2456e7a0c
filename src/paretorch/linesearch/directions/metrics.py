"""Metrics that all tasks share: positive definite operators from gradients to directions."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.task_gradients import Row
from paretorch.core.solvers.minimum_norm import Solution, minimum_norm
from paretorch.linesearch.tensor_rows import inner_products, weighted_sum


class Metric(ABC):
    """A positive definite M, defined by its inverse as an operator on gradients."""

    needs_tasks = False  # whether it learns from each task's gradient, which needs one backward for each

    @abstractmethod
    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient; None stays None."""

    def learn(self, gradient: Row) -> None:
        """Updates M by the combined gradient of this step, before the direction is made."""
        del gradient

    def learn_tasks(self, parameters: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Updates M by every task's gradient at the present parameters; called where ``needs_tasks``."""
        del parameters, rows

    def remember(self, weights: Sequence[float]) -> None:
        """Records the weights of the tasks in the direction; called where ``needs_tasks``."""
        del weights

    def snapshot(self) -> dict[str, Any]:
        """The state, for :meth:`load_state_dict` after an interrupted step: a copy, for metrics that change tensors in place."""
        return copy.deepcopy(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain values and tensors."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state."""
        del state_dict


class Identity(Metric):
    """M = 1: the direction is the gradient."""

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """The gradient."""
        return list(gradient)


def gramian_in(metric: Metric, rows: Sequence[Row]) -> tuple[Array, list[list[Tensor | None]]]:
    r"""(T, T) inner products :math:`\langle g_s, M^{-1} g_t \rangle`, and the rows :math:`M^{-1} g_t`."""
    moved = [metric.inverse(row) for row in rows]
    gramian = np.array([inner_products(rows, other) for other in moved])
    return (gramian + gramian.T) / 2, moved


def common_descent(metric: Metric, rows: Sequence[Row]) -> tuple[list[Tensor | None], Solution, Array]:
    r"""The minimum norm in a metric: it decreases every loss to first order if any direction does.

    .. math:: \alpha = \arg\min_{\alpha \ge 0,\, 1^T \alpha = 1} \Big\lVert \sum_t \alpha_t g_t \Big\rVert_{M^{-1}}^2, \qquad
              p = M^{-1} \sum_t \alpha_t g_t, \qquad \langle g_t, p \rangle \ge \lVert p \rVert_M^2 \ge 0

    Args:
        metric: M.
        rows: T gradients.

    Returns:
        The direction p; the weights alpha; and (T,) the slopes :math:`\langle g_t, p \rangle`.

    References:
        Fliege & Svaiter, "Steepest descent methods for multicriteria optimization", 2000, with M in place of the identity.
    """
    gramian, moved = gramian_in(metric, rows)
    solution = minimum_norm(torch.from_numpy(gramian))
    weights = solution.weights.tolist()
    return weighted_sum(weights, moved), solution, gramian @ solution.weights.numpy()
