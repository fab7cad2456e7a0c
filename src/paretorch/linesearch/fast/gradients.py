"""Gradients of the tasks on the features and on the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.task_gradients import Gradients, Row
from paretorch.linesearch.contract import Slopes
from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.state import FastState
from paretorch.linesearch.loss_values import check_finite, check_origin, values_of
from paretorch.linesearch.repeated_backward import RepeatedBackward
from paretorch.linesearch.tensor_rows import divided, inner_products, paired_products, with_zeros


@dataclass(frozen=True)
class BatchGradients:
    """Losses and gradients of the present tasks on a batch."""

    batch: Batch  # after its forward
    values: dict[str, float]  # by present task, the loss
    positions: tuple[int, ...]  # (T,) indices of the present tasks among the declared ones
    on_features: Gradients  # gradients on the features, of all declared tasks
    scaled: Gradients  # the same of the divided losses, which the method balances
    divisors: dict[str, float]  # by declared task, the divisor of its loss
    gramian: Array  # (all, all) of the scaled gradients
    on_heads: dict[str, Row]  # by present task, the gradient on the heads' parameters
    head_squares: Array  # (T,) the squared norms of these

    def slopes(self, heads: Row, displacement: Sequence[Tensor]) -> Slopes:
        """(T,) slopes along a direction of the heads and a displacement of the features."""
        own = np.array(inner_products(list(self.on_heads.values()), heads))
        known = self.on_features.known
        on_features = dict(zip(known, inner_products(self.on_features.rows, displacement), strict=True))
        return Slopes(own, np.array([on_features.get(position, 0.0) for position in self.positions]))

    def feature_row(self, task: str) -> Row:
        """The gradient of a task on the features."""
        known, position = self.on_features.known, self.positions[list(self.values).index(task)]
        return self.on_features.rows[known.index(position)] if position in known else [None] * len(self.batch.leaves)

    def parameter_rows(self) -> dict[str, list[Tensor | None]]:
        """By present task, the gradient on all parameters: one encoder backward for each."""
        rows: dict[str, list[Tensor | None]] = {}
        for task, position in zip(self.values, self.positions, strict=True):
            unit = [float(other == position) for other in range(self.on_features.tasks)]
            rows[task] = [*encoder_gradient(self.batch, self.on_features.combined(unit)), *self.on_heads[task]]
        return rows

    @property
    def heads_overlap(self) -> bool:
        """Whether several tasks have a gradient on the same parameter of the heads."""
        rows, count = list(self.on_heads.values()), len(self.batch.parts.head_parameters)
        return any(sum(row[index] is not None for row in rows) > 1 for index in range(count))


def encoder_gradient(batch: Batch, cotangent: Sequence[Tensor]) -> list[Tensor]:
    """J_z^T times a cotangent of the features."""
    return with_zeros(batch.encoder_backward.gradients(batch.parts.shared, list(cotangent)), batch.parts.shared)


def batch_gradients(batch: Batch, state: FastState, scale_losses: bool) -> tuple[BatchGradients, FastState]:
    """The gradients of the tasks with a loss; a task without a gradient is absent.

    Raises:
        ValueError: a loss does not come from the features alone.
        FloatingPointError: a loss or gradient is not finite.
    """
    parts, tasks, count = batch.parts, state.search.tasks, len(batch.leaves)
    checked = check_origin(batch.losses, batch.leaves, parts.shared, state.checked_tasks)
    rows: list[Row | None] = [None] * len(tasks)
    on_heads: dict[str, Row] = {}
    backward = RepeatedBackward(list(batch.losses.values()), batch.repeated_losses)
    for output, task in enumerate(batch.losses):
        last = output + 1 == len(batch.losses)
        row = backward.gradients([*batch.leaves, *parts.head_parameters], output=output, last=last)
        rows[tasks.index(task)] = row[:count]
        on_heads[task] = row[count:]
    divisors = state.search.divisors(tasks) if scale_losses else dict.fromkeys(tasks, 1.0)
    on_features = scaled = Gradients(rows, batch.leaves)
    if max(divisors.values()) > 1:
        pairs = zip(rows, divisors.values(), strict=True)
        scaled = Gradients([None if row is None else divided(row, divisor) for row, divisor in pairs], batch.leaves)
    gramian = scaled.gramian()[0]
    values = values_of(batch.losses)
    on_all_heads = list(on_heads.values())
    head_squares = dict(zip(on_heads, paired_products(on_all_heads, on_all_heads), strict=True))
    diagonal = dict(zip(tasks, gramian.diagonal().tolist(), strict=True))
    squares = {task: head_squares[task] + diagonal[task] for task in values}
    check_finite(values, squares)
    present = {task: value for task, value in values.items() if squares[task] != 0}
    gradients = BatchGradients(
        batch,
        present,
        state.search.positions(present),
        on_features,
        scaled,
        divisors,
        gramian,
        {task: on_heads[task] for task in present},
        np.array([head_squares[task] for task in present]),
    )
    return gradients, state._replace(checked_tasks=checked)
