"""Inner products of the tasks' gradients over batches: on every parameter tensor, on the features, and of their sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array, Mask
from paretorch.core.gradients.memory import check_memory
from paretorch.core.gradients.task_gradients import Gradients, summing_dtype
from paretorch.diagnosis.subject import BatchGradients, Subject


@dataclass
class GradientPass:
    """What one pass over K batches at fixed weights leaves, for T tasks and N parameter tensors.

    Args:
        tasks: names in the order of their first appearance.
        losses: by batch, values by task.
        gramians: by batch, (N, T', T') inner products of the T' tasks known so far on each parameter tensor.
        feature_gramians: by batch, (T', T') on the features; empty where these are unknown.
        overlaps: by batch, (T', T') inner products of the absolute values of gradients on the features.
        reached: by task, the indices of the parameter tensors that it reaches in a batch.
        on_features: tasks whose loss depends on the features.
        own_inputs: whether in every batch only parameters are reached by several tasks.
        samples: samples of each batch; None where unknown.
        earlier: by batch and task, (N,) inner products of its gradient with the sum of those of the batches before.
        sums: by task, the sum of its gradients over batches, for each parameter tensor.
    """

    tasks: list[str] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    gramians: list[Array] = field(default_factory=list)
    feature_gramians: list[Array] = field(default_factory=list)
    overlaps: list[Array] = field(default_factory=list)
    reached: dict[str, set[int]] = field(default_factory=dict)
    on_features: set[str] = field(default_factory=set)
    own_inputs: bool = True
    samples: list[int | None] = field(default_factory=list)
    earlier: list[dict[str, Array]] = field(default_factory=list)
    sums: dict[str, list[Tensor | None]] = field(default_factory=dict)

    def on(self, tensors: Sequence[int]) -> Array:
        """(K, T, T) inner products on the given parameter tensors, by batch; zero for absent tasks."""
        index = list(tensors)
        return np.stack([self._padded(gramian[index].sum(axis=0)) for gramian in self.gramians])

    @property
    def on_feature_tensors(self) -> Array:
        """(K, T, T) inner products on the features, by batch."""
        return np.stack([self._padded(gramian) for gramian in self.feature_gramians])

    @property
    def feature_overlap(self) -> Array:
        """(T, T) over all batches: zero where two tasks never reach the same entry of the features."""
        return np.asarray(np.stack([self._padded(overlap) for overlap in self.overlaps]).sum(axis=0))

    @property
    def loss_table(self) -> Array:
        """(K, T) losses, nan where a task is absent."""
        return np.array([[losses.get(task, np.nan) for task in self.tasks] for losses in self.losses])

    def with_earlier(self, tensors: Sequence[int]) -> Array:
        """(K, T) inner products of each gradient with the sum of those of the batches before, on the given tensors."""
        index = list(tensors)
        return np.array(
            [
                [float(found[task][index].sum()) if task in found else 0.0 for task in self.tasks]
                for found in self.earlier
            ]
        )

    def of_sums(self, subject: Subject, tensors: Sequence[int]) -> Array:
        """(T, T) inner products of the summed gradients."""
        leaves = [subject.parameters[index] for index in tensors]
        rows = [[self.sums[task][index] for index in tensors] for task in self.tasks]
        return Gradients(rows, leaves).gramian()[0]

    def ordered(self, tasks: list[str]) -> GradientPass:
        """The pass with its tasks in another order: batches may name them in any order."""
        if tasks == self.tasks:
            return self
        place = [self.tasks.index(task) for task in tasks]
        index = np.ix_(place, place)
        padded = [
            [self._padded(each)[..., index[0], index[1]] for each in matrices]
            for matrices in (self.gramians, self.feature_gramians, self.overlaps)
        ]
        return replace(self, tasks=tasks, gramians=padded[0], feature_gramians=padded[1], overlaps=padded[2])

    def add(self, found: BatchGradients, subject: Subject) -> None:
        """Adds a batch."""
        for task in found.losses:
            if task not in self.reached:
                self.tasks.append(task)
                self.reached[task] = set()
                self.sums[task] = [None] * len(subject.parameters)
        rows = [found.rows.get(task) for task in self.tasks]
        self.losses.append(found.losses)
        self.samples.append(found.samples)
        self.own_inputs &= found.own_inputs
        self.gramians.append(_tensor_gramians(rows, subject.parameters))
        self._add_features(found)
        self.earlier.append({task: _inner_products(row, self.sums[task]) for task, row in found.rows.items()})
        for task, row in found.rows.items():
            self.reached[task] |= {index for index, part in enumerate(row) if part is not None}
            sums = self.sums[task]
            for index, part in enumerate(row):
                if part is not None:
                    total = sums[index]
                    sums[index] = part.to(summing_dtype(part.dtype)).clone() if total is None else total.add_(part)

    def _add_features(self, found: BatchGradients) -> None:
        if not found.feature_tensors:
            return
        rows = [found.features.get(task) for task in self.tasks]
        self.on_features |= {task for task, row in found.features.items() if any(part is not None for part in row)}
        absolute = [row and [None if part is None else part.abs() for part in row] for row in rows]
        self.feature_gramians.append(Gradients(rows, found.feature_tensors).gramian()[0])
        self.overlaps.append(Gradients(absolute, found.feature_tensors).gramian()[0])

    def _padded(self, gramian: Array) -> Array:
        """With zeros for tasks that appear in later batches only."""
        missing = len(self.tasks) - gramian.shape[-1]
        return np.pad(gramian, [*[(0, 0)] * (gramian.ndim - 2), (0, missing), (0, missing)]) if missing else gramian


def gradient_pass(subject: Subject, batches: Sequence[Any]) -> GradientPass:
    """The gradients of every task on every batch, at fixed weights.

    Raises:
        ValueError: a loss or a gradient is not finite, or the gradients do not fit into memory.
    """
    found = GradientPass()
    for batch in batches:
        gradients = subject.gradients(batch)
        if not found.gramians:
            numbers = sum(parameter.numel() for parameter in subject.parameters)
            check_memory(2 * len(gradients.losses), numbers, subject.parameters[0].dtype, subject.device)
        found.add(gradients, subject)
        for task, square in zip(found.tasks, found.gramians[-1].sum(axis=0).diagonal(), strict=True):
            if not np.isfinite(square):
                raise ValueError(
                    f"the gradient of task {task!r} is not finite, although its loss is: a square root or a norm at zero has no "
                    "finite slope; add a small constant there"
                )
    return found


def cosines_by_batch(gramians: Array) -> Array:
    """(K, T, T) cosines of (K, T, T) inner products; nan where a task has no gradient."""
    norms = np.sqrt(np.einsum("ktt->kt", gramians))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.clip(gramians / (norms[:, :, None] * norms[:, None, :]), -1, 1))


def mean_norms(gramians: Array) -> Array:
    """(T,) geometric means over batches of the gradient norms of (K, T, T) inner products; 0 for a task without gradient."""
    squares = np.einsum("ktt->kt", gramians)
    there: Mask = squares > 0
    logs = np.log(np.where(there, squares, 1.0)) / 2
    count = there.sum(axis=0)
    return np.asarray(np.where(count > 0, np.exp(logs.sum(axis=0) / np.maximum(count, 1)), 0.0))


def noise_and_expected_cosines(gramians: Array, of_sums: Array, with_earlier: Array) -> tuple[Array, Array, Array]:
    r"""Gradient noise scale by task with a lower bound, and cosines between the expected gradients.

    .. math:: \widehat{\langle G_s, G_t \rangle} = \frac{1}{n_{st}} \sum_{i \ne j} \langle g_s^i, g_t^j \rangle, \qquad
              \text{noise}_t = \frac{\operatorname{mean}_i \lVert g_t^i \rVert^2 - \widehat{\lVert G_t \rVert^2}}
              {\widehat{\lVert G_t \rVert^2}}

    unbiased in numerator and denominator, in units of a batch: multiplied by the batch size it is the simple noise scale
    of McCandlish et al., tr(Sigma) / |G|^2. The standard error of the squared length comes from the contributions of the batches,
    the inner products of each gradient with the sum of the earlier ones.

    Args:
        gramians: (K, T, T) inner products by batch.
        of_sums: (T, T) inner products of the gradients summed over batches.
        with_earlier: (K, T) inner products of each gradient with the sum of those of the batches before.

    Returns:
        (T,) noise scale, infinite where the squared length is below two standard errors; (T,) its lower bound, at two standard
        errors above; (T, T) cosines, nan where a length is not resolved.

    References:
        McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, eq. (2.9) and appendix A.1.
    """
    there = (np.einsum("ktt->kt", gramians) > 0).astype(float)
    both = there.T @ there
    count = there.sum(axis=0)
    before = np.cumsum(there, axis=0) - there  # batches before, in which the task has a gradient
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (of_sums - gramians.sum(axis=0)) / (np.outer(count, count) - both)
        squares = expected.diagonal().copy()
        variance = np.maximum(np.einsum("ktt->t", gramians) / count - squares, 0)
        residuals = (with_earlier - before * squares) * there
        error = np.sqrt((residuals**2).sum(axis=0)) / (before * there).sum(axis=0)
        resolved = squares > 2 * error
        noise = np.where(resolved, variance / squares, np.inf)
        least = variance / (np.maximum(squares, 0) + 2 * error)
        lengths = np.sqrt(np.where(resolved, squares, np.nan))
        cosines = np.clip(expected / np.outer(lengths, lengths), -1, 1)
    return noise, least, cosines


def _inner_products(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Array:
    """(N,) inner product on each tensor; zero where one of the two is None."""
    return np.array([
        0.0 if a is None or b is None else float(torch.dot(a.reshape(-1).to(b.dtype), b.reshape(-1)))
        for a, b in zip(one, other, strict=True)
    ])  # fmt: skip


def _tensor_gramians(rows: Sequence[Sequence[Tensor | None] | None], leaves: Sequence[Tensor]) -> Array:
    """(N, T, T) inner products on each leaf."""
    parts = [
        Gradients([None if row is None else [row[index]] for row in rows], [leaf]).gramian()[0]
        for index, leaf in enumerate(leaves)
    ]
    return np.stack(parts)
