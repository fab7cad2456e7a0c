"""Metrics of tasks over a whole split, and comparison of models by all their metrics.

Outputs of heads and targets go in, batch by batch; numbers with a direction and a unit come out. :func:`delta_m` and
:func:`mean_rank` turn the numbers of all tasks into one. This package needs torch and numpy, and must not know where outputs or
numbers come from: workloads, evaluation, studies and reports use it.
"""

from paretorch.metrics.classes import F1, Accuracy, BinaryAccuracy, ErrorRate, MeanIoU, PixelAccuracy
from paretorch.metrics.comparison import delta_m, delta_m_to_best, mean_rank
from paretorch.metrics.directions import MeanAngle, MedianAngle, WithinAngle, angles, direction_metrics
from paretorch.metrics.distances import AbsoluteError, MeanAbsoluteError, OffsetError, RelativeError
from paretorch.metrics.metric import Metric

__all__ = [
    "F1",
    "AbsoluteError",
    "Accuracy",
    "BinaryAccuracy",
    "ErrorRate",
    "MeanAbsoluteError",
    "MeanAngle",
    "MeanIoU",
    "MedianAngle",
    "Metric",
    "OffsetError",
    "PixelAccuracy",
    "RelativeError",
    "WithinAngle",
    "angles",
    "delta_m",
    "delta_m_to_best",
    "direction_metrics",
    "mean_rank",
]
