"""Forty binary attributes of rendered scenes: presence, colours, counts, sizes, positions, light and occlusion.

Relations between attributes are known by construction. Attributes of a correlated pair have a common cause, as the kind of an
object and its hue. Attributes of a conflicting pair are negatively correlated, and both are predicted from one score
(:mod:`~paretorch.workloads.models.attribute_model`), so that their gradients oppose each other wherever the labels differ
and their accuracies sum to at most one plus the share of scenes whose labels agree.
Attributes of an excluding pair are negatively correlated too, but each has a head of its own: opposite weights fit both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, Scenes
from paretorch.workloads.generated.scene_rendering import RenderedScenes

Pair = tuple[str, str]
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")  # the mean hue of each of KINDS, in their order
VISIBLE = 0.01  # share of the image from which on an object is visible
ROUND = tuple(CLASSES.index(name) for name in ("sphere", "cylinder", "cone", "disc"))
SOLID = tuple(CLASSES.index(name) for name in ("sphere", "cube", "cylinder", "cone"))

# in the order in which attributes are added: the first two conflict, the first ten have two conflicting and two correlated pairs
ATTRIBUTES = (
    "main_near", "main_small", "has_sphere", "has_red", "main_left", "wall_bright", "floor_brighter", "has_cube",
    "has_yellow", "objects_left", "main_low", "floor_large", "has_cylinder", "has_green", "main_bright",
    "objects_bright", "image_bright", "light_high", "main_solid", "three_objects", "wall_large", "camera_down",
    "has_cone", "has_cyan", "objects_large", "objects_far", "has_disc", "has_blue", "main_cut", "object_cut",
    "has_board", "has_magenta", "main_warm", "main_round", "main_saturated", "wall_warm", "floor_warm",
    "objects_overlap", "light_frontal", "contrast_high",
)  # fmt: skip
CORRELATED: tuple[Pair, ...] = (
    *((f"has_{kind}", f"has_{hue}") for kind, hue in zip(KINDS, HUES, strict=True)),
    ("main_left", "objects_left"), ("main_bright", "objects_bright"), ("main_cut", "object_cut"),
)  # fmt: skip
CONFLICTING: tuple[Pair, ...] = (
    ("main_near", "main_small"), ("wall_bright", "floor_brighter"), ("main_low", "floor_large"),
    ("wall_large", "camera_down"), ("objects_large", "objects_far"),
)  # fmt: skip
EXCLUDING: tuple[Pair, ...] = (
    ("main_solid", "has_disc"), ("main_solid", "has_board"), ("main_round", "has_cube"), ("light_high", "light_frontal"),
)  # fmt: skip


class _Measured(NamedTuple):
    """Quantities of n scenes of k surfaces; lengths and areas are relative to the image, the main object has the most pixels."""

    kinds: Tensor  # (n, k)
    colors: Tensor  # (n, k, 3)
    main: Tensor  # (n,) index of the main object
    visible: Tensor  # (n, k) whether the surface is a visible object
    areas: Tensor  # (n, k)
    instances: Tensor  # (n, edge, edge)
    depth: Tensor  # (n, edge, edge) metres
    luminance: Tensor  # (n, edge, edge) in 0..1
    light: Tensor  # (n, 3)
    pitch: Tensor  # (n,)

    def of_main(self, values: Tensor) -> Tensor:
        """(n,) of (n, k): the value of the main object."""
        return values.gather(1, self.main[:, None])[:, 0]

    @property
    def main_mask(self) -> Tensor:
        """(n, edge, edge) the pixels of the main object."""
        return self.instances == self.main[:, None, None]

    @property
    def objects_mask(self) -> Tensor:
        """(n, edge, edge) the pixels of all objects."""
        return self.instances >= 2


def scene_attributes(scenes: Scenes, rendered: RenderedScenes) -> Tensor:
    """The attributes of scenes.

    The thresholds are near the medians of ten thousand scenes of four objects.

    Args:
        scenes: n scenes.
        rendered: the images of the same scenes.

    Returns:
        (n, 40) bool, in the order of :data:`ATTRIBUTES`.

    Example:
        >>> from paretorch.workloads.generated.scene_layout import sample_scenes
        >>> from paretorch.workloads.generated.scene_rendering import render
        >>> scenes = sample_scenes(2, 4, 0.1, 0)
        >>> scene_attributes(scenes, render(scenes, edge=32)).shape
        torch.Size([2, 40])
    """
    measured = _measured(scenes, rendered)
    return torch.stack([_RULES[name](measured) for name in ATTRIBUTES], dim=1)


def _measured(scenes: Scenes, rendered: RenderedScenes) -> _Measured:
    instances, surfaces = rendered.instances.long(), scenes.kinds.shape[1]
    areas = torch.stack([(instances == surface).float().mean(dim=(1, 2)) for surface in range(surfaces)], dim=1)
    visible = areas > VISIBLE
    visible[:, :2] = False
    luminance = rendered.images.float().mean(dim=1) / 255
    main = areas[:, 2:].argmax(dim=1) + 2
    return _Measured(
        scenes.kinds,
        scenes.colors,
        main,
        visible,
        areas,
        instances,
        rendered.depth,
        luminance,
        scenes.light,
        scenes.pitch,
    )


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(n,) means over the pixels of a mask; 0 without pixels."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp_min(1)


def _hues(colors: Tensor) -> Tensor:
    """(n, k) index into HUES of the nearest hue."""
    largest, least = colors.amax(dim=2), colors.amin(dim=2)
    red, green, blue = colors.unbind(dim=2)
    span = (largest - least).clamp_min(1e-6)
    sector = torch.where(
        largest == red,
        (green - blue) / span,
        torch.where(largest == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    return sector.round().long() % len(HUES)


def _has_kind(kind: int) -> Callable[[_Measured], Tensor]:
    return lambda scene: (scene.visible & (scene.kinds == kind)).any(dim=1)


def _has_hue(hue: int) -> Callable[[_Measured], Tensor]:
    return lambda scene: (scene.visible & (_hues(scene.colors) == hue)).any(dim=1)


def _main_is(kinds: tuple[int, ...]) -> Callable[[_Measured], Tensor]:
    return lambda scene: torch.isin(scene.of_main(scene.kinds), torch.tensor(kinds))


def _touches_edge(mask: Tensor) -> Tensor:
    sides = torch.stack([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], dim=1)
    return sides.flatten(1).any(dim=1)


def _objects_left(scene: _Measured) -> Tensor:
    mask, half = scene.objects_mask, scene.instances.shape[-1] // 2
    return mask[:, :, :half].sum(dim=(1, 2)) > mask[:, :, -half:].sum(dim=(1, 2))


def _overlap(scene: _Measured) -> Tensor:
    """(n,) length of the borders between two objects, relative to the image's edge."""
    pixels = scene.instances
    borders = torch.zeros(len(pixels))
    for one, other in ((pixels[:, :, 1:], pixels[:, :, :-1]), (pixels[:, 1:], pixels[:, :-1])):
        borders = borders + ((one >= 2) & (other >= 2) & (one != other)).sum(dim=(1, 2))
    return borders / pixels.shape[-1]


def _main_row(scene: _Measured) -> Tensor:
    """(n,) mean row of the main object, 0 at the upper edge, 1 at the lower one."""
    edge = scene.instances.shape[-1]
    return _mean(((torch.arange(edge) + 0.5) / edge)[:, None].expand(edge, edge), scene.main_mask)


def _main_column(scene: _Measured) -> Tensor:
    edge = scene.instances.shape[-1]
    return _mean(((torch.arange(edge) + 0.5) / edge).expand(edge, edge), scene.main_mask)


def _saturation(colors: Tensor) -> Tensor:
    return 1 - colors.amin(dim=2) / colors.amax(dim=2)


def _wall_brightness(scene: _Measured) -> Tensor:
    return _mean(scene.luminance, scene.instances == 0)


def _floor_brightness(scene: _Measured) -> Tensor:
    return _mean(scene.luminance, scene.instances == 1)


def _warmth(surface: int) -> Callable[[_Measured], Tensor]:
    return lambda scene: scene.colors[:, surface, 0] > scene.colors[:, surface, 2]


_RULES: dict[str, Callable[[_Measured], Tensor]] = {
    **{f"has_{name}": _has_kind(CLASSES.index(name)) for name in KINDS},
    **{f"has_{name}": _has_hue(index) for index, name in enumerate(HUES)},
    "main_near": lambda scene: _mean(scene.depth, scene.main_mask) < 2.97,
    "main_small": lambda scene: scene.of_main(scene.areas) < 0.134,
    "main_left": lambda scene: _main_column(scene) < 0.5,
    "main_low": lambda scene: _main_row(scene) > 0.42,
    "main_bright": lambda scene: _mean(scene.luminance, scene.main_mask) > 0.308,
    "main_solid": _main_is(SOLID),
    "main_round": _main_is(ROUND),
    "main_warm": lambda scene: scene.of_main(scene.colors[:, :, 0] - scene.colors[:, :, 2]) > 0,
    "main_saturated": lambda scene: scene.of_main(_saturation(scene.colors)) > 0.678,
    "main_cut": lambda scene: _touches_edge(scene.main_mask),
    "object_cut": lambda scene: _touches_edge(scene.objects_mask),
    "objects_left": _objects_left,
    "objects_bright": lambda scene: _mean(scene.luminance, scene.objects_mask) > 0.31,
    "objects_large": lambda scene: scene.areas[:, 2:].sum(dim=1) > 0.19,
    "objects_far": lambda scene: _mean(scene.depth, scene.objects_mask) > 3.26,
    "objects_overlap": lambda scene: _overlap(scene) > 0.32,
    "three_objects": lambda scene: scene.visible.sum(dim=1) >= 3,
    "wall_bright": lambda scene: _wall_brightness(scene) > 0.353,
    "floor_brighter": lambda scene: _floor_brightness(scene) - _wall_brightness(scene) > 0.116,
    "wall_large": lambda scene: scene.areas[:, 0] > 0.334,
    "floor_large": lambda scene: scene.areas[:, 1] > 0.464,
    "wall_warm": _warmth(0),
    "floor_warm": _warmth(1),
    "image_bright": lambda scene: scene.luminance.mean(dim=(1, 2)) > 0.402,
    "contrast_high": lambda scene: scene.luminance.flatten(1).std(dim=1) > 0.109,
    "light_high": lambda scene: scene.light[:, 1] > 0.656,
    "light_frontal": lambda scene: scene.light[:, 2] < -0.611,
    "camera_down": lambda scene: scene.pitch > 0.207,
}
