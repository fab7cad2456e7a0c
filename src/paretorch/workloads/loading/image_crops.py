"""Crops of an image and its mask; every transform applies to both.

:func:`central_square` is the same in every epoch: the central square, resized. A pack stores its result. :func:`random_crop`
draws a part of the square for training; :func:`centre_crop` takes its middle for evaluation.
"""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.extras import extra

Augmentation = Literal["crop", "zoom", "none"]
AREA = (0.35, 1.0)  # of a "zoom" crop, relative to the stored square
RATIO = (3 / 4, 4 / 3)  # width over height of that crop


def stored_edge(size: int) -> int:
    """Pixels along one side of the stored square, for network inputs of ``size``: an eighth more, for random crops.

    Example:
        >>> stored_edge(256)
        288
    """
    return size + size // 8


def check_augmentation(name: str) -> Augmentation:
    """The augmentation with a name.

    Raises:
        ValueError: it is none of :data:`Augmentation`.
    """
    if name not in get_args(Augmentation):
        raise ValueError(f"augmentation is one of {', '.join(get_args(Augmentation))}, got {name!r}")
    return cast(Augmentation, name)


def resized(image: Tensor, size: int) -> Tensor:
    """The whole image as a square, without keeping the aspect ratio: bilinear with antialiasing.

    Args:
        image: (3, H, W) uint8.
        size: pixels along one side of the result.

    Example:
        >>> resized(torch.full((3, 4, 8), 7, dtype=torch.uint8), 2)[0].tolist()
        [[7, 7], [7, 7]]
    """
    if image.shape[1:] == (size, size):
        return image
    square = functional.interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True)[0]
    return square.round().clamp(0, 255).to(torch.uint8)


def central_square(image: Tensor, mask: Tensor | None, edge: int) -> tuple[Tensor, Tensor | None]:
    """The central square, resized: bilinear with antialiasing for the image, the nearest pixel for the mask.

    The nearest pixel is the one at the new pixel's centre. torchvision's default for masks takes the one at its upper left
    corner, which shifts the mask against the image by up to half a pixel.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) uint8, or None.
        edge: pixels along one side of the result.

    Returns:
        (3, edge, edge) and (edge, edge), uint8.
    """
    height, width = image.shape[1:]
    side = min(height, width)
    return _resized_crop(image, mask, (height - side) // 2, (width - side) // 2, side, side, edge)


def centre_crop(image: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """The middle of the stored square: (3, size, size), (size, size)."""
    margin = (image.shape[1] - size) // 2
    return _crop(image, mask, margin, margin, size)


def random_crop(
    image: Tensor, mask: Tensor | None, size: int, kind: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """A random part of the stored square, mirrored with probability 1/2.

    ``"crop"`` takes ``size`` pixels of the square without resizing, which costs next to nothing; ``"zoom"`` resizes a part of
    0.35 to 1 of its area with an aspect ratio of 3/4 to 4/3; ``"none"`` takes the middle and does not mirror.

    Args:
        image: (3, E, E) uint8, from :func:`central_square`.
        mask: (E, E) uint8, or None.
        size: pixels along one side of the result.
        kind: of the augmentation.
        generator: source of all draws.

    Returns:
        (3, size, size) and (size, size), uint8.
    """
    with extra("studies"):
        from torchvision.transforms.v2 import functional
    if kind == "none":
        return centre_crop(image, mask, size)
    edge = image.shape[1]
    down, right, mirror, area, ratio = torch.rand(5, generator=generator).tolist()
    if kind == "crop":
        positions = edge - size + 1
        image, mask = _crop(image, mask, int(down * positions), int(right * positions), size)
    else:
        pixels = edge * edge * (AREA[0] + area * (AREA[1] - AREA[0]))
        shape = math.exp(math.log(RATIO[0]) + ratio * math.log(RATIO[1] / RATIO[0]))
        height = min(edge, max(1, round(math.sqrt(pixels / shape))))
        width = min(edge, max(1, round(math.sqrt(pixels * shape))))
        top, left = int(down * (edge - height + 1)), int(right * (edge - width + 1))
        image, mask = _resized_crop(image, mask, top, left, height, width, size)
    if mirror < 0.5:
        image, mask = functional.horizontal_flip(image), None if mask is None else functional.horizontal_flip(mask)
    return image, mask


def _resized_crop(
    image: Tensor, mask: Tensor | None, top: int, left: int, height: int, width: int, edge: int
) -> tuple[Tensor, Tensor | None]:
    with extra("studies"):
        from torchvision.transforms.v2 import InterpolationMode, functional
    box = (top, left, height, width, [edge, edge])
    part = functional.resized_crop(image, *box, interpolation=InterpolationMode.BILINEAR, antialias=True)
    if mask is None:
        return part, None
    return part, functional.resized_crop(mask[None], *box, interpolation=InterpolationMode.NEAREST_EXACT)[0]


def _crop(image: Tensor, mask: Tensor | None, top: int, left: int, size: int) -> tuple[Tensor, Tensor | None]:
    rows, columns = slice(top, top + size), slice(left, left + size)
    return image[:, rows, columns], None if mask is None else mask[rows, columns]
