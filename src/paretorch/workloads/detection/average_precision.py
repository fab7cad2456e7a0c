"""Average precision of detections over a whole split, by the rules of COCO's benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretorch.metrics import Metric
from paretorch.workloads.detection.boxes import detections, overlaps

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))  # of the overlap from which on a detection is correct
RECALLS = 101  # points of recall at which the precision is read: 0, 0.01, ..., 1


class AveragePrecision(Metric):
    """Mean over classes and thresholds of the overlap of the area below precision against recall, in 0..1.

    In the order of their scores, a detection is correct if its overlap with an object of its class and image that no detection
    before it has taken is the threshold or more; it takes the one of largest overlap. The precision at a recall is the largest at
    that recall or a larger one. At most 100 detections of an image count; classes without objects are omitted.

    Args:
        thresholds: of the overlap; 0.5, 0.55, ..., 0.95 if None.

    Example:
        >>> metric = AveragePrecision(thresholds=(0.5,))
        >>> maps = torch.full((1, 5, 4, 4), -9.0)
        >>> maps[0, :, 1, 2] = torch.tensor([9.0, 2.0, 2.0, 0.5, 0.0])
        >>> metric.update(maps, torch.tensor([[[0, 0.375, 0.0, 0.875, 0.5]]]))
        >>> metric.compute()
        1.0

    References:
        Lin et al., "Microsoft COCO", ECCV 2014; the reference program is ``pycocotools.cocoeval``, with which it agrees.
    """

    higher_is_better = True

    def __init__(self, thresholds: Sequence[float] | None = None) -> None:
        self.thresholds = THRESHOLDS if thresholds is None else tuple(thresholds)
        single = len(self.thresholds) == 1
        self.name = f"AP{round(100 * self.thresholds[0])}" if single else "mAP"
        self.scores: list[Tensor] = []  # (n,) of the detections, their classes and whether each is correct, by image
        self.classes: list[Tensor] = []
        self.correct: list[Tensor] = []  # (thresholds, n)
        self.objects: list[Tensor] = []  # (k,) classes of the objects

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds maps (B, C + 4, h, w) and objects (B, K, 5)."""
        if not len(output):
            return
        found = (part.cpu() for part in detections(output))
        for boxes, scores, classes, objects in zip(*found, target.cpu(), strict=True):
            self.add(boxes, scores, classes, objects[objects[:, 0] >= 0])

    def add(self, boxes: Tensor, scores: Tensor, classes: Tensor, objects: Tensor) -> None:
        """Adds one image.

        Args:
            boxes: (n, 4) of detections in decreasing order of their scores.
            scores: (n,).
            classes: (n,).
            objects: (k, 5), without unused rows.
        """
        boxes, objects = boxes.double(), objects.double()
        own = objects[:, 0].long()
        shared = overlaps(boxes, objects[:, 1:]) * (classes[:, None] == own)
        self.scores.append(scores.double())
        self.classes.append(classes)
        self.objects.append(own)
        self.correct.append(torch.stack([_assigned(shared, threshold) for threshold in self.thresholds]))

    def compute(self) -> float:
        """Mean over classes and thresholds; nan without objects."""
        if not self.objects or not any(map(len, self.objects)):
            return float("nan")
        scores, classes, objects = (torch.cat(parts) for parts in (self.scores, self.classes, self.objects))
        correct = torch.cat(self.correct, dim=1)
        areas = []
        for which in objects.unique().tolist():
            mine = (classes == which).nonzero()[:, 0]
            order = mine[scores[mine].argsort(descending=True, stable=True)]
            areas += [_area(row[order], int((objects == which).sum())) for row in correct]
        return sum(areas) / len(areas)


def _assigned(shared: Tensor, threshold: float) -> Tensor:
    """(n,) whether each detection is correct, by overlaps (n, k) with objects of its class, 0 with others."""
    free = torch.ones(shared.shape[1], dtype=torch.bool)
    correct = torch.zeros(len(shared), dtype=torch.bool)
    possible = (shared >= threshold).any(dim=1) if shared.shape[1] else correct
    for index in possible.nonzero()[:, 0].tolist():
        candidates = torch.where(free, shared[index], -1.0)
        best = len(candidates) - 1 - int(candidates.flip(0).argmax())  # of equal overlaps the last one
        if candidates[best] >= threshold:
            free[best], correct[index] = False, True
    return correct


def _area(correct: Tensor, objects: int) -> float:
    """The mean of the precision at the points of recall, by correctness in decreasing order of the scores."""
    hits = correct.double().cumsum(dim=0)
    recalls = hits / objects
    precisions = hits / torch.arange(1, len(hits) + 1, dtype=torch.float64)
    envelope = precisions.flip(0).cummax(dim=0).values.flip(0) if len(hits) else precisions
    points = torch.linspace(0, 1, RECALLS, dtype=torch.float64)
    index = torch.searchsorted(recalls.contiguous(), points)
    reached = index < len(hits)
    return float(envelope[index[reached]].sum() / RECALLS)
