"""Metrics of classes: of samples, of pixels, and of binary attributes."""

from __future__ import annotations

import torch
from torch import Tensor

from paretorch.metrics.metric import Metric
from paretorch.metrics.sums import counted, plus, ratio


class Accuracy(Metric):
    r"""The share of labelled samples whose largest score is that of the target class, in 0..1; higher is better.

    .. math:: \frac{|\{i : y_i \ge 0,\ \arg\max_c s_{ic} = y_i\}|}{|\{i : y_i \ge 0\}|}

    Targets below 0 are not labelled.

    Example:
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2]]), torch.tensor([1, 1, -1]))
        >>> metric.compute()    # one of two; the third is not labelled
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
        """Correct over labelled; nan if nothing is labelled."""
        return ratio(self.correct, self.labelled)


class PixelAccuracy(Accuracy):
    r"""The share of labelled pixels whose class is correct, in 0..1; higher is better.

    .. math:: \frac{\sum_k C_{kk}}{\sum_{jk} C_{jk}}

    where ``C`` counts the labelled pixels of the whole split by target and output. Large classes dominate it:
    see :class:`MeanIoU`.

    Example:
        >>> metric = PixelAccuracy()
        >>> scores = torch.eye(2)[torch.tensor([[0, 0, 0, 1]])].permute(0, 2, 1)    # (B, C, pixels)
        >>> metric.update(scores, torch.tensor([[0, 0, 1, 1]]))
        >>> metric.compute()
        0.75

    References:
        Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, section 5, "pixel accuracy".
    """

    name = "pixel accuracy"


class MeanIoU(Metric):
    r"""Intersection over union of each class, averaged over classes, in 0..1; higher is better.

    .. math:: \frac{1}{|K|} \sum_{k \in K} \frac{C_{kk}}{\sum_j C_{kj} + \sum_j C_{jk} - C_{kk}}

    where ``C`` counts the labelled pixels of the whole split and ``K`` are the classes that occur in the target or in the
    output. A mean of the values of batches is another number. Targets below 0 are not labelled.

    Args:
        classes: number of classes, the background included.

    Example:
        >>> metric = MeanIoU(classes=3)
        >>> scores = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 9.0, 0.0]])
        >>> metric.update(scores, torch.tensor([0, 1, 1, -1]))  # IoU: 1/2, 1/2; class 2 does not occur
        >>> metric.compute()
        0.5

    References:
        Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, section 5, "mean IU"; there the mean
        is over all classes.
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
        largest = target.max() if target.numel() else target.new_full((), -1)
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
    r"""The share of samples whose binary class is predicted correctly, in 0..1; higher is better.

    .. math:: \frac{TP + TN}{TP + TN + FP + FN}

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


class ErrorRate(BinaryAccuracy):
    r"""The share of samples whose binary class is predicted wrongly, in percent, 0..100; lower is better.

    .. math:: 100 \, \frac{FP + FN}{TP + TN + FP + FN}

    Example:
        >>> metric = ErrorRate()
        >>> metric.update(torch.tensor([2.0, -1.0, 3.0, -1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        >>> metric.compute()
        25.0

    References:
        Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018: the mean over the 40 attributes
        of CelebA.
    """

    name = "error"
    higher_is_better = False
    unit = "%"

    def compute(self) -> float:
        """Wrong over all, in percent; nan without samples."""
        if self.confusion is None:
            return float("nan")
        total = int(self.confusion.sum())
        return 100 * (total - int(self.confusion.diagonal().sum())) / total if total else float("nan")


class F1(BinaryAccuracy):
    r"""Harmonic mean of precision and recall of a binary task, in 0..1; higher is better.

    .. math:: \frac{2\,TP}{2\,TP + FP + FN}

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
