"""Weighted means that are accumulated over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

BUFFER = 256  # values, before they are added up


class WeightedMeans(Protocol):
    """Weighted means by name."""

    def add(self, name: str, value: Tensor, count: int | Tensor = 1) -> None:
        """Adds the mean ``value``, (), of ``count`` elements; a count of zero adds nothing, whatever the value is."""

    def read(self) -> dict[str, float]:
        """The means; nan where the counts add up to zero."""


class DeviceMeans:
    """Weighted means in float64 on the device of the values: adding does not wait for the device, reading does.

    Example:
        >>> means = DeviceMeans()
        >>> means.add("left", torch.tensor(1.0), 3)
        >>> means.add("left", torch.tensor(5.0), 1)
        >>> means.read()
        {'left': 2.0}
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int | Tensor] = {}
        self.buffers: dict[str, list[tuple[Tensor, int | Tensor]]] = {}  # one sum of many values costs a fraction

    def add(self, name: str, value: Tensor, count: int | Tensor = 1) -> None:
        """Adds the mean ``value``, (), without a graph; see :class:`WeightedMeans`."""
        buffer = self.buffers.setdefault(name, [])
        buffer.append((value, count))
        if len(buffer) == BUFFER:
            self._add_up(name)

    def add_number(self, name: str, value: float) -> None:
        """Adds a number on the host with a count of one."""
        self._accumulate(name, value, 1)

    def _add_up(self, name: str) -> None:
        values, counts = zip(*self.buffers.pop(name), strict=True)
        wide = _widen(torch.stack(values))
        if all(isinstance(count, int) and count == 1 for count in counts):
            self._accumulate(name, wide.sum(), len(counts))
            return
        if all(isinstance(count, int) for count in counts):
            whole = torch.tensor(counts).to(wide.device)  # one transfer
        else:
            whole = torch.stack([torch.as_tensor(count, device=wide.device) for count in counts])
        self._accumulate(name, torch.where(whole > 0, wide * whole, 0.0).sum(), whole.sum())

    def _accumulate(self, name: str, total: Tensor | float, count: int | Tensor) -> None:
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + count

    def read(self) -> dict[str, float]:
        """The means; see :class:`WeightedMeans`."""
        for name in list(self.buffers):
            self._add_up(name)
        counts = {name: int(count) for name, count in self.counts.items()}
        return {name: float(total) / counts[name] if counts[name] else math.nan for name, total in self.sums.items()}


class HostMeans:
    """Weighted means in float64 on the host, added in the order of the batches: each addition waits for the device.

    Fronts are recorded with these sums, which round differently from those of :class:`DeviceMeans`.

    Example:
        >>> means = HostMeans()
        >>> means.add("left", torch.tensor(1.0), 3)
        >>> means.add("left", torch.tensor(5.0), 1)
        >>> means.read()
        {'left': 2.0}
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, name: str, value: Tensor, count: int | Tensor = 1) -> None:
        """Adds the mean ``value``, (); see :class:`WeightedMeans`."""
        number = float(count)
        self.sums[name] = self.sums.get(name, 0.0) + (float(value) * number if number > 0 else 0.0)
        self.counts[name] = self.counts.get(name, 0.0) + number

    def read(self) -> dict[str, float]:
        """The means; see :class:`WeightedMeans`."""
        return {name: total / self.counts[name] if self.counts[name] else math.nan for name, total in self.sums.items()}


class ExactMean:
    """The mean of any number of values, in constant memory: their sum is rounded once, when the mean is read.

    Example:
        >>> mean = ExactMean()
        >>> for value in (1e16, 1.0, -1e16):
        ...     mean.add(value)
        >>> mean.count, mean.read() == 1 / 3
        (3, True)

    References:
        Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates", 1997, section 2.4: numbers
        without common digits whose sum is that of all values, as in ``math.fsum``.
    """

    def __init__(self, count: int = 0, parts: Sequence[float] = ()) -> None:
        self.count, self.parts = count, [float(part) for part in parts]

    def add(self, value: float) -> None:
        """Adds a value; one that is not finite makes the mean so."""
        self.count += 1
        value = float(value)
        if not math.isfinite(sum(self.parts, value)):
            self.parts = [sum(self.parts, value)]
            return
        kept = []
        for part in self.parts:
            larger, smaller = (value, part) if abs(value) >= abs(part) else (part, value)
            value = larger + smaller
            if error := smaller - (value - larger):  # of the rounded sum
                kept.append(error)
        self.parts = [*kept, value]

    def read(self) -> float:
        """The mean; nan without a value."""
        return math.fsum(self.parts) / self.count if self.count else math.nan


def _widen(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)  # MPS has no float64
