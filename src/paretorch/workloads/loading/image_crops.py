"""Crops of an image, its mask and the boxes of its objects; every transform applies to all.

:func:`central_square` is the same in every epoch: the central square, resized. A pack stores its result. :func:`random_crop`
draws a part of the square for training; :func:`centre_crop` takes its middle for evaluation.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.extras import extra

Augmentation = Literal["crop", "zoom", "none"]
AREA = (0.35, 1.0)  # of a "zoom" crop, relative to the stored square
RATIO = (3 / 4, 4 / 3)  # width over height of that crop
VISIBLE = 0.25  # share of a box that has to be inside a crop


class CropWindow(NamedTuple):
    """A part of an image, in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


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
    top, left, side, _, _ = square_window(*image.shape[1:])
    return _resized_crop(image, mask, top, left, side, side, edge)


def square_window(height: int, width: int) -> CropWindow:
    """The central square of an image of (H, W) pixels."""
    side = min(height, width)
    return CropWindow((height - side) // 2, (width - side) // 2, side, side)


def centre_crop(image: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """The middle of the stored square: (3, size, size), (size, size)."""
    return cut(image, mask, centre_window(image.shape[1], size), size)


def centre_window(edge: int, size: int) -> CropWindow:
    """The middle ``size`` pixels of a square of ``edge`` pixels."""
    margin = (edge - size) // 2
    return CropWindow(margin, margin, size, size)


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
    return cut(image, mask, random_window(image.shape[1], size, kind, generator), size)


def random_window(edge: int, size: int, kind: Augmentation, generator: torch.Generator) -> CropWindow:
    """The part that :func:`random_crop` takes of a square of ``edge`` pixels; other arguments as there."""
    if kind == "none":
        return centre_window(edge, size)
    down, right, mirror, area, ratio = torch.rand(5, generator=generator).tolist()
    if kind == "crop":
        positions = edge - size + 1
        return CropWindow(int(down * positions), int(right * positions), size, size, mirror < 0.5)
    pixels = edge * edge * (AREA[0] + area * (AREA[1] - AREA[0]))
    shape = math.exp(math.log(RATIO[0]) + ratio * math.log(RATIO[1] / RATIO[0]))
    height = min(edge, max(1, round(math.sqrt(pixels / shape))))
    width = min(edge, max(1, round(math.sqrt(pixels * shape))))
    top, left = int(down * (edge - height + 1)), int(right * (edge - width + 1))
    return CropWindow(top, left, height, width, mirror < 0.5)


def cut(image: Tensor, mask: Tensor | None, window: CropWindow, size: int) -> tuple[Tensor, Tensor | None]:
    """A part of an image and its mask, resized unless it has ``size`` pixels along both sides."""
    with extra("studies"):
        from torchvision.transforms.v2 import functional
    top, left, height, width, mirrored = window
    if (height, width) == (size, size):
        image, mask = _crop(image, mask, top, left, size)
    else:
        image, mask = _resized_crop(image, mask, top, left, height, width, size)
    if mirrored:
        image, mask = functional.horizontal_flip(image), None if mask is None else functional.horizontal_flip(mask)
    return image, mask


def boxes_within(objects: Tensor, window: CropWindow, height: int, width: int) -> Tensor:
    """The objects of an image in a part of it: (k, 5) class and box relative to the image -> the same relative to the part.

    Boxes are cut at the edges of the part. Objects of which less than a quarter is inside are left out: their class becomes -1.

    Args:
        objects: (k, 5), see :mod:`~paretorch.workloads.detection.boxes`.
        window: of the image.
        height: pixels of the image.
        width: pixels of the image.

    Example:
        >>> objects = torch.tensor([[3, 0.0, 0.0, 0.5, 1.0]])
        >>> boxes_within(objects, CropWindow(0, 2, 8, 6, mirrored=True), height=8, width=8)
        tensor([[3.0000, 0.6667, 0.0000, 1.0000, 1.0000]])
    """
    scale = objects.new_tensor([width, height, width, height])
    shift = objects.new_tensor([window.left, window.top, window.left, window.top])
    extent = objects.new_tensor([window.width, window.height, window.width, window.height])
    whole = (objects[:, 1:] * scale - shift) / extent
    inside = whole.clamp(0, 1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (inside, whole)]
    if window.mirrored:
        inside = torch.stack([1 - inside[:, 2], inside[:, 1], 1 - inside[:, 0], inside[:, 3]], dim=1)
    result = torch.cat([objects[:, :1], inside], dim=1)
    result[(areas[0] < VISIBLE * areas[1]) | (areas[0] <= 0) | (objects[:, 0] < 0)] = result.new_tensor(
        [-1.0, 0, 0, 0, 0]
    )
    return result


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
