"""Boxes of objects as targets, and the maps of a head for their centres.

The objects of an image are (K, 5): the class, and the left, upper, right and lower edge relative to the image, in 0..1; unused
rows have the class -1. A map has C + 4 channels: scores of the C classes, width and height of the object whose centre is in the
point, and the position of the centre in the point, each in points of the map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BOX = 4  # channels of a map after the scores: width, height, and the position in the point to the right and down
OVERLAP = 0.7  # intersection over union with the object's box that every box with its centre within the radius has
MOST = 100  # detections of an image, as in the benchmark of COCO
TINY = 1e-6


class CenterTargets(NamedTuple):
    """What a map should be.

    Args:
        heat: (B, C, h, w) in 0..1: 1 where an object of the class has its centre, and a Gaussian around it.
        present: (B, K) whether the row is an object.
        points: (B, K) index of the point of the centre in a flat map.
        boxes: (B, K, 4) width, height and position in the point.
    """

    heat: Tensor
    present: Tensor
    points: Tensor
    boxes: Tensor


class Detections(NamedTuple):
    """The N most certain detections of each of B images.

    Args:
        boxes: (B, N, 4) left, upper, right and lower edge, relative to the image.
        scores: (B, N) in 0..1, decreasing.
        classes: (B, N).
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def center_targets(objects: Tensor, classes: int, height: int, width: int) -> CenterTargets:
    """The targets of a map of h x w points.

    The Gaussian's standard deviation is (2 r + 1) / 6 with the radius r within which a box still has an overlap of 0.7.

    Args:
        objects: (B, K, 5).
        classes: C.
        height: h.
        width: w.

    Example:
        >>> targets = center_targets(torch.tensor([[[1, 0.0, 0.0, 0.5, 0.5]]]), classes=2, height=4, width=4)
        >>> targets.boxes, targets.heat[0, 1, 1, 1]
        (tensor([[[2., 2., 0., 0.]]]), tensor(1.))

    References:
        Zhou, Wang & Krähenbühl, "Objects as points", 2019, section 3; the radius: Law & Deng, "CornerNet", ECCV 2018, with the
        smallest of its three cases.
    """
    left, top, right, bottom = (objects[..., 1:] * objects.new_tensor([width, height, width, height])).unbind(dim=-1)
    present = objects[..., 0] >= 0
    sizes = torch.stack([right - left, bottom - top], dim=-1).clamp_min(0)
    centers = torch.stack([(left + right) / 2, (top + bottom) / 2], dim=-1)
    columns = centers[..., 0].floor().clamp(0, width - 1)
    rows = centers[..., 1].floor().clamp(0, height - 1)
    spread = (2 * _radius(sizes[..., 0], sizes[..., 1]).floor().clamp_min(0) + 1) / 6
    across = (torch.arange(width, device=objects.device) - columns[..., None]) / spread[..., None]
    down = (torch.arange(height, device=objects.device) - rows[..., None]) / spread[..., None]
    bumps = torch.exp(-(across.square()[..., None, :] + down.square()[..., :, None]) / 2)  # (B, K, h, w)
    own = objects[..., 0, None] == torch.arange(classes, device=objects.device)  # (B, K, C)
    heat = torch.stack([(bumps * own[..., which, None, None]).amax(dim=1) for which in range(classes)], dim=1)
    inside = torch.stack([centers[..., 0] - columns, centers[..., 1] - rows], dim=-1)
    return CenterTargets(heat, present, (rows * width + columns).long(), torch.cat([sizes, inside], dim=-1))


def _radius(width: Tensor, height: Tensor) -> Tensor:
    """The smallest of the radii at which a box whose corners are shifted has the overlap :data:`OVERLAP`."""
    total, area = width + height, width * height
    both = total - (total.square() - 4 * area * (1 - OVERLAP) / (1 + OVERLAP)).clamp_min(0).sqrt()
    inner = (2 * total - (4 * total.square() - 16 * area * (1 - OVERLAP)).clamp_min(0).sqrt()) / 4
    outer = (
        -2 * OVERLAP * total
        + (4 * OVERLAP**2 * total.square() + 16 * OVERLAP * (1 - OVERLAP) * area).clamp_min(0).sqrt()
    ) / (4 * OVERLAP)
    return torch.minimum(torch.minimum(both / 2, inner / 2), outer / 2)


def detections(maps: Tensor, most: int = MOST) -> Detections:
    """The points whose score is the largest of their 3 x 3 neighbours, as boxes.

    Args:
        maps: (B, C + 4, h, w).
        most: largest number of detections of an image.

    Example:
        >>> maps = torch.full((1, 5, 4, 4), -9.0)
        >>> maps[0, :, 1, 2] = torch.tensor([9.0, 2.0, 2.0, 0.5, 0.0])
        >>> detections(maps, most=1).boxes
        tensor([[[0.3750, 0.0000, 0.8750, 0.5000]]])
    """
    height, width = maps.shape[2:]
    heat = maps[:, :-BOX].float().sigmoid()
    peaks = torch.where(functional.max_pool2d(heat, 3, stride=1, padding=1) == heat, heat, 0.0)
    scores, where = peaks.flatten(1).topk(min(most, peaks[0].numel()), dim=1)
    classes, points = where // (height * width), where % (height * width)
    boxes = maps[:, -BOX:].float().flatten(2).gather(2, points[:, None].expand(-1, BOX, -1))
    across, down = points % width + boxes[:, 2], points // width + boxes[:, 3]
    half_width, half_height = boxes[:, 0].clamp_min(0) / 2, boxes[:, 1].clamp_min(0) / 2
    edges = torch.stack([across - half_width, down - half_height, across + half_width, down + half_height], dim=2)
    return Detections(edges / edges.new_tensor([width, height, width, height]), scores, classes)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """(n, m) intersection over union of boxes (n, 4) and (m, 4).

    Example:
        >>> overlaps(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
        tensor([[0.3333]])
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp_min(0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return common / union.clamp_min(torch.finfo(union.dtype).tiny)
