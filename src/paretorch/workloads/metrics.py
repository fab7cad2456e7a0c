"""Metrics, computed from sums over a whole split and not as means of batch values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from paretorch.former_names import former_names


class Metric(ABC):
    """A number about one task on a whole split. Each evaluation makes a new one; sums stay on the device until they are read."""

    name: str
    higher_is_better: ClassVar[bool]
    unit: str = ""

    @abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Adds samples: the head's output, (B, ...), and the targets, (B, ...)."""

    @abstractmethod
    def compute(self) -> float:
        """The metric over all samples added; nan if none is labelled."""


class Accuracy(Metric):
    """The share of samples whose largest score is that of the target class, in 0..1. Targets below 0 are not labelled.

    Example:
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2]]), torch.tensor([1, 1, -1]))
        >>> metric.compute()
        0.5
    """

    name = "accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.correct: Tensor | None = None
        self.labelled: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, C) scores and (B,) classes."""
        self.correct = plus(self.correct, (output.argmax(dim=1) == target).sum())
        self.labelled = plus(self.labelled, (target >= 0).sum())

    def compute(self) -> float:
        """Correct over labelled."""
        return ratio(self.correct, self.labelled)


class MeanAbsoluteError(Metric):
    """The mean of ``|output - target|``, in the target's unit. Targets that are nan are not labelled.

    Args:
        unit: of the target; that of the class if None.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
        >>> metric.compute()
        2.0
    """

    name = "error"
    higher_is_better = False

    def __init__(self, unit: str | None = None) -> None:
        self.unit = self.unit if unit is None else unit
        self.total: Tensor | None = None
        self.labelled: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds outputs and targets of one shape, (B, ...)."""
        if output.shape != target.shape:
            raise ValueError(f"error: expected output and target of one shape, got {output.shape} and {target.shape}")
        labelled = ~target.isnan()
        distance = torch.where(labelled, (output.to(target.dtype) - target).abs(), 0.0)
        self.total = plus(self.total, distance.sum(dtype=sum_dtype(target)))
        self.labelled = plus(self.labelled, labelled.sum())

    def compute(self) -> float:
        """Summed distance over labelled elements."""
        return ratio(self.total, self.labelled)


class MeanIoU(Metric):
    r"""Intersection over union of each class, from one confusion matrix of the whole split, averaged over classes.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \frac{C_{kk}}{\sum_j C_{kj} + \sum_j C_{jk} - C_{kk}}

    where ``C`` counts the labelled pixels and ``K`` are the classes that occur in the target or in the output.
    Targets below 0 are not labelled.

    Args:
        classes: number of classes, the background included.

    Example:
        >>> metric = MeanIoU(classes=3)
        >>> scores = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 9.0, 0.0]])
        >>> metric.update(scores, torch.tensor([0, 1, 1, -1]))  # IoU: 1/2, 1/2; class 2 does not occur
        >>> metric.compute()
        0.5
    """

    name = "mean IoU"
    higher_is_better = True

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion: Tensor | None = None
        self.largest: Tensor | None = (
            None  # class of a target; checked at the end, because a check waits for the device
        )

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B, C, ...) scores and (B, ...) classes."""
        cells = target * self.classes + output.argmax(dim=1)
        # one more cell on either side: for pixels without label, and for classes that do not exist
        counts = counted(cells.clamp(-1, self.classes**2) + 1, self.classes**2 + 2)[1:-1]
        self.confusion = plus(self.confusion, counts.reshape(self.classes, self.classes))
        largest = target.max()
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)

    def compute(self) -> float:
        """Mean over the classes that occur; nan without labelled pixels.

        Raises:
            ValueError: a target has a class that is not one of the ``classes``.
        """
        if self.largest is not None and int(self.largest) >= self.classes:
            raise ValueError(f"mean IoU: expected classes 0 to {self.classes - 1}, got {int(self.largest)}")
        if self.confusion is None or not int(self.confusion.sum()):
            return float("nan")
        counts = self.confusion.double().cpu()
        union = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
        return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


class BinaryAccuracy(Metric):
    """The share of samples whose binary class is predicted correctly, in 0..1.

    With rare classes the constant prediction "no" is almost always correct: see :class:`F1`.

    Example:
        >>> metric = BinaryAccuracy()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        >>> metric.compute()
        0.75
    """

    name = "accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.confusion: Tensor | None = None  # (2, 2): by target, by prediction

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds (B,) scores, positive above 0, and (B,) targets, 0 or 1."""
        cells = 2 * target.long() + (output > 0).long()
        counts = torch.stack([(cells == cell).sum() for cell in range(4)]).reshape(2, 2)
        self.confusion = plus(self.confusion, counts)

    def compute(self) -> float:
        """Correct over all; nan without samples."""
        if self.confusion is None:
            return float("nan")
        return float(self.confusion.diagonal().sum() / self.confusion.sum())


class F1(BinaryAccuracy):
    """Harmonic mean of precision and recall of a binary task, in 0..1.

    Example:
        >>> metric = F1()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
        >>> metric.compute()
        0.5
    """

    name = "F1"

    def compute(self) -> float:
        """2 TP / (2 TP + FP + FN); nan if the class occurs in neither targets nor predictions."""
        if self.confusion is None:
            return float("nan")
        (_, false), (missed, true) = self.confusion.tolist()
        return 2 * true / (2 * true + false + missed) if true + false + missed else float("nan")


def counted(cells: Tensor, count: int) -> Tensor:
    """(count,) numbers of elements in each cell, as ``torch.bincount``, which waits for the device.

    Args:
        cells: integers in [0, count), of any shape.
        count: of the cells.

    Example:
        >>> counted(torch.tensor([0, 2, 2]), 4)
        tensor([1, 0, 2, 0])
    """
    flat = cells.flatten().long()
    return flat.new_zeros(count).scatter_add_(0, flat, torch.ones_like(flat))


def sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype of sums over a split: float64, or float32 on MPS, which does not have it."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def plus(total: Tensor | None, value: Tensor) -> Tensor:
    """A running sum with one more term; None is an empty sum."""
    return value if total is None else total + value


def ratio(total: Tensor | None, count: Tensor | int | None) -> float:
    """The quotient of two running sums, which waits for the device; nan if the count is zero or an empty sum."""
    return float("nan") if total is None or count is None or not int(count) else float(total) / int(count)


if not TYPE_CHECKING:
    __getattr__ = former_names(__name__, {"Detected": "BinaryAccuracy"})
