"""Metrics that all tasks share: what a gradient is multiplied by to become a direction, always positive definite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.solvers.minimum_norm import Solution, minimum_norm
from paretorch.linesearch.parameter_line import inners

Row = Sequence[Tensor | None]


class Metric(ABC):
    """A positive definite M, of which a search needs the inverse as an operator on gradients."""

    needs_tasks = False  # whether it learns from each task's gradient, and so wants one backward for each

    @abstractmethod
    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """M^-1 times a gradient, leaf by leaf; None stays None."""

    def learn(self, gradient: Row) -> None:
        """Takes in the combined gradient of this step, before the direction is made."""
        del gradient

    def learn_tasks(self, parameters: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Takes in every task's gradient at the present parameters, where ``needs_tasks``."""
        del parameters, rows

    def remember(self, weights: Sequence[float]) -> None:
        """Takes in the weights with which the direction was made, where ``needs_tasks``."""
        del weights

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as plain values and tensors."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        del state_dict


class Identity(Metric):
    """M = 1: directions are gradients."""

    def inverse(self, gradient: Row) -> list[Tensor | None]:
        """The gradient itself."""
        return list(gradient)


def gramian_in(metric: Metric, rows: Sequence[Row]) -> tuple[Array, list[list[Tensor | None]]]:
    r"""(T, T) inner products :math:`\langle g_s, M^{-1} g_t \rangle`, and the rows :math:`M^{-1} g_t`."""
    moved = [metric.inverse(row) for row in rows]
    gramian = np.array([inners(rows, other) for other in moved])
    return (gramian + gramian.T) / 2, moved


def common_descent(metric: Metric, rows: Sequence[Row]) -> tuple[list[Tensor | None], Solution, Array]:
    r"""The minimum norm in a metric: it lowers every task to first order, or no direction does.

    .. math:: \alpha = \arg\min_{\alpha \ge 0,\, 1^T \alpha = 1} \Big\lVert \sum_t \alpha_t g_t \Big\rVert_{M^{-1}}^2, \qquad
              p = M^{-1} \sum_t \alpha_t g_t, \qquad \langle g_t, p \rangle \ge \lVert p \rVert_M^2 \ge 0

    Args:
        metric: M.
        rows: T gradients, leaf by leaf.

    Returns:
        the direction p leaf by leaf; the weights alpha; and (T,) the slopes :math:`\langle g_t, p \rangle`.

    References:
        Fliege & Svaiter, "Steepest descent methods for multicriteria optimization", 2000, with M in place of the identity.
    """
    gramian, moved = gramian_in(metric, rows)
    solution = minimum_norm(torch.from_numpy(gramian))
    weights = solution.weights.tolist()
    return combined(weights, moved), solution, gramian @ solution.weights.numpy()


def divided(row: Row, divisor: float) -> Row:
    """A gradient over a number, leaf by leaf."""
    return row if divisor == 1 else [None if part is None else part / divisor for part in row]


def combined(weights: Sequence[float], rows: Sequence[Row]) -> list[Tensor | None]:
    """sum_t w_t g_t, leaf by leaf; None where no task reaches a leaf.

    Args:
        weights: (T,).
        rows: T gradients.
    """
    return [_weighted(weights, [row[place] for row in rows]) for place in range(len(rows[0]))]


def _weighted(weights: Sequence[float], parts: Sequence[Tensor | None]) -> Tensor | None:
    terms = [(weight, part) for weight, part in zip(weights, parts, strict=True) if part is not None]
    if not terms:
        return None
    (weight, first), *others = terms
    total = first if weight == 1 and not others else first * weight
    for weight, part in others:
        total.add_(part, alpha=weight)
    return total
