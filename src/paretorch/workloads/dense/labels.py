"""Labels of pixels, their kinds, and augmentations that transform an image and its labels together.

Labels are (H, W) or (channels, H, W). Pixels without label are -1 for classes, 0 for distances and inverse distances, a vector
of zeros for directions, and nan for offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.extras import extra

Augmentation = Literal["zoom", "rotate", "flip", "none"]
ZOOMS = (1.0, 1.2, 1.5)
ROTATION = 10.0  # degrees, in either direction


class LabelKind(StrEnum):
    """The meaning of a label's numbers, which decides how a transform changes them."""

    CLASSES = "classes"
    DISTANCE = "distance"
    INVERSE_DISTANCE = "inverse distance"
    DIRECTIONS = "directions"  # (x to the right, y, z), of length one
    OFFSETS = "offsets"  # (x to the right, y down), in pixels


LabelTransform = Callable[[Tensor, "LabelKind"], Tensor]
UNLABELLED = {
    LabelKind.CLASSES: -1.0,
    LabelKind.DISTANCE: 0.0,
    LabelKind.INVERSE_DISTANCE: 0.0,
    LabelKind.DIRECTIONS: 0.0,
    LabelKind.OFFSETS: math.nan,
}


@dataclass(frozen=True)
class LabelledScene:
    """An image and the labels of its pixels.

    Args:
        image: (3, H, W), in 0..1.
        labels: (H, W) or (channels, H, W), by task.
        kinds: of the labels, by task.
    """

    image: Tensor
    labels: Mapping[str, Tensor]
    kinds: Mapping[str, LabelKind]


def check_augmentation(name: str) -> Augmentation:
    """The augmentation called ``name``.

    Raises:
        ValueError: it is none of :data:`Augmentation`.
    """
    if name not in get_args(Augmentation):
        raise ValueError(f"augmentation is one of {', '.join(get_args(Augmentation))}, got {name!r}")
    return cast(Augmentation, name)


def augmented(scene: LabelledScene, how: Augmentation, generator: torch.Generator) -> LabelledScene:
    """A randomly transformed scene.

    ``"zoom"``: a part of 1, 1/1.2 or 1/1.5 of height and width, resized, and mirrored with probability 1/2; ``"rotate"``: rotated
    by up to 10 degrees and mirrored with probability 1/2; ``"flip"``: only mirrored; ``"none"``: unchanged.

    Args:
        scene: as it was read.
        how: one of the four.
        generator: source of all draws.
    """
    if how == "none":
        return scene
    choice, down, right, mirror = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    if how == "zoom":
        scene = zoomed(scene, ZOOMS[int(choice * len(ZOOMS))], down, right)
    elif how == "rotate":
        scene = rotated(scene, ROTATION * (2 * choice - 1))
    return flipped(scene) if mirror < 0.5 else scene


def flipped(scene: LabelledScene) -> LabelledScene:
    """The mirrored scene; directions and offsets change sign in x.

    Example:
        >>> normal = torch.tensor([0.6, 0.0, -0.8]).view(3, 1, 1)
        >>> scene = LabelledScene(torch.zeros(3, 1, 1), {"normals": normal}, {"normals": LabelKind.DIRECTIONS})
        >>> flipped(scene).labels["normals"].flatten()
        tensor([-0.6000,  0.0000, -0.8000])
    """

    def change(label: Tensor, kind: LabelKind) -> Tensor:
        label = label.flip(-1)
        if kind in (LabelKind.DIRECTIONS, LabelKind.OFFSETS):
            label[0] = -label[0]  # flip returned a copy
        return label

    return _transformed(scene, scene.image.flip(-1), change)


def zoomed(scene: LabelledScene, zoom: float, down: float, right: float) -> LabelledScene:
    """A part of the scene, resized to the whole: distances are divided by the zoom, inverse distances and offsets multiplied.

    The image is interpolated; a label is that of the nearest pixel, so that labels of different objects are not mixed.

    Args:
        scene: (H, W).
        zoom: at least 1: the part has H / zoom rows and W / zoom columns.
        down: position of the part, as a share of the possible rows, in [0, 1).
        right: the same for columns.
    """
    height, width = scene.image.shape[-2:]
    rows, columns = int(height / zoom), int(width / zoom)
    top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))

    def part(pixels: Tensor, mode: str) -> Tensor:
        cut = pixels[..., top : top + rows, left : left + columns]
        if (rows, columns) == (height, width):
            return cut
        whole = cut.reshape(1, -1, rows, columns)
        corners = None if mode == "nearest-exact" else False
        found = functional.interpolate(whole, (height, width), mode=mode, align_corners=corners)
        return found.reshape(*pixels.shape[:-2], height, width)

    def change(label: Tensor, kind: LabelKind) -> Tensor:
        found = part(label, "nearest-exact") if label.is_floating_point() else part(label.double(), "nearest-exact")
        factor = {LabelKind.DISTANCE: 1 / zoom, LabelKind.INVERSE_DISTANCE: zoom, LabelKind.OFFSETS: zoom}.get(
            kind, 1.0
        )
        return (found if factor == 1 else found * factor).to(label.dtype)

    return _transformed(scene, part(scene.image, "bilinear"), change)


def rotated(scene: LabelledScene, angle: float) -> LabelledScene:
    """The scene, rotated about its centre; pixels from outside are black and not labelled.

    Args:
        scene: (H, W).
        angle: degrees, counter-clockwise.

    Raises:
        ValueError: a label is of directions, whose y axis differs between data sets.
    """
    with extra("studies"):
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transforms
    for task, kind in scene.kinds.items():
        if kind == LabelKind.DIRECTIONS:
            raise ValueError(f"task {task!r}: directions are not rotated; use augmentation='zoom', 'flip' or 'none'")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def change(label: Tensor, kind: LabelKind) -> Tensor:
        planes = label if label.ndim == 3 else label[None]
        fill = [UNLABELLED[kind]] * len(planes)
        result: Tensor = transforms.rotate(planes, angle, InterpolationMode.NEAREST, fill=fill)
        if kind == LabelKind.OFFSETS:
            result = torch.stack([cosine * result[0] + sine * result[1], cosine * result[1] - sine * result[0]])
        return result.reshape(label.shape)

    return _transformed(scene, transforms.rotate(scene.image, angle, InterpolationMode.BILINEAR), change)


def _transformed(scene: LabelledScene, image: Tensor, change: LabelTransform) -> LabelledScene:
    labels = {task: change(label, scene.kinds[task]) for task, label in scene.labels.items()}
    return LabelledScene(image, labels, scene.kinds)
