"""Losses over labelled pixels. None where no pixel is labelled: the task is then absent from the step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from paretorch.workloads.dense.labels import Kind


def has_distance(target: Tensor) -> Tensor:
    """Pixels with a measured distance: above 0; 0, nan and below mean that there is none."""
    return target > 0


def has_direction(target: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W): pixels with a direction, which is no vector of zeros."""
    return target.abs().sum(dim=1) > 0


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


def distance(output: Tensor, target: Tensor) -> Tensor | None:
    """Mean absolute error over pixels with a measured distance.

    Args:
        output: (B, H, W), in the target's unit.
        target: (B, H, W); 0 where there is none.

    Example:
        >>> import torch
        >>> distance(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
        tensor(1.)
    """
    there = has_distance(target)
    if not bool(there.any()):
        return None
    return (output[there] - target[there]).abs().mean()


def direction(output: Tensor, target: Tensor) -> Tensor | None:
    """One minus the cosine, averaged over pixels with a direction.

    Args:
        output: (B, 3, H, W), of any length.
        target: (B, 3, H, W) unit vectors; zeros where there is none.

    Example:
        >>> import torch
        >>> up, none = torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3)
        >>> target = torch.stack([up, none], dim=1).view(1, 3, 1, 2)
        >>> direction(torch.ones(1, 3, 1, 2), target)  # 1 - 1 / sqrt(3)
        tensor(0.4226)
    """
    there = has_direction(target)
    if not bool(there.any()):
        return None
    cosines = functional.cosine_similarity(output, target.to(output.dtype), dim=1)
    return 1 - cosines[there].mean()


def offsets(output: Tensor, target: Tensor) -> Tensor | None:
    """Mean absolute error, over both coordinates, of pixels that belong to something.

    Args:
        output: (B, 2, H, W) pixels to the right and down.
        target: (B, 2, H, W); nan where there is none.
    """
    there = ~target.isnan()
    if not bool(there.any()):
        return None
    return (output[there] - target[there]).abs().mean()


LOSSES = {
    Kind.CLASSES: cross_entropy,
    Kind.DISTANCE: distance,
    Kind.INVERSE_DISTANCE: distance,
    Kind.DIRECTIONS: direction,
    Kind.OFFSETS: offsets,
}


def losses(
    kinds: Mapping[str, Kind], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The loss of each task's kind; tasks without a labelled pixel are left out.

    Args:
        kinds: of the labels, by task.
        outputs: (B, ...) of the tasks in this step.
        targets: (B, ...) by task.
    """
    found = {task: LOSSES[kinds[task]](output, targets[task]) for task, output in outputs.items()}
    return {task: loss for task, loss in found.items() if loss is not None}


def labelled(kind: Kind, target: Tensor) -> Tensor:
    """How many numbers the loss of a kind is a mean of, (): pixels, and coordinates of offsets.

    Example:
        >>> import torch
        >>> labelled(Kind.DISTANCE, torch.tensor([[0.0, 1.5, 2.0]])), labelled(Kind.CLASSES, torch.tensor([[-1, 0]]))
        (tensor(2), tensor(1))
    """
    if kind == Kind.CLASSES:
        return (target >= 0).sum()
    if kind == Kind.DIRECTIONS:
        return has_direction(target).sum()
    return (~target.isnan()).sum() if kind == Kind.OFFSETS else has_distance(target).sum()
