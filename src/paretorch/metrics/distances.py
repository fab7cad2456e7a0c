"""Metrics of numbers: mean absolute and relative errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paretorch.metrics.labelled import has_distance
from paretorch.metrics.metric import Metric
from paretorch.metrics.sums import plus, ratio, sum_dtype


class MeanAbsoluteError(Metric):
    r"""The mean of ``|output - target|``, in the target's unit, at least 0; lower is better.

    .. math:: \frac{s}{n} \sum_{i=1}^{n} |\hat y_i - y_i|

    over the ``n`` labelled elements of the whole split. Targets that are nan are not labelled.

    Args:
        unit: of the target before it was standardised; that of the class if None.
        scale: s, by which outputs and targets were divided, above 0.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
        >>> metric.compute()
        2.0
    """

    name = "error"
    higher_is_better = False

    def __init__(self, unit: str | None = None, scale: float = 1.0) -> None:
        self.unit = self.unit if unit is None else unit
        self.scale = scale
        self.total: Tensor | None = None
        self.labelled: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds outputs and targets of one shape, (B, ...).

        Raises:
            ValueError: the shapes differ.
        """
        if output.shape != target.shape:
            raise ValueError(f"error: expected output and target of one shape, got {output.shape} and {target.shape}")
        labelled = ~target.isnan()
        distance = torch.where(labelled, (output.to(target.dtype) - target).abs(), 0.0)
        self.total = plus(self.total, distance.sum(dtype=sum_dtype(target)))
        self.labelled = plus(self.labelled, labelled.sum())

    def compute(self) -> float:
        """Summed distance over labelled elements, times the scale; nan if nothing is labelled."""
        return self.scale * ratio(self.total, self.labelled)


class AbsoluteError(MeanAbsoluteError):
    r"""Mean of ``|output - target|`` over pixels with a measured distance, in the target's unit; lower is better.

    .. math:: \frac{s}{n} \sum_{i : d_i > 0} |\hat d_i - d_i|

    Targets of 0 are not measured; a depth of zeros everywhere gives nan.

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
    r"""Mean of ``|output - target| / target`` over pixels with a measured distance, without unit; lower is better.

    .. math:: \frac{1}{n} \sum_{i : d_i > 0} \frac{|\hat d_i - d_i|}{d_i}

    A share, 0 at best; tables of Cityscapes print 100 times as much. Targets of 0 are not measured.

    Args:
        unit: without effect: a share has no unit.
        scale: by which outputs and targets were divided, above 0; it cancels.

    Example:
        >>> metric = RelativeError()
        >>> metric.update(torch.tensor([[1.0, 7.0]]), torch.tensor([[2.0, 0.0]]))
        >>> metric.compute()
        0.5

    References:
        Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", NeurIPS 2014: "abs
        relative difference".
    """

    name = "relative error"

    def __init__(self, unit: str | None = None, scale: float = 1.0) -> None:
        super().__init__(scale=scale)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, H, W)."""
        labelled = has_distance(target)
        share = torch.where(labelled, output.to(target.dtype) / torch.where(labelled, target, 1.0), math.nan)
        super().update(share, torch.where(labelled, torch.ones_like(target), math.nan))

    def compute(self) -> float:
        """Summed share over labelled pixels; nan if nothing is labelled."""
        return ratio(self.total, self.labelled)


class OffsetError(MeanAbsoluteError):
    """Mean absolute error of offsets, over both coordinates, in pixels of the network's image; lower is better.

    Example:
        >>> metric = OffsetError()
        >>> metric.update(torch.tensor([[[3.0], [0.0]]]), torch.tensor([[[1.0], [4.0]]]))    # 2 to the right, 4 down
        >>> metric.compute()
        3.0
    """

    name = "offset error"
    unit = "pixels"
