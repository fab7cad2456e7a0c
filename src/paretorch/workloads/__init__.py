"""Workloads: data, model, losses and metrics of multi-task problems.

Each file of this folder except ``base``, ``forward``, ``metrics`` and ``streams``, which define what a workload is, is a workload
with its name. Options and files of data sets go in; streams of samples, models, losses and metrics come out. This package must
not import a method, an optimizer, a line search or the training loop.
"""

from paretorch.metrics import Accuracy, MeanAbsoluteError, MeanIoU, Metric
from paretorch.workloads.base import MultiTaskModel, Truth, Workload
from paretorch.workloads.loading.loader_stream import LoaderStream
from paretorch.workloads.streams import Samples, Splits, Stream, TensorStream

__all__ = [
    "Accuracy",
    "LoaderStream",
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
