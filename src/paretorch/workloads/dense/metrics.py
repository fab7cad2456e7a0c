"""Metrics of numbers for each pixel: over all labelled pixels of the split, never means of batch or image values."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.workloads.dense.losses import has_direction, has_distance
from paretorch.workloads.metrics import Accuracy, MeanAbsoluteError, Metric

BINS = 18_000  # of the histogram of angles: 0.01 degrees each
STRAIGHT = 180.0  # degrees


class PixelAccuracy(Accuracy):
    """The share of labelled pixels whose class is right, in 0..1."""

    name = "pixel accuracy"


class AbsoluteError(MeanAbsoluteError):
    """Mean of ``|output - target|`` over pixels with a measured distance.

    Example:
        >>> metric = AbsoluteError()
        >>> metric.update(torch.tensor([[1.0, 7.0]]), torch.tensor([[2.0, 0.0]]))
        >>> metric.compute()
        1.0
    """

    name = "absolute error"

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, H, W)."""
        super().update(output, torch.where(has_distance(target), target, math.nan))


class RelativeError(MeanAbsoluteError):
    """Mean of ``|output - target| / target`` over pixels with a measured distance.

    Example:
        >>> metric = RelativeError()
        >>> metric.update(torch.tensor([[1.0, 7.0]]), torch.tensor([[2.0, 0.0]]))
        >>> metric.compute()
        0.5
    """

    name = "relative error"

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, H, W)."""
        there = has_distance(target)
        ratio = torch.where(there, output.to(target.dtype) / torch.where(there, target, 1.0), math.nan)
        super().update(ratio, torch.where(there, torch.ones_like(target), math.nan))


class OffsetError(MeanAbsoluteError):
    """Mean absolute error of offsets, over both coordinates, in pixels of the network's image."""

    name = "offset error"
    unit = "pixels"


def angles(output: Tensor, target: Tensor) -> Tensor:
    """(n,) angles in degrees between directions, at the n pixels that have one.

    Args:
        output: (B, 3, H, W), of any length.
        target: (B, 3, H, W); zeros where there is none.

    Example:
        >>> east, north, none = torch.eye(3)[:2].unbind() + (torch.zeros(3),)
        >>> output = torch.stack([east, east, east], dim=1).view(1, 3, 1, 3)
        >>> angles(output, torch.stack([2 * east, north, none], dim=1).view(1, 3, 1, 3))
        tensor([ 0., 90.])
    """
    there = has_direction(target)
    # by the chord, which is exact at small angles, where the arc cosine of a float32 is not
    first, second = (functional.normalize(vectors.float(), dim=1) for vectors in (output, target))
    chord, other = (first - second).norm(dim=1)[there], (first + second).norm(dim=1)[there]
    return torch.rad2deg(2 * torch.atan2(chord, other))


class MeanAngle(Metric):
    """Mean angle between the predicted directions and the true ones."""

    name = "mean angle"
    higher_is_better = False
    unit = "degrees"

    def __init__(self) -> None:
        self.total = 0.0
        self.seen = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, 3, H, W)."""
        found = angles(output, target)
        self.total += float(found.sum(dtype=torch.float32 if found.device.type == "mps" else torch.float64))
        self.seen += len(found)

    def compute(self) -> float:
        """Summed angle over pixels."""
        return self.total / self.seen if self.seen else math.nan


class MedianAngle(Metric):
    """Median angle over all pixels, from a histogram: within 0.01 degrees of the exact one.

    Of an even number of angles it is the mean of the two in the middle. Within a bin, angles are taken to lie evenly.

    Example:
        >>> metric = MedianAngle()
        >>> target = torch.eye(3)[2].view(1, 3, 1, 1).expand(1, 3, 1, 5)
        >>> tilt = torch.tensor([0.0, 10.0, 20.0, 50.0, 90.0]).deg2rad()
        >>> output = torch.stack([tilt.sin(), torch.zeros(5), tilt.cos()]).view(1, 3, 1, 5)
        >>> metric.update(output, target)
        >>> round(metric.compute(), 1)
        20.0
    """

    name = "median angle"
    higher_is_better = False
    unit = "degrees"

    def __init__(self) -> None:
        self.counts: Tensor | None = None
        self.broken = False

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, 3, H, W)."""
        found = angles(output, target)
        if bool(found.isnan().any()):  # a run that diverged
            self.broken = True
            return
        counts = torch.bincount((found * (BINS / STRAIGHT)).long().clamp(0, BINS - 1), minlength=BINS)
        self.counts = counts if self.counts is None else self.counts + counts

    def compute(self) -> float:
        """In degrees; nan where no pixel has a direction, or one that was predicted is nan."""
        if self.broken or self.counts is None or not int(self.counts.sum()):
            return math.nan
        below = self.counts.cpu().cumsum(dim=0)
        seen = int(below[-1])
        return (_ranked(below, (seen - 1) // 2) + _ranked(below, seen // 2)) / 2


def _ranked(below: Tensor, rank: int) -> float:
    """The angle at a rank, from 0, in degrees, from the (BINS,) counts of angles up to the end of each bin."""
    place = int(torch.searchsorted(below, rank, right=True))
    before = int(below[place - 1]) if place else 0
    within = (rank - before + 0.5) / (int(below[place]) - before)
    return (place + within) * STRAIGHT / BINS


class WithinAngle(Metric):
    """The share of pixels whose angle is below a limit, in 0..1."""

    higher_is_better = True
    limit: ClassVar[float]  # degrees

    def __init__(self) -> None:
        self.within = 0
        self.seen = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, 3, H, W)."""
        found = angles(output, target)
        self.within += int((found < self.limit).sum())
        self.seen += len(found)

    def compute(self) -> float:
        """Pixels within over pixels."""
        return self.within / self.seen if self.seen else math.nan


class Within11(WithinAngle):
    """The share of pixels whose angle is below 11.25 degrees, in 0..1."""

    name = "within 11.25"
    limit = 11.25


class Within22(WithinAngle):
    """The share of pixels whose angle is below 22.5 degrees, in 0..1."""

    name = "within 22.5"
    limit = 22.5


class Within30(WithinAngle):
    """The share of pixels whose angle is below 30 degrees, in 0..1."""

    name = "within 30"
    limit = 30.0


def of_directions() -> tuple[Metric, ...]:
    """Mean and median angle, and the shares below 11.25, 22.5 and 30 degrees: the five numbers of the literature."""
    return (MeanAngle(), MedianAngle(), Within11(), Within22(), Within30())
