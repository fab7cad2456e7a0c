"""Labels of pixels, what each kind of them means, and how an image and its labels move together.

Arrays are (H, W) or (channels, H, W). What is not labelled is -1 among classes, 0 among distances and inverse distances, a
vector of zeros among directions, and nan among offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from paretorch.extras import extra

Augmentation = Literal["zoom", "rotate", "flip", "none"]
ZOOMS = (1.0, 1.2, 1.5)
ROTATION = 10.0  # degrees, to either side


class Kind(StrEnum):
    """What the numbers of a label mean, which decides what a transform does to them."""

    CLASSES = "classes"
    DISTANCE = "distance"
    INVERSE_DISTANCE = "inverse distance"
    DIRECTIONS = "directions"  # (x to the right, y, z), of length one
    OFFSETS = "offsets"  # (x to the right, y down), in pixels


Change = Callable[[Tensor, "Kind"], Tensor]
UNLABELLED = {
    Kind.CLASSES: -1.0, Kind.DISTANCE: 0.0, Kind.INVERSE_DISTANCE: 0.0, Kind.DIRECTIONS: 0.0, Kind.OFFSETS: math.nan
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """An image and the labels of its pixels.

    Args:
        image: (3, H, W), in 0..1.
        labels: (H, W) or (channels, H, W), by task.
        kinds: of the labels, by task.
    """

    image: Tensor
    labels: Mapping[str, Tensor]
    kinds: Mapping[str, Kind]


def check_augmentation(name: str) -> Augmentation:
    """The augmentation called ``name``.

    Raises:
        ValueError: it is none of :data:`Augmentation`.
    """
    for known in get_args(Augmentation):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"augmentation is one of {', '.join(get_args(Augmentation))}, got {name!r}")


def augmented(scene: Scene, how: Augmentation, generator: torch.Generator) -> Scene:
    """A random version of a scene.

    ``"zoom"``: a part of 1, 1/1.2 or 1/1.5 of height and width, resized, and mirrored every second time; ``"rotate"``: turned by
    up to 10 degrees and mirrored every second time; ``"flip"``: only mirrored; ``"none"``: as it is.

    Args:
        scene: as it was read.
        how: of the four.
        generator: all draws come from it.
    """
    if how == "none":
        return scene
    choice, down, right, mirror = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    if how == "zoom":
        scene = zoomed(scene, ZOOMS[int(choice * len(ZOOMS))], down, right)
    elif how == "rotate":
        scene = rotated(scene, ROTATION * (2 * choice - 1))
    return flipped(scene) if mirror < 0.5 else scene


def flipped(scene: Scene) -> Scene:
    """The scene in a mirror: directions and offsets change sign in x.

    Example:
        >>> normal = torch.tensor([0.6, 0.0, -0.8]).view(3, 1, 1)
        >>> scene = Scene(torch.zeros(3, 1, 1), {"normals": normal}, {"normals": Kind.DIRECTIONS})
        >>> flipped(scene).labels["normals"].flatten()
        tensor([-0.6000,  0.0000, -0.8000])
    """

    def change(label: Tensor, kind: Kind) -> Tensor:
        label = label.flip(-1)
        if kind in (Kind.DIRECTIONS, Kind.OFFSETS):
            label[0] = -label[0]  # flip made a copy
        return label

    return _moved(scene, scene.image.flip(-1), change)


def zoomed(scene: Scene, zoom: float, down: float, right: float) -> Scene:
    """A part of the scene at its own resolution: distances are divided by the zoom, inverse ones and offsets multiplied.

    The image is interpolated; a label is that of the nearest pixel, so that no label stands between two things.

    Args:
        scene: (H, W).
        zoom: at least 1: the part is of H / zoom rows and W / zoom columns.
        down: where the part begins, as a share of the rows that are left, in [0, 1).
        right: the same of columns.
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

    def change(label: Tensor, kind: Kind) -> Tensor:
        found = part(label, "nearest-exact") if label.is_floating_point() else part(label.double(), "nearest-exact")
        factor = {Kind.DISTANCE: 1 / zoom, Kind.INVERSE_DISTANCE: zoom, Kind.OFFSETS: zoom}.get(kind, 1.0)
        return (found if factor == 1 else found * factor).to(label.dtype)

    return _moved(scene, part(scene.image, "bilinear"), change)


def rotated(scene: Scene, angle: float) -> Scene:
    """The scene turned about its middle; what turns in from outside is black and not labelled.

    Args:
        scene: (H, W).
        angle: degrees, counter-clockwise.

    Raises:
        ValueError: a label is of directions: whether their y points up or down differs between data sets.
    """
    with extra("studies"):
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transforms
    for task, kind in scene.kinds.items():
        if kind == Kind.DIRECTIONS:
            raise ValueError(f"task {task!r}: directions are not rotated; use augmentation='zoom', 'flip' or 'none'")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def change(label: Tensor, kind: Kind) -> Tensor:
        planes = label if label.ndim == 3 else label[None]
        turned: Tensor = transforms.rotate(
            planes, angle, InterpolationMode.NEAREST, fill=[UNLABELLED[kind]] * len(planes)
        )
        if kind == Kind.OFFSETS:
            turned = torch.stack([cosine * turned[0] + sine * turned[1], cosine * turned[1] - sine * turned[0]])
        return turned.reshape(label.shape)

    return _moved(scene, transforms.rotate(scene.image, angle, InterpolationMode.BILINEAR), change)


def _moved(scene: Scene, image: Tensor, change: Change) -> Scene:
    labels = {task: change(label, scene.kinds[task]) for task, label in scene.labels.items()}
    return Scene(image, labels, scene.kinds)
