"""Totals over the steps of an epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.core.contract import Balance, Status
from paretorch.loop.means import BUFFER, DeviceMeans
from paretorch.training.record.search_totals import SearchTotals
from paretorch.training.updates import StepRecord


class MeanCosines:
    """Mean cosines between the gradients of two tasks, over the steps in which both were present.

    Gramians are on the host, so adding does not wait for the device.

    Example:
        >>> means = MeanCosines()
        >>> means.add(("left", "right"), torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        >>> means.read()
        {'left': [-0.5], 'right': []}
    """

    def __init__(self) -> None:
        self.tasks: tuple[str, ...] = ()
        self.sums: NDArray[np.float64] | float = 0.0
        self.counts: NDArray[np.int64] | int = 0
        self.buffer: list[NDArray[np.float64]] = []  # one sum of many steps costs a fraction

    def add(self, tasks: tuple[str, ...], gramian: Tensor) -> None:
        """Adds one step: (T, T) inner products of the task gradients. Gradients that are zero or not finite are left out."""
        self.tasks = tasks
        self.buffer.append(gramian.numpy())
        if len(self.buffer) == BUFFER:
            self._add_up()

    def _add_up(self) -> None:
        products = np.stack(self.buffer).astype(np.float64)
        self.buffer = []
        squares = products.diagonal(axis1=1, axis2=2)
        valid = (squares > 0) & np.isfinite(squares)
        inverse = 1 / np.sqrt(np.where(valid, squares, 1.0))
        both = valid[:, :, None] & valid[:, None] & np.isfinite(products)
        cosines = np.where(both, products, 0.0) * inverse[:, :, None] * inverse[:, None]
        self.sums = self.sums + cosines.sum(axis=0)
        self.counts = self.counts + both.sum(axis=0)

    def read(self) -> dict[str, list[float]]:
        """By task: its mean cosines with the following tasks, four digits; nan for two tasks that were never present together."""
        if self.buffer:
            self._add_up()
        means = np.where(self.counts, self.sums / np.maximum(self.counts, 1), math.nan)
        return {task: [round(float(value), 4) for value in means[i, i + 1 :]] for i, task in enumerate(self.tasks)}


class EpochTotals:
    """Mean losses, weights and cosines, counts of statuses and totals of a line search, over the steps of an epoch.

    Attributes:
        nonfinite: the first step, from 0, in which a task's gradient was known to be not finite, and these tasks; None if there
            was none, or gradients were not compared.
    """

    def __init__(self) -> None:
        self.losses = DeviceMeans()
        self.weights = DeviceMeans()
        self.cosines = MeanCosines()
        self.searches = SearchTotals()
        self.statuses: Counter[str] = Counter()
        self.samples = 0
        self.nonfinite: tuple[int, tuple[str, ...]] | None = None
        self.buffer: list[StepRecord] = []  # adding many steps at a time costs a fraction

    def add(self, record: StepRecord, samples: int) -> None:
        """Adds one step."""
        self.samples += samples
        self.buffer.append(record)
        if len(self.buffer) == BUFFER:
            self.flush()

    def flush(self) -> None:
        """Adds the buffered steps; must be called before a total is read."""
        buffer, self.buffer = self.buffer, []
        for record in buffer:
            self._add(record)

    def _add(self, record: StepRecord) -> None:
        for task, loss in record.losses.items():
            self.losses.add(task, loss)
        if record.search is not None:
            self.searches.add(record.search)
        balance = record.balance
        if balance is None:
            self.statuses["plain" if record.losses else "absent"] += 1
            return
        if balance.status is Status.NONFINITE and self.nonfinite is None and (tasks := _nonfinite_gradients(balance)):
            self.nonfinite = self.statuses.total(), tasks
        self.statuses[balance.status.value] += 1
        if balance.weights is not None:
            for task, weight in zip(balance.tasks, balance.weights.tolist(), strict=True):
                if task in record.losses:
                    self.weights.add_number(task, weight)
        if balance.gramian is not None:
            self.cosines.add(balance.tasks, balance.gramian)


def _nonfinite_gradients(balance: Balance) -> tuple[str, ...]:
    """The tasks whose gradient was not finite; none where gradients were not compared."""
    if balance.gramian is None:
        return ()
    finite = balance.gramian.diagonal().isfinite().tolist()
    return tuple(task for task, is_finite in zip(balance.tasks, finite, strict=True) if not is_finite)


def step_numbers(record: StepRecord) -> Mapping[str, object]:
    """The numbers of a step that are written: losses, weights, the smallest cosine between two tasks; six digits."""
    losses = torch.stack(list(record.losses.values())).tolist() if record.losses else []  # one wait for the device
    numbers: dict[str, object] = {"losses": dict(zip(record.losses, map(_round, losses), strict=True))}
    if (step := record.search) is not None:
        numbers["search"] = {"outcome": step.outcome.value, "step": _round(step.step), "bound": _round(step.bound),
                             "trials": step.trials, "predicted": {t: _round(v) for t, v in step.predicted.items()}}  # fmt: skip
        optional = {
            "actual": {t: _round(v) for t, v in step.actual.items()},
            "fallback": step.fallback,
            "reason": step.reason,
            "lowered": step.lowered,
        }
        numbers["search"] |= {name: value for name, value in optional.items() if value}  # type: ignore[operator]
    balance = record.balance
    if balance is None:
        return numbers
    numbers["status"] = balance.status.value
    if balance.weights is not None:
        numbers["weights"] = {task: _round(w) for task, w in zip(balance.tasks, balance.weights.tolist(), strict=True)}
    if balance.gramian is not None and balance.present is not None:
        present = [task for task, is_present in enumerate(balance.present.tolist()) if is_present]
        if len(present) > 1:
            numbers["worst_cosine"] = _round(_worst_cosine(balance.gramian.tolist(), present))
    return numbers


def _worst_cosine(products: list[list[float]], present: list[int]) -> float:
    """The smallest cosine between two tasks; nan if a gradient was zero or not finite. Plain numbers, because T is small."""
    squares = {task: products[task][task] for task in present}
    lengths = {task: math.sqrt(square) if 0 < square < math.inf else math.nan for task, square in squares.items()}
    cosines = [products[s][t] / (lengths[s] * lengths[t]) for index, s in enumerate(present) for t in present[:index]]
    return math.nan if any(map(math.isnan, cosines)) else min(cosines)


def _round(value: Tensor | float) -> float:
    return float(f"{float(value):.6g}")
