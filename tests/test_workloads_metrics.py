"""Metrics add batches without waiting for the device, and their errors name the task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paretorch.loop.evaluation import evaluate
from paretorch.loop.means import DeviceMeans
from paretorch.metrics import (
    F1,
    AbsoluteError,
    Accuracy,
    BinaryAccuracy,
    ErrorRate,
    MeanAbsoluteError,
    MeanAngle,
    MeanIoU,
    MedianAngle,
    Metric,
    OffsetError,
    PixelAccuracy,
    RelativeError,
    WithinAngle,
)
from paretorch.metrics.sums import counted
from paretorch.workloads.detection.average_precision import AveragePrecision
from paretorch.workloads.scenes import BoxOverlap
from training_workload import Tiny

B, C = 3, 4


def inputs(metric: Metric) -> tuple[Tensor, Tensor]:
    """An output and a target of that metric."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if isinstance(metric, MeanIoU | PixelAccuracy):
        return normal(B, C, 5, 5), torch.randint(-1, C, (B, 5, 5), generator=generator)
    if isinstance(metric, Accuracy):
        return normal(B, C), torch.randint(-1, C, (B,), generator=generator)
    if isinstance(metric, BinaryAccuracy):
        return normal(B), torch.randint(2, (B,), generator=generator).float()
    if isinstance(metric, MeanAngle | MedianAngle | WithinAngle):
        return normal(B, 3, 5, 5), normal(B, 3, 5, 5)
    if isinstance(metric, BoxOverlap):
        return normal(B, 4).abs().cumsum(dim=1), normal(B, 4).abs().cumsum(dim=1)
    return normal(B, 4).abs(), normal(B, 4).abs()


METRICS = [
    Accuracy,
    MeanAbsoluteError,
    lambda: MeanIoU(C),
    BinaryAccuracy,
    ErrorRate,
    F1,
    PixelAccuracy,
    AbsoluteError,
    RelativeError,
]
METRICS += [OffsetError, BoxOverlap]
OF_DIRECTIONS = [MeanAngle, MedianAngle, lambda: WithinAngle(30.0)]


class Waits(TorchDispatchMode):
    """Counts operators that wait for a device: those that read a value, or that have a shape that depends on values."""

    OPERATORS = ("aten._local_scalar_dense", "aten.nonzero", "aten.bincount", "aten.index.Tensor", "aten.equal")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(operator).startswith(self.OPERATORS):
            self.found.append(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", METRICS, ids=lambda make: make().name)
def test_metric_adds_a_batch_without_waiting_for_the_device(make: Any) -> None:
    metric, unread = make(), make()
    output, target = inputs(metric)
    for _ in range(2):
        metric.update(output, target)
        unread.update(output.to("meta"), target.to("meta"))  # a value of a tensor without data cannot be read
    assert math.isfinite(metric.compute())
    with pytest.raises((RuntimeError, NotImplementedError)):
        unread.compute()


@pytest.mark.parametrize("make", OF_DIRECTIONS, ids=lambda make: make().name)
def test_metric_of_directions_waits_only_for_the_number_of_labelled_pixels(make: Any) -> None:
    metric = make()
    with Waits() as waits:
        metric.update(*inputs(metric))
    assert set(waits.found) == {"aten.index.Tensor"}
    assert math.isfinite(metric.compute())


@pytest.mark.parametrize("make", [MeanAbsoluteError, AbsoluteError, OffsetError])
def test_error_of_scaled_values_is_that_of_the_values(make: Any) -> None:
    output, target = inputs(make())
    plain, scaled = make(), make(scale=10.0)
    plain.update(output, target)
    scaled.update(output / 10, target / 10)
    assert scaled.compute() == pytest.approx(plain.compute())


def test_relative_error_does_not_depend_on_the_scale() -> None:
    metric = RelativeError(unit="metres", scale=10.0)
    metric.update(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert metric.compute() == 0.5
    assert metric.unit == ""


@pytest.mark.parametrize("make", [*METRICS, *OF_DIRECTIONS])
def test_empty_batch_changes_no_metric(make: Any) -> None:
    output, target = inputs(make())
    alone, mixed, empty = make(), make(), make()
    alone.update(output, target)
    for part in (slice(0), slice(None), slice(0)):
        mixed.update(output[part], target[part])
    empty.update(output[:0], target[:0])
    assert mixed.compute() == alone.compute()
    assert math.isnan(empty.compute())


def test_empty_batch_does_not_change_the_average_precision() -> None:
    maps, objects = torch.full((1, 5, 4, 4), -9.0), torch.tensor([[[0, 0.375, 0.0, 0.875, 0.5]]])
    maps[0, :, 1, 2] = torch.tensor([9.0, 2.0, 2.0, 0.5, 0.0])
    metric, empty = AveragePrecision((0.5,)), AveragePrecision()
    for part in (slice(0), slice(None), slice(0)):
        metric.update(maps[part], objects[part])
    empty.update(maps[:0], objects[:0])
    assert metric.compute() == 1.0
    assert math.isnan(empty.compute())


def test_counted_equals_bincount() -> None:
    cells = torch.randint(7, (3, 50), generator=torch.Generator().manual_seed(0))
    assert torch.equal(counted(cells, 9), torch.bincount(cells.flatten(), minlength=9))


@pytest.mark.parametrize("bad", [2, 3, 200])
def test_mean_iou_of_an_unknown_class_names_the_task_and_the_class(bad: int) -> None:
    metric = MeanIoU(classes=2)
    metric.update(torch.randn(4, 2), torch.tensor([0, 1, bad, -1]))
    metric.update(torch.randn(4, 2), torch.tensor([0, 1, 0, -1]))  # the largest class is that of any batch
    with pytest.raises(ValueError, match=rf"mean IoU: expected classes 0 to 1, got {bad}"):
        metric.compute()

    class Failing(Metric):
        name = "failing"
        higher_is_better = True

        def update(self, output: Any, target: Any) -> None:
            """Adds nothing."""

        def compute(self) -> float:
            return metric.compute()

    workload = Tiny()
    streams = workload.data().validation
    with pytest.raises(ValueError, match=rf"task 'size': mean IoU: expected classes 0 to 1, got {bad}"):
        evaluate(workload, workload.model(), streams, 16, {"size": (Failing(),)}, DeviceMeans())


def test_metric_that_refuses_an_output_names_the_task() -> None:
    class RefusingError(MeanAbsoluteError):
        def update(self, output: Tensor, target: Tensor) -> None:
            super().update(output[..., None], target)

    workload = Tiny()
    streams = workload.data().validation
    with pytest.raises(ValueError, match="task 'size': error: expected output and target of one shape"):
        evaluate(workload, workload.model(), streams, 16, {"size": (RefusingError(),)}, DeviceMeans())
