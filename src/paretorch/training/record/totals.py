"""Sums over the steps of an epoch, kept on the device until they are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.training.record.search_totals import SearchTotals
from paretorch.training.updates import StepRecord

WAITING = 256  # values, before they are summed up


class Means:
    """Weighted means by name. Adding waits for nothing; reading waits for the device.

    Example:
        >>> means = Means()
        >>> means.add("left", torch.tensor(1.0), 3)
        >>> means.add("left", torch.tensor(5.0), 1)
        >>> means.read()
        {'left': 2.0}
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int | Tensor] = {}
        self.waiting: dict[str, list[tuple[Tensor, int | Tensor]]] = {}  # a sum of many at a time costs a fraction

    def add(self, name: str, value: Tensor, count: int | Tensor = 1) -> None:
        """Adds the mean ``value``, (), without a graph, of ``count`` elements; zero adds nothing, whatever the value is."""
        waiting = self.waiting.setdefault(name, [])
        waiting.append((value, count))
        if len(waiting) == WAITING:
            self._sum_up(name)

    def add_number(self, name: str, value: float) -> None:
        """Adds a number that is on the host already and counts once."""
        self._take(name, value, 1)

    def _sum_up(self, name: str) -> None:
        values, counts = zip(*self.waiting.pop(name), strict=True)
        wide = _wide(torch.stack(values))
        if all(isinstance(count, int) and count == 1 for count in counts):
            self._take(name, wide.sum(), len(counts))
            return
        whole = torch.stack([torch.as_tensor(count, device=wide.device) for count in counts])
        self._take(name, torch.where(whole > 0, wide * whole, 0.0).sum(), whole.sum())

    def _take(self, name: str, total: Tensor | float, count: int | Tensor) -> None:
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + count

    def read(self) -> dict[str, float]:
        """The means; nan where nothing was counted."""
        for name in list(self.waiting):
            self._sum_up(name)
        counts = {name: int(count) for name, count in self.counts.items()}
        return {name: float(total) / counts[name] if counts[name] else math.nan for name, total in self.sums.items()}


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)  # MPS has no float64


class MeanCosines:
    """Mean cosines between the gradients of two tasks, each over the steps in which both were there.

    The Gramian lies on the host already, so adding waits for nothing.

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
        self.waiting: list[NDArray[np.float64]] = []  # many steps at a time cost a fraction

    def add(self, tasks: tuple[str, ...], gramian: Tensor) -> None:
        """Takes in one step: (T, T) inner products of the task gradients; pairs that are zero or not finite are left out."""
        self.tasks = tasks
        self.waiting.append(gramian.numpy())
        if len(self.waiting) == WAITING:
            self._sum_up()

    def _sum_up(self) -> None:
        products = np.stack(self.waiting).astype(np.float64)
        self.waiting = []
        squares = products.diagonal(axis1=1, axis2=2)
        there = (squares > 0) & np.isfinite(squares)
        inverse = 1 / np.sqrt(np.where(there, squares, 1.0))
        both = there[:, :, None] & there[:, None] & np.isfinite(products)
        cosines = np.where(both, products, 0.0) * inverse[:, :, None] * inverse[:, None]
        self.sums = self.sums + cosines.sum(axis=0)
        self.counts = self.counts + both.sum(axis=0)

    def read(self) -> dict[str, list[float]]:
        """By task: its mean cosines with the tasks after it, in their order, four digits; nan where two never met."""
        if self.waiting:
            self._sum_up()
        means = np.where(self.counts, self.sums / np.maximum(self.counts, 1), math.nan)
        return {task: [round(float(value), 4) for value in means[i, i + 1 :]] for i, task in enumerate(self.tasks)}


class EpochTotals:
    """Mean losses, mean weights, mean cosines, counts of statuses and what was searched, over the steps of an epoch."""

    def __init__(self) -> None:
        self.losses = Means()
        self.weights = Means()
        self.cosines = MeanCosines()
        self.searches = SearchTotals()
        self.statuses: Counter[str] = Counter()
        self.samples = 0
        self.waiting: list[StepRecord] = []  # many steps at a time cost a fraction

    def add(self, record: StepRecord, samples: int) -> None:
        """Takes in one step."""
        self.samples += samples
        self.waiting.append(record)
        if len(self.waiting) == WAITING:
            self.settle()

    def settle(self) -> None:
        """Takes in what waits: to be called before anything is read."""
        waiting, self.waiting = self.waiting, []
        for record in waiting:
            self._take(record)

    def _take(self, record: StepRecord) -> None:
        for task, loss in record.losses.items():
            self.losses.add(task, loss)
        if record.search is not None:
            self.searches.add(record.search)
        balance = record.balance
        if balance is None:
            self.statuses["plain" if record.losses else "absent"] += 1
            return
        self.statuses[balance.status.value] += 1
        if balance.weights is not None:
            for task, weight in zip(balance.tasks, balance.weights.tolist(), strict=True):
                if task in record.losses:
                    self.weights.add_number(task, weight)
        if balance.gramian is not None:
            self.cosines.add(balance.tasks, balance.gramian)


def step_numbers(record: StepRecord) -> Mapping[str, object]:
    """What is written about one step: losses, weights, the worst cosine between two tasks; six digits."""
    losses = torch.stack(list(record.losses.values())).tolist() if record.losses else []  # one wait for the device
    numbers: dict[str, object] = {"losses": dict(zip(record.losses, map(_short, losses), strict=True))}
    if (step := record.search) is not None:
        numbers["search"] = {"outcome": step.outcome.value, "step": _short(step.step), "bound": _short(step.bound),
                             "trials": step.trials, "predicted": {t: _short(v) for t, v in step.predicted.items()}}  # fmt: skip
        said = {
            "actual": {t: _short(v) for t, v in step.actual.items()},
            "fallback": step.fallback,
            "reason": step.reason,
            "lowered": step.lowered,
        }
        numbers["search"] |= {name: value for name, value in said.items() if value}  # type: ignore[operator]
    balance = record.balance
    if balance is None:
        return numbers
    numbers["status"] = balance.status.value
    if balance.weights is not None:
        numbers["weights"] = {task: _short(w) for task, w in zip(balance.tasks, balance.weights.tolist(), strict=True)}
    if balance.gramian is not None and balance.present is not None:
        present = [task for task, here in enumerate(balance.present.tolist()) if here]
        if len(present) > 1:
            numbers["worst_cosine"] = _short(_worst_cosine(balance.gramian.tolist(), present))
    return numbers


def _worst_cosine(products: list[list[float]], present: list[int]) -> float:
    """The least cosine between two tasks; nan where a gradient was zero or not finite. Plain numbers: T is small."""
    squares = {task: products[task][task] for task in present}
    lengths = {task: math.sqrt(square) if 0 < square < math.inf else math.nan for task, square in squares.items()}
    cosines = [products[s][t] / (lengths[s] * lengths[t]) for place, s in enumerate(present) for t in present[:place]]
    return math.nan if any(map(math.isnan, cosines)) else min(cosines)


def _short(value: Tensor | float) -> float:
    return float(f"{float(value):.6g}")
