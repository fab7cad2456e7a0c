"""Metrics over all labelled pixels of a split, not means over batches or images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.workloads.dense.losses import has_direction, has_distance
from paretorch.workloads.metrics import Accuracy, MeanAbsoluteError, Metric, counted, plus, ratio, sum_dtype

BINS = 18_000  # of the histogram of angles: 0.01 degrees each
LARGEST = 180.0  # degrees


class PixelAccuracy(Accuracy):
    """The share of labelled pixels whose class is correct, in 0..1."""

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
        """Adds (B, H, W)."""
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
        """Adds (B, H, W)."""
        labelled = has_distance(target)
        ratio = torch.where(labelled, output.to(target.dtype) / torch.where(labelled, target, 1.0), math.nan)
        super().update(ratio, torch.where(labelled, torch.ones_like(target), math.nan))


class OffsetError(MeanAbsoluteError):
    """Mean absolute error of offsets, over both coordinates, in pixels of the network's image."""

    name = "offset error"
    unit = "pixels"


def angles(output: Tensor, target: Tensor) -> Tensor:
    """(n,) angles in degrees between directions, at the n labelled pixels.

    Args:
        output: (B, 3, H, W), of any length.
        target: (B, 3, H, W); zeros without label.

    Example:
        >>> east, north, none = torch.eye(3)[:2].unbind() + (torch.zeros(3),)
        >>> output = torch.stack([east, east, east], dim=1).view(1, 3, 1, 3)
        >>> angles(output, torch.stack([2 * east, north, none], dim=1).view(1, 3, 1, 3))
        tensor([ 0., 90.])
    """
    labelled = has_direction(target)
    # by the chord: the arc cosine of a float32 is inexact at small angles
    first, second = (functional.normalize(vectors.float(), dim=1) for vectors in (output, target))
    difference, total = (first - second).norm(dim=1)[labelled], (first + second).norm(dim=1)[labelled]
    return torch.rad2deg(2 * torch.atan2(difference, total))


class MeanAngle(Metric):
    """Mean angle between the predicted directions and the true ones."""

    name = "mean angle"
    higher_is_better = False
    unit = "degrees"

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.pixels = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, 3, H, W)."""
        found = angles(output, target)
        self.total = plus(self.total, found.sum(dtype=sum_dtype(found)))
        self.pixels += len(found)

    def compute(self) -> float:
        """Summed angle over pixels."""
        return ratio(self.total, self.pixels)


class MedianAngle(Metric):
    """Median angle over all pixels, from a histogram, exact to 0.01 degrees.

    For an even number of angles it is the mean of the two middle ones. Angles within a bin are assumed to be evenly spaced.

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
        self.undefined: Tensor | None = None  # number of angles that are nan, of a run that diverged

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, 3, H, W)."""
        found = angles(output, target)
        self.undefined = plus(self.undefined, found.isnan().sum())
        cells = (found.nan_to_num(0.0) * (BINS / LARGEST)).long().clamp(0, BINS - 1)
        self.counts = plus(self.counts, counted(cells, BINS))

    def compute(self) -> float:
        """In degrees; nan without labelled pixels, or if a prediction is nan."""
        if self.counts is None or self.undefined is None or int(self.undefined) or not int(self.counts.sum()):
            return math.nan
        cumulative = self.counts.cpu().cumsum(dim=0)
        pixels = int(cumulative[-1])
        return (_angle_at_rank(cumulative, (pixels - 1) // 2) + _angle_at_rank(cumulative, pixels // 2)) / 2


def _angle_at_rank(cumulative: Tensor, rank: int) -> float:
    """The angle in degrees with ``rank`` smaller ones, from the (BINS,) cumulative counts."""
    index = int(torch.searchsorted(cumulative, rank, right=True))
    before = int(cumulative[index - 1]) if index else 0
    within = (rank - before + 0.5) / (int(cumulative[index]) - before)
    return (index + within) * LARGEST / BINS


class WithinAngle(Metric):
    """The share of pixels whose angle is below a limit, in 0..1.

    Args:
        limit: in degrees.
    """

    higher_is_better = True

    def __init__(self, limit: float) -> None:
        self.name, self.limit = f"within {limit:g}", limit
        self.within: Tensor | None = None
        self.pixels = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, 3, H, W)."""
        found = angles(output, target)
        self.within = plus(self.within, (found < self.limit).sum())
        self.pixels += len(found)

    def compute(self) -> float:
        """Pixels within over pixels."""
        return ratio(self.within, self.pixels)


def direction_metrics() -> tuple[Metric, ...]:
    """Mean and median angle, and the shares below 11.25, 22.5 and 30 degrees, as in the literature."""
    return (MeanAngle(), MedianAngle(), WithinAngle(11.25), WithinAngle(22.5), WithinAngle(30))
