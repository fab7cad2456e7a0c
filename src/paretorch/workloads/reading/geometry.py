"""Image and mask on their way into the network: whatever moves the one moves the other.

Two steps. :func:`squared` is the same for every epoch: the central square, resized. Its result is what a pack stores.
:func:`augmented` draws a part of the square for training; :func:`centred` takes its middle for evaluation.
"""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from paretorch.extras import extra

Augmentation = Literal["crop", "zoom", "none"]
AREA = (0.35, 1.0)  # of the stored square that "zoom" takes
RATIO = (3 / 4, 4 / 3)  # width over height of that part


def stored_edge(size: int) -> int:
    """Pixels along one side of the stored square, for network inputs of ``size``: an eighth is left to crop from.

    Example:
        >>> stored_edge(256)
        288
    """
    return size + size // 8


def augmentation(name: str) -> Augmentation:
    """The kind of augmentation called ``name``.

    Raises:
        ValueError: it is none of :data:`Augmentation`.
    """
    for kind in get_args(Augmentation):
        if name == kind:
            return cast(Augmentation, kind)
    raise ValueError(f"augmentation is one of {', '.join(get_args(Augmentation))}, got {name!r}")


def squared(image: Tensor, mask: Tensor | None, edge: int) -> tuple[Tensor, Tensor | None]:
    """The central square, resized: bilinear with antialiasing for the image, the nearest pixel for the mask.

    The nearest pixel is the one under the new pixel's centre; torchvision's own resizing of masks takes the one under
    its upper left corner, which shifts the mask against the image by up to half a pixel.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) uint8, or None.
        edge: pixels along one side of the result.

    Returns:
        (3, edge, edge) and (edge, edge), uint8.
    """
    height, width = image.shape[1:]
    side = min(height, width)
    return _part(image, mask, (height - side) // 2, (width - side) // 2, side, side, edge)


def centred(image: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """The middle of the stored square: (3, size, size), (size, size)."""
    margin = (image.shape[1] - size) // 2
    return _cut(image, mask, margin, margin, size)


def augmented(
    image: Tensor, mask: Tensor | None, size: int, kind: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """A random part of the stored square, mirrored every second time.

    ``"crop"`` takes ``size`` pixels of the square as they are, which costs next to nothing; ``"zoom"`` a part of 0.35 to
    1 of its area and of a side ratio of 3/4 to 4/3, resized; ``"none"`` the middle, not mirrored.

    Args:
        image: (3, E, E) uint8, as :func:`squared` gave it.
        mask: (E, E) uint8, or None.
        size: pixels along one side of the result.
        kind: of the three.
        generator: all draws come from it.

    Returns:
        (3, size, size) and (size, size), uint8.
    """
    with extra("studies"):
        from torchvision.transforms.v2 import functional
    if kind == "none":
        return centred(image, mask, size)
    edge = image.shape[1]
    down, right, mirror, area, ratio = torch.rand(5, generator=generator).tolist()
    if kind == "crop":
        room = edge - size + 1
        image, mask = _cut(image, mask, int(down * room), int(right * room), size)
    else:
        pixels = edge * edge * (AREA[0] + area * (AREA[1] - AREA[0]))
        shape = math.exp(math.log(RATIO[0]) + ratio * math.log(RATIO[1] / RATIO[0]))
        height = min(edge, max(1, round(math.sqrt(pixels / shape))))
        width = min(edge, max(1, round(math.sqrt(pixels * shape))))
        top, left = int(down * (edge - height + 1)), int(right * (edge - width + 1))
        image, mask = _part(image, mask, top, left, height, width, size)
    if mirror < 0.5:
        image, mask = functional.horizontal_flip(image), None if mask is None else functional.horizontal_flip(mask)
    return image, mask


def _part(
    image: Tensor, mask: Tensor | None, top: int, left: int, height: int, width: int, edge: int
) -> tuple[Tensor, Tensor | None]:
    with extra("studies"):
        from torchvision.transforms.v2 import InterpolationMode, functional
    box = (top, left, height, width, [edge, edge])
    part = functional.resized_crop(image, *box, interpolation=InterpolationMode.BILINEAR, antialias=True)
    if mask is None:
        return part, None
    return part, functional.resized_crop(mask[None], *box, interpolation=InterpolationMode.NEAREST_EXACT)[0]


def _cut(image: Tensor, mask: Tensor | None, top: int, left: int, size: int) -> tuple[Tensor, Tensor | None]:
    rows, columns = slice(top, top + size), slice(left, left + size)
    return image[:, rows, columns], None if mask is None else mask[rows, columns]
