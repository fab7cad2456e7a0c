"""Two digits overlaid on one canvas, as in Multi-MNIST (Sabour et al., NeurIPS 2017), drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Overlaid pairs.

    Args:
        images: (n, 1, canvas, canvas) grey levels in 0..1, the larger of the two digits at each point.
        left: (n,) class of the digit up left.
        right: (n,) class of the digit down right.
        ink: (n,) summed grey levels of the right digit alone, in the levels of the source images.
    """

    images: Tensor
    left: Tensor
    right: Tensor
    ink: Tensor


def overlay(digits: Tensor, classes: Tensor, count: int, canvas: int, levels: int, seed: int) -> Pairs:
    """Draws ``count`` pairs out of the given digits, each digit of a pair on its own and with replacement.

    Args:
        digits: (m, h, w) grey levels in 0..levels.
        classes: (m,) their classes.
        count: n, pairs to draw.
        canvas: edge of the overlaid image in pixels, at least h and w; the right digit is shifted by the difference.
        levels: the largest grey level.
        seed: decides the pairs.

    Raises:
        ValueError: the canvas is smaller than a digit.

    Example:
        >>> digits = torch.tensor([[[0.0, 4.0]], [[8.0, 0.0]]])
        >>> pairs = overlay(digits, torch.tensor([3, 7]), count=5, canvas=3, levels=8, seed=0)
        >>> pairs.images.shape, int(pairs.left[0]) in (3, 7)
        (torch.Size([5, 1, 3, 3]), True)
    """
    height, width = digits.shape[1:]
    if canvas < max(height, width):
        raise ValueError(f"canvas: expected at least {max(height, width)} pixels, the edge of a digit, got {canvas}")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(digits), (2, count), generator=generator)
    upper = torch.zeros(count, canvas, canvas)
    lower = torch.zeros(count, canvas, canvas)
    upper[:, :height, :width] = digits[first]
    lower[:, canvas - height :, canvas - width :] = digits[second]
    images = torch.maximum(upper, lower).div_(levels).unsqueeze(1)
    return Pairs(images, classes[first], classes[second], digits[second].sum(dim=(1, 2)))
