"""Metrics: sums over a whole split, never means of batch values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from paretorch.extras import extra


class Metric(ABC):
    """A number about one task on a whole split. Made anew for each evaluation; keeps sums on the device until read."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str] = ""

    @abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Takes in the head's output, (B, ...), and the targets, (B, ...), of some samples."""

    @abstractmethod
    def compute(self) -> float:
        """The metric over all samples taken in; nan where there was none that is labelled."""


class Accuracy(Metric):
    """The share of samples whose largest score is the right class's, in 0..1. Targets below 0 are not labelled.

    Example:
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2]]), torch.tensor([1, 1, -1]))
        >>> metric.compute()
        0.5
    """

    name = "accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.right: Tensor | None = None
        self.seen: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, C) scores and (B,) classes."""
        right, seen = (output.argmax(dim=1) == target).sum(), (target >= 0).sum()
        self.right = right if self.right is None else self.right + right
        self.seen = seen if self.seen is None else self.seen + seen

    def compute(self) -> float:
        """Right over labelled."""
        return _ratio(self.right, self.seen)


class MeanAbsoluteError(Metric):
    """The mean of ``|output - target|``, in the target's unit. Targets that are nan are not labelled.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
        >>> metric.compute()
        2.0
    """

    name = "error"
    higher_is_better = False

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.seen: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in outputs and targets of one shape, (B, ...)."""
        if output.shape != target.shape:
            raise ValueError(f"error: expected output and target of one shape, got {output.shape} and {target.shape}")
        labelled = ~target.isnan()
        distance = torch.where(labelled, (output.to(target.dtype) - target).abs(), 0.0)
        # MPS has no float64
        total = distance.sum(dtype=torch.float32 if target.device.type == "mps" else torch.float64)
        self.total = total if self.total is None else self.total + total
        self.seen = labelled.sum() if self.seen is None else self.seen + labelled.sum()

    def compute(self) -> float:
        """Summed distance over labelled elements."""
        return _ratio(self.total, self.seen)


class MeanIoU(Metric):
    r"""Intersection over union of each class, from one confusion matrix of the whole split, averaged over classes.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \frac{C_{kk}}{\sum_j C_{kj} + \sum_j C_{jk} - C_{kk}}

    where ``C`` counts the labelled pixels and ``K`` are the classes that are in the target or in the output at all.
    Targets below 0 are not labelled.

    Args:
        classes: how many there are, the background included.

    Example:
        >>> metric = MeanIoU(classes=3)
        >>> scores = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 9.0, 0.0]])
        >>> metric.update(scores, torch.tensor([0, 1, 1, -1]))  # IoU: 1/2, 1/2, class 2 nowhere
        >>> metric.compute()
        0.5
    """

    name = "mean IoU"
    higher_is_better = True

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B, C, ...) scores and (B, ...) classes.

        Raises:
            ValueError: the target holds a class that is not one of the ``classes``.
        """
        with extra("studies"):
            from torchmetrics.functional.classification import multiclass_confusion_matrix
        if int(target.max()) >= self.classes:
            raise ValueError(f"mean IoU: expected classes 0 to {self.classes - 1}, got {int(target.max())}")
        target = target.clamp(min=-1)
        counts: Tensor = multiclass_confusion_matrix(
            output.argmax(dim=1), target, num_classes=self.classes, ignore_index=-1, validate_args=False
        )
        self.confusion = counts if self.confusion is None else self.confusion + counts

    def compute(self) -> float:
        """Mean over the classes that were met; nan where no pixel is labelled."""
        if self.confusion is None or not int(self.confusion.sum()):
            return float("nan")
        counts = self.confusion.double().cpu()
        union = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
        return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


def _ratio(total: Tensor | None, seen: Tensor | None) -> float:
    return float("nan") if total is None or seen is None or not int(seen) else float(total) / int(seen)


class Detected(Metric):
    """The share of images of which a binary task says right whether they show its class, in 0..1.

    Nine of ten images do not, so always saying no has 0.9: see :class:`F1` beside it.

    Example:
        >>> metric = Detected()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        >>> metric.compute()
        0.75
    """

    name = "accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.counts: Tensor | None = None  # (2, 2): by truth, by answer

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes in (B,) scores, yes above 0, and (B,) truths, 0 or 1."""
        place = 2 * target.long() + (output > 0).long()
        counts = torch.stack([(place == each).sum() for each in range(4)]).reshape(2, 2)
        self.counts = counts if self.counts is None else self.counts + counts

    def compute(self) -> float:
        """Right over all; nan where nothing was taken in."""
        if self.counts is None:
            return float("nan")
        return float(self.counts.diagonal().sum() / self.counts.sum())


class F1(Detected):
    """Harmonic mean of the share of the class that was found and the share of what was found that is of the class, in 0..1.

    Example:
        >>> metric = F1()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]))
        >>> metric.compute()
        0.5
    """

    name = "F1"

    def compute(self) -> float:
        """2 TP / (2 TP + FP + FN); nan where the class is neither shown nor found."""
        if self.counts is None:
            return float("nan")
        (_, wrong), (missed, right) = self.counts.tolist()
        return 2 * right / (2 * right + wrong + missed) if right + wrong + missed else float("nan")
