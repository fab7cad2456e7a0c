"""Random layouts of scenes: camera, light, a floor, a wall and a few objects, drawn from a seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.workloads.streams import combined_seed

CLASSES = ("wall", "floor", "sphere", "cube", "cylinder", "cone", "disc", "board")
KINDS = CLASSES[2:]
BLOCK = 256  # scenes drawn from one seed: the first n of a split do not depend on their number


class Scenes(NamedTuple):
    """n scenes of k surfaces each: first the wall, second the floor, third the main object.

    Lengths are in metres, in a frame whose origin is the camera: x to the right, y up, z level and ahead.
    """

    kinds: Tensor  # (n, k) index into CLASSES
    centers: Tensor  # (n, k, 3) of each object; a point of the plane for wall and floor
    frames: Tensor  # (n, k, 3, 3) M: local = M (point - center); in local coordinates solids have size one and planes are z = 0
    colors: Tensor  # (n, k, 3) in 0..1
    light: Tensor  # (n, 3) unit vector toward the light
    pitch: Tensor  # (n,) radians by which the camera points down

    def part(self, index: slice) -> Scenes:
        """A part of the scenes."""
        return Scenes(*(tensor[index] for tensor in self))


def sample_scenes(count: int, objects: int, hue_spread: float, *key: int) -> Scenes:
    """Draws ``count`` scenes.

    Args:
        count: n.
        objects: number of objects in each scene, besides wall and floor.
        hue_spread: standard deviation of the hues of one kind, as a fraction of the colour circle; 0: the colour determines the
            kind.
        key: the numbers from which the seed is derived.

    Raises:
        ValueError: there is less than one scene or object, or the spread is below 0.

    Example:
        >>> sample_scenes(3, 4, 0.1, 7).kinds.shape
        torch.Size([3, 6])
    """
    if count < 1 or objects < 1 or not hue_spread >= 0:
        raise ValueError(
            f"expected at least one scene, one object in each and hue_spread of at least 0, got {count} scenes, "
            f"{objects} objects and hue_spread {hue_spread}"
        )
    blocks = [_block(objects, hue_spread, combined_seed(*key, number)) for number in range(math.ceil(count / BLOCK))]
    return Scenes(*(torch.cat(tensors)[:count] for tensors in zip(*blocks, strict=True)))


def _block(objects: int, hue_spread: float, seed: int) -> Scenes:
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(BLOCK, *shape, generator=generator)

    height, pitch = between(1.0, 1.6), between(0.05, 0.35)
    kinds = torch.randint(2, len(CLASSES), (BLOCK, objects), generator=generator)
    size = between(0.28, 0.5, objects)
    size[:, 0] = between(0.55, 0.75)  # the main object is larger, and nearer
    scale = size[..., None] * between(0.75, 1.25, objects, 3)
    rotations = _rotations(
        between(-math.pi, math.pi, objects), between(-0.5, 0.5, objects), between(-0.5, 0.5, objects)
    )
    flat = kinds >= CLASSES.index("disc")  # these kinds approximately face the camera
    facing = _rotations(between(-0.9, 0.9, objects), between(-0.6, 0.6, objects), between(-0.5, 0.5, objects))
    rotations = torch.where(flat[..., None, None], facing, rotations)
    depth = between(3.2, 6.0, objects)
    depth[:, 0] = between(2.8, 3.8)
    across = between(-0.42, 0.42, objects) * depth
    across[:, 0] *= 0.6  # usually not cut by the image's edge
    lift = between(0.0, 0.7, objects)
    lift[:, 0] *= 0.5
    centers = torch.stack([across, -height[:, None] + scale.amax(dim=2) + lift, depth], dim=2)
    frames = rotations.transpose(2, 3) / scale[..., None]
    wall, wall_at = _rotations(between(-0.5, 0.5), torch.zeros(BLOCK), torch.zeros(BLOCK)), between(6.5, 9.0)
    floor = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).expand(BLOCK, 3, 3)
    zero = torch.zeros(BLOCK)
    planes_at = torch.stack(
        [torch.stack([zero, zero, wall_at], dim=1), torch.stack([zero, -height, zero], dim=1)], dim=1
    )
    hue = (kinds - 2) / len(KINDS) + hue_spread * torch.randn(BLOCK, objects, generator=generator)
    colors = _color(hue, between(0.45, 0.9, objects), between(0.55, 1.0, objects))
    plain = _color(between(0.0, 1.0, 2), between(0.0, 0.3, 2), between(0.4, 0.95, 2))
    light = torch.stack([between(-0.8, 0.8), between(0.4, 1.0), between(-1.0, -0.3)], dim=1)
    return Scenes(
        kinds=torch.cat([torch.tensor([[0, 1]]).expand(BLOCK, 2), kinds], dim=1),
        centers=torch.cat([planes_at, centers], dim=1),
        frames=torch.cat([torch.stack([wall.transpose(1, 2), floor], dim=1), frames], dim=1),
        colors=torch.cat([plain, colors], dim=1),
        light=light / light.norm(dim=1, keepdim=True),
        pitch=pitch,
    )


def _rotations(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """(..., 3, 3) rotations: about y, then x, then z."""
    one, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).view(*one.shape, 3, 3)

    about_y = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    about_x = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    about_z = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    return about_y @ about_x @ about_z


def _color(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """(..., 3) red, green and blue in 0..1 of hues on a circle of length one."""
    corner = torch.stack([hue, hue + 2 / 3, hue + 1 / 3], dim=-1)
    ramp = (((corner % 1) * 6 - 3).abs() - 1).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * (1 - ramp))
