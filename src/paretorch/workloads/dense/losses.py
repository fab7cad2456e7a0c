"""Losses over labelled pixels; None without labelled pixels, so that the task is absent from the step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from paretorch.metrics.labelled import has_direction, has_distance
from paretorch.workloads.dense.labels import LabelKind


def cross_entropy(output: Tensor, target: Tensor) -> Tensor | None:
    """Mean cross-entropy over pixels whose class is not below 0.

    Args:
        output: (B, C, H, W) scores.
        target: (B, H, W) classes.

    Example:
        >>> import torch
        >>> scores = torch.zeros(1, 4, 1, 2)
        >>> cross_entropy(scores, torch.tensor([[[2, -1]]]))
        tensor(1.3863)
        >>> cross_entropy(scores, torch.tensor([[[-1, -1]]])) is None
        True
    """
    if not bool((target >= 0).any()):
        return None
    return functional.cross_entropy(output, target.clamp(min=-1), ignore_index=-1)


def distance_loss(output: Tensor, target: Tensor) -> Tensor | None:
    """Mean absolute error over pixels with a measured distance.

    Args:
        output: (B, H, W), in the target's unit.
        target: (B, H, W); 0 without label.

    Example:
        >>> import torch
        >>> distance_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
        tensor(1.)
    """
    return _absolute_error(output, target, has_distance(target))


def direction_loss(output: Tensor, target: Tensor) -> Tensor | None:
    """One minus the cosine, averaged over pixels with a direction.

    Args:
        output: (B, 3, H, W), of any length.
        target: (B, 3, H, W) unit vectors; zeros without label.

    Example:
        >>> import torch
        >>> up, none = torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3)
        >>> target = torch.stack([up, none], dim=1).view(1, 3, 1, 2)
        >>> direction_loss(torch.ones(1, 3, 1, 2), target)  # 1 - 1 / sqrt(3)
        tensor(0.4226)
    """
    labelled = has_direction(target)
    if not bool(labelled.any()):
        return None
    cosines = functional.cosine_similarity(output, target.to(output.dtype), dim=1)
    return 1 - cosines[labelled].mean()


def offset_loss(output: Tensor, target: Tensor) -> Tensor | None:
    """Mean absolute error, over both coordinates, of labelled pixels.

    Args:
        output: (B, 2, H, W) pixels to the right and down.
        target: (B, 2, H, W); nan without label.
    """
    return _absolute_error(output, target, ~target.isnan())


def _absolute_error(output: Tensor, target: Tensor, labelled: Tensor) -> Tensor | None:
    return (output[labelled] - target[labelled]).abs().mean() if bool(labelled.any()) else None


LOSSES = {
    LabelKind.CLASSES: cross_entropy,
    LabelKind.DISTANCE: distance_loss,
    LabelKind.INVERSE_DISTANCE: distance_loss,
    LabelKind.DIRECTIONS: direction_loss,
    LabelKind.OFFSETS: offset_loss,
}


def dense_losses(
    kinds: Mapping[str, LabelKind], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The losses by task; tasks without labelled pixels are omitted.

    Args:
        kinds: of the labels, by task.
        outputs: (B, ...) of the tasks in this step.
        targets: (B, ...) by task.
    """
    found = {task: LOSSES[kinds[task]](output, targets[task]) for task, output in outputs.items()}
    return {task: loss for task, loss in found.items() if loss is not None}


def labelled_count(kind: LabelKind, target: Tensor) -> Tensor:
    """The number of elements over which the loss of a kind is a mean, (): pixels, or coordinates for offsets.

    Example:
        >>> import torch
        >>> labelled_count(LabelKind.DISTANCE, torch.tensor([[0.0, 1.5, 2.0]]))
        tensor(2)
    """
    if kind == LabelKind.CLASSES:
        return (target >= 0).sum()
    if kind == LabelKind.DIRECTIONS:
        return has_direction(target).sum()
    return (~target.isnan()).sum() if kind == LabelKind.OFFSETS else has_distance(target).sum()
