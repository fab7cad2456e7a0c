"""The metrics of :mod:`paretorch.metrics` under the name of the module that defined them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretorch.former_names import former_names
from paretorch.metrics.classes import F1, Accuracy, BinaryAccuracy, MeanIoU
from paretorch.metrics.distances import MeanAbsoluteError
from paretorch.metrics.metric import Metric
from paretorch.metrics.sums import counted, plus, ratio, sum_dtype

__all__ = [
    "F1",
    "Accuracy",
    "BinaryAccuracy",
    "MeanAbsoluteError",
    "MeanIoU",
    "Metric",
    "counted",
    "plus",
    "ratio",
    "sum_dtype",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__, {"Detected": "BinaryAccuracy"})
