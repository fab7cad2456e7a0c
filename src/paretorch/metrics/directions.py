"""Metrics of directions, as surface normals: angles to the true ones, over all labelled pixels of a split."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.metrics.labelled import has_direction
from paretorch.metrics.metric import Metric
from paretorch.metrics.sums import counted, plus, ratio, sum_dtype

BINS = 18_000  # of the histogram of angles: 0.01 degrees each
LARGEST = 180.0  # degrees


def angles(output: Tensor, target: Tensor) -> Tensor:
    r"""(n,) angles in degrees, 0..180, between directions, at the n labelled pixels.

    .. math:: 2 \arctan \frac{\lVert u - v \rVert}{\lVert u + v \rVert}

    of the unit vectors ``u`` and ``v``: the arc cosine of their product, and exact at small angles too.

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
    """Mean angle between the predicted directions and the true ones, in degrees, 0..180; lower is better.

    Over all labelled pixels of the split; the labelled pixels are those whose target is not a vector of zeros.

    Example:
        >>> metric = MeanAngle()
        >>> east, north, none = torch.eye(3)[:2].unbind() + (torch.zeros(3),)
        >>> output = torch.stack([east, east, east], dim=1).view(1, 3, 1, 3)
        >>> metric.update(output, torch.stack([east, north, none], dim=1).view(1, 3, 1, 3))    # 0 and 90 degrees
        >>> metric.compute()
        45.0

    References:
        Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale Convolutional
        Architecture", ICCV 2015.
    """

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
    """Median angle over all labelled pixels, in degrees, from a histogram, exact to 0.01 degrees; lower is better.

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
    """The share of labelled pixels whose angle is below a limit, in 0..1; higher is better.

    Args:
        limit: in degrees.

    Example:
        >>> metric = WithinAngle(30.0)
        >>> east, north = torch.eye(3)[:2].unbind()
        >>> output = torch.stack([east, east], dim=1).view(1, 3, 1, 2)
        >>> metric.update(output, torch.stack([east, north], dim=1).view(1, 3, 1, 2))
        >>> metric.compute()
        0.5
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
    """Mean and median angle, and the shares below 11.25, 22.5 and 30 degrees, as in the literature.

    Example:
        >>> [metric.name for metric in direction_metrics()]
        ['mean angle', 'median angle', 'within 11.25', 'within 22.5', 'within 30']
    """
    return (MeanAngle(), MedianAngle(), WithinAngle(11.25), WithinAngle(22.5), WithinAngle(30))
