"""Workloads: data, model, losses and metrics of a multi-task problem. A file here is a workload of its name."""

from paretorch.workloads.base import MultiTaskModel, Truth, Workload
from paretorch.workloads.metrics import Accuracy, MeanAbsoluteError, MeanIoU, Metric
from paretorch.workloads.streams import Samples, Splits, Stream, TensorStream

__all__ = [
    "Accuracy",
    "MeanAbsoluteError",
    "MeanIoU",
    "Metric",
    "MultiTaskModel",
    "Samples",
    "Splits",
    "Stream",
    "TensorStream",
    "Truth",
    "Workload",
]
