"""Labels of whole images, derived from the labels of their pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.workloads.generated.scene_layout import CLASSES, KINDS
from paretorch.workloads.generated.scene_rendering import RenderedScenes

QUADRANTS = ("above left", "above right", "below left", "below right")
VISIBLE = 0.005  # share of the image from which on an object is to be detected
COVERED = 0.05  # share of the image from which on it has "much" of a class
ATTRIBUTES = (
    *(f"{name} {place}" for name in CLASSES for place in QUADRANTS),
    *(f"much {name}" for name in KINDS),
    "largest object left of the middle",
    "largest object above the middle",
)


class SceneLabels(NamedTuple):
    """Labels of n images.

    Args:
        classification: (n,) kind of the object of most pixels, index into ``KINDS``.
        segmentation: (n, edge, edge) bytes, index into ``CLASSES``.
        depth: (n, edge, edge) metres.
        normals: (n, 3, edge, edge) in float16, exact to 0.03 degrees.
        detection: (n, 4) left, top, right, bottom of that object's pixels, relative to the image.
        attributes: (n, 40) 0 or 1, one for each of :data:`ATTRIBUTES`.
        objects: (n, k, 5) kind, index into ``KINDS``, and the box of each visible object's pixels, relative to the image; -1 for
            the kind of an object that is hidden or has less than :data:`VISIBLE` of the pixels.
    """

    classification: Tensor
    segmentation: Tensor
    depth: Tensor
    normals: Tensor
    detection: Tensor
    attributes: Tensor
    objects: Tensor


def image_labels(rendered: RenderedScenes) -> SceneLabels:
    """The labels of rendered scenes.

    Raises:
        ValueError: wall and floor fill every pixel of an image, which the main object, near and in front, usually prevents.
    """
    instances, edge = rendered.instances.long(), rendered.instances.shape[-1]
    surfaces = int(instances.max()) + 1
    counts = torch.stack([(instances == surface).sum(dim=(1, 2)) for surface in range(surfaces)], dim=1)
    if surfaces <= 2 or bool((counts[:, 2:].sum(dim=1) == 0).any()):
        raise ValueError("a scene shows no object: draw more of them, or more pixels")
    largest = counts[:, 2:].argmax(dim=1) + 2
    mask = instances == largest[:, None, None]
    kinds = (rendered.segmentation.long() * mask).amax(dim=(1, 2))
    detection = _boxes(mask)
    return SceneLabels(
        kinds - 2,
        rendered.segmentation,
        rendered.depth,
        rendered.normals.half(),
        detection / edge,
        _attributes(rendered.segmentation, detection / edge),
        _objects(instances, rendered.segmentation.long(), counts),
    )


def _objects(instances: Tensor, segmentation: Tensor, counts: Tensor) -> Tensor:
    """(n, k, 5) kinds and boxes of all objects; ``counts`` (n, surfaces) are their pixels."""
    rows, edge = [], instances.shape[-1]
    for surface in range(2, counts.shape[1]):
        mask = instances == surface
        kinds = (segmentation * mask).amax(dim=(1, 2)) - 2
        row = torch.cat([kinds[:, None].float(), _boxes(mask) / edge], dim=1)
        hidden = counts[:, surface] < VISIBLE * edge**2
        row[hidden] = row.new_tensor([-1.0, 0.0, 0.0, 0.0, 0.0])
        rows.append(row)
    return torch.stack(rows, dim=1)


def _boxes(mask: Tensor) -> Tensor:
    """(n, 4) bounding boxes of the masks: left, top, right, bottom, the last two exclusive."""
    edge = mask.shape[-1]
    positions = torch.arange(edge)
    spans = []
    for rows in (mask.any(dim=1), mask.any(dim=2)):  # columns, rows
        first = torch.where(rows, positions, edge).amin(dim=1)
        last = torch.where(rows, positions, -1).amax(dim=1) + 1
        spans.append((first, last))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1)


def _attributes(segmentation: Tensor, boxes: Tensor) -> Tensor:
    """(n, 40) attributes."""
    half = segmentation.shape[-1] // 2
    halves = (slice(None, half), slice(half, None))
    attributes = []
    for name in range(len(CLASSES)):
        mask = segmentation == name
        attributes += [mask[:, rows, columns].any(dim=2).any(dim=1) for rows in halves for columns in halves]
    for name in range(2, len(CLASSES)):
        attributes.append((segmentation == name).float().mean(dim=(1, 2)) > COVERED)
    attributes += [boxes[:, 0] + boxes[:, 2] < 1, boxes[:, 1] + boxes[:, 3] < 1]
    return torch.stack(attributes, dim=1).long()
