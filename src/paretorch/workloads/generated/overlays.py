"""Pairs of digits on one canvas, as in Multi-MNIST (Sabour et al., NeurIPS 2017), drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Overlaid pairs.

    Args:
        images: (n, 1, canvas, canvas) grey levels in 0..1, the larger of the two digits at each pixel.
        left: (n,) class of the upper left digit.
        right: (n,) class of the lower right digit.
        ink: (n,) summed grey levels of the right digit alone, in the levels of the source images.
    """

    images: Tensor
    left: Tensor
    right: Tensor
    ink: Tensor


def overlay(digits: Tensor, classes: Tensor, count: int, canvas: int, levels: int, seed: int) -> Pairs:
    """Draws ``count`` pairs of digits, independently and with replacement.

    Args:
        digits: (m, h, w) grey levels in 0..levels.
        classes: (m,) their classes.
        count: n, number of pairs.
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
    images = placed(digits[first], digits[second], canvas, (canvas - height, canvas - width)).div_(levels).unsqueeze(1)
    return Pairs(images, classes[first], classes[second], digits[second].sum(dim=(1, 2)))


def placed(upper: Tensor, lower: Tensor, canvas: int, offset: int | tuple[int, int]) -> Tensor:
    """Pairs of images placed on one canvas: the larger of the two grey levels at each pixel, 0 outside of both.

    Args:
        upper: (n, h, w), placed in the upper left corner.
        lower: (n, h, w), shifted down and to the right by ``offset``.
        canvas: edge of the result.
        offset: rows and columns; one number for both.

    Returns:
        (n, canvas, canvas), of the images' type.

    Example:
        >>> placed(torch.tensor([[[3, 4]]]), torch.tensor([[[9, 1]]]), canvas=3, offset=(0, 1))[0, 0].tolist()
        [3, 9, 1]
    """
    height, width = upper.shape[1:]
    down, right = (offset, offset) if isinstance(offset, int) else offset
    result = upper.new_zeros(len(upper), canvas, canvas)
    result[:, :height, :width] = upper
    below = result[:, down : down + height, right : right + width]
    torch.maximum(below, lower, out=below)
    return result
