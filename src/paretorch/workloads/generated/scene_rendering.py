"""Ray tracing of scenes: the nearest surface of each pixel, its exact labels, and a shaded image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.workloads.generated.scene_layout import CLASSES, Scenes

CHUNK = 32  # scenes rendered at once, so that the memory for their rays fits into the cache
NEAR = 0.1  # metres: smallest distance from the camera
FOCAL = 1.0  # focal length, relative to the edge of the image
TINY = 1e-12
CYLINDER, CONE = CLASSES.index("cylinder"), CLASSES.index("cone")


class RenderedScenes(NamedTuple):
    """n images with their labels; pixel (row, column) is the ray through its centre.

    Args:
        images: (n, 3, edge, edge) bytes.
        segmentation: (n, edge, edge) bytes, index into ``CLASSES`` of the nearest surface.
        instances: (n, edge, edge) bytes, index of that surface in the scene.
        depth: (n, edge, edge) metres along the camera's axis.
        normals: (n, 3, edge, edge) unit vectors toward the camera, in its frame: right, down, ahead.
    """

    images: Tensor
    segmentation: Tensor
    instances: Tensor
    depth: Tensor
    normals: Tensor


def render(scenes: Scenes, edge: int, noise: float = 0.02, seed: int = 0) -> RenderedScenes:
    """Renders scenes.

    Args:
        scenes: to render.
        edge: pixels along one side.
        noise: standard deviation of the camera's noise, relative to the full scale.
        seed: of the noise.

    Raises:
        ValueError: there are less than 8 pixels, or noise is below 0.

    Example:
        >>> from paretorch.workloads.generated.scene_layout import sample_scenes
        >>> render(sample_scenes(2, 3, 0.1, 0), edge=32).depth.shape
        torch.Size([2, 32, 32])
    """
    if edge < 8 or not noise >= 0:
        raise ValueError(f"an image has at least 8 pixels along a side and noise of 0 or more, got {edge} and {noise}")
    generator = torch.Generator().manual_seed(seed)
    parts = [
        _render(scenes.part(slice(start, start + CHUNK)), edge, noise, generator)
        for start in range(0, len(scenes.kinds), CHUNK)
    ]
    return RenderedScenes(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def rays(edge: int) -> Tensor:
    """(3, edge^2) directions through the pixels' centres in the camera's frame, one metre ahead: right, down, ahead."""
    across = (torch.arange(edge) + 0.5) / edge - 0.5
    down, right = torch.meshgrid(across, across, indexing="ij")
    return torch.stack([right.flatten() / FOCAL, down.flatten() / FOCAL, torch.ones(edge**2)])


def _render(scenes: Scenes, edge: int, noise: float, generator: torch.Generator) -> RenderedScenes:
    count, surfaces = scenes.kinds.shape
    camera = _camera(scenes.pitch)  # (n, 3, 3) camera's frame -> scene's
    directions = camera @ rays(edge)  # (n, 3, pixels)
    starts = -(scenes.frames @ scenes.centers[..., None])[..., 0]  # (n, k, 3) the camera, in each surface's frame
    local = (scenes.frames.flatten(1, 2) @ directions).unflatten(1, (surfaces, 3))  # (n, k, 3, pixels)
    distance = torch.empty(count, surfaces, edge**2)
    for kind in range(len(CLASSES)):
        chosen = scenes.kinds == kind
        if bool(chosen.any()):
            distance[chosen] = _hits(kind, starts[chosen], local[chosen])
    depth, nearest = distance.min(dim=1)  # (n, pixels)
    kinds = scenes.kinds.gather(1, nearest)
    index = nearest[:, None, None].expand(-1, 1, 3, -1)
    point = local.gather(1, index)[:, 0] * depth[:, None] + starts.mT.gather(2, nearest[:, None].expand(-1, 3, -1))
    outward = _normals(kinds, point)  # in the surface's own frame, of any length
    frames = scenes.frames.flatten(2).mT.gather(2, nearest[:, None].expand(-1, 9, -1)).unflatten(1, (3, 3))
    normals = (frames * outward[:, :, None]).sum(dim=1)  # M^T n: normals transform by the transposed inverse
    toward = -(normals * directions).sum(dim=1, keepdim=True).sign()
    normals *= toward / normals.square().sum(dim=1, keepdim=True).sqrt()
    color = scenes.colors.mT.gather(2, nearest[:, None].expand(-1, 3, -1))
    images = _shaded(color, point, normals, scenes.light, kinds)
    images += noise * torch.randn(images.shape, generator=generator)
    return RenderedScenes(
        images.mul_(255).round_().clamp_(0, 255).to(torch.uint8).unflatten(2, (edge, edge)),
        kinds.to(torch.uint8).unflatten(1, (edge, edge)),
        nearest.to(torch.uint8).unflatten(1, (edge, edge)),
        depth.unflatten(1, (edge, edge)),
        (camera.mT @ normals).unflatten(2, (edge, edge)),
    )


def _camera(pitch: Tensor) -> Tensor:
    """(n, 3, 3) directions in the camera's frame (right, down, ahead) -> in the scene's (right, up, level ahead)."""
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    rows = [one, zero, zero, zero, -pitch.cos(), -pitch.sin(), zero, -pitch.sin(), pitch.cos()]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _hits(kind: int, start: Tensor, direction: Tensor) -> Tensor:
    """(m, pixels) distance along each ray to surfaces of one kind; inf without intersection.

    Args:
        kind: of all m surfaces.
        start: (m, 3) origin of the rays, in the surface's frame.
        direction: (m, 3, pixels) of the rays.
    """
    x, y, z = start[:, :, None].unbind(dim=1)
    u, v, w = direction.unbind(dim=1)
    name = CLASSES[kind]
    if name in ("wall", "floor", "disc", "board"):
        t = -z / w
        a, b = x + t * u, y + t * v
        inside = {"disc": a * a + b * b <= 1, "board": (a.abs() <= 1) & (b.abs() <= 1)}.get(name, t == t)
        return _valid(t, inside)
    if name == "sphere":
        first, last = _root_interval(u * u + v * v + w * w, x * u + y * v + z * w, x * x + y * y + z * z - 1)
        return _valid(first, first < last)
    if name == "cube":
        spans = [_slab(*pair) for pair in ((x, u), (y, v), (z, w))]
        first, last = torch.maximum(spans[0][0], spans[1][0]), torch.minimum(spans[0][1], spans[1][1])
        first, last = torch.maximum(first, spans[2][0]), torch.minimum(last, spans[2][1])
        return _valid(first, first < last)
    if name == "cylinder":
        round_first, round_last = _root_interval(u * u + w * w, x * u + z * w, x * x + z * z - 1)
        flat_first, flat_last = _slab(y, v)
        first, last = torch.maximum(round_first, flat_first), torch.minimum(round_last, flat_last)
        return _valid(first, first < last)
    return _cone_hits(x, y, z, u, v, w)


def _cone_hits(x: Tensor, y: Tensor, z: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """A cone with radius one at y = -1 and its tip at y = 1."""
    top, slope = (1 - y) / 2, v / 2  # the radius along the ray is top - t slope
    squared, half, constant = u * u + w * w - slope**2, x * u + z * w + top * slope, x * x + z * z - top**2
    root = (half * half - squared * constant).clamp_min(0).sqrt()
    real = half * half >= squared * constant
    divisor = torch.where(squared.abs() < TINY, TINY, squared)
    found = torch.full_like(u, torch.inf)
    for t in ((-half - root) / divisor, (-half + root) / divisor):
        found = torch.minimum(found, _valid(t, real & ((y + t * v).abs() <= 1)))
    t = (-1 - y) / v
    return torch.minimum(found, _valid(t, (x + t * u) ** 2 + (z + t * w) ** 2 <= 1))


def _root_interval(squared: Tensor, half: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of t with a t^2 + 2 b t + c <= 0; empty if there is none."""
    discriminant = half * half - squared * constant
    root = discriminant.clamp_min(0).sqrt()
    divisor = squared.clamp_min(TINY)
    return torch.where(discriminant > 0, (-half - root) / divisor, torch.inf), (-half + root) / divisor


def _slab(start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of t in which a coordinate is in -1..1."""
    safe = torch.where(direction.abs() < TINY, TINY, direction)
    one, other = (-1 - start) / safe, (1 - start) / safe
    return torch.minimum(one, other), torch.maximum(one, other)


def _valid(t: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid & (t > NEAR), t, torch.inf)


def _normals(kinds: Tensor, point: Tensor) -> Tensor:
    """(n, 3, pixels) normals of any length at local points (n, 3, pixels) of surfaces of ``kinds`` (n, pixels)."""
    x, y, z = point.unbind(dim=1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    flat = torch.stack([zero, zero, one], dim=1)
    sizes = point.abs()
    largest = torch.maximum(torch.maximum(sizes[:, 0], sizes[:, 1]), sizes[:, 2])
    face = torch.where(sizes == largest[:, None], point, 0.0)  # of a cube: the coordinate that is one
    radius = (x * x + z * z).sqrt()
    side = radius > y.abs()  # of a cylinder: there the radius is one and |y| is smaller
    cylinder = torch.where(side[:, None], torch.stack([x, zero, z], dim=1), torch.stack([zero, y, zero], dim=1))
    slant = (radius - (1 - y) / 2).abs() < (y + 1).abs()
    around = torch.stack([x, (1 - y) / 4, z], dim=1)
    cone = torch.where(slant[:, None], around, torch.stack([zero, -one, zero], dim=1))
    result = flat
    for name, own in (("sphere", point), ("cube", face), ("cylinder", cylinder), ("cone", cone)):
        result = torch.where((kinds == CLASSES.index(name))[:, None], own, result)
    return result


def _shaded(color: Tensor, point: Tensor, normals: Tensor, light: Tensor, kinds: Tensor) -> Tensor:
    """(n, 3, pixels) matte surfaces under one light and the sky; wall and floor have a faint pattern of squares."""
    lit = (normals * light[..., None]).sum(dim=1).clamp_min(0)
    sky = 0.25 + 0.15 * normals[:, 1]
    tiles = ((point[:, 0] * 1.5).floor() + (point[:, 1] * 1.5).floor()) % 2
    pattern = torch.where(kinds < 2, 1 - 0.15 * tiles, 1.0)
    return color * ((sky + 0.65 * lit) * pattern)[:, None]
