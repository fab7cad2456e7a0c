"""Labels of whole images, counted from the labels of their pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paretorch.workloads.drawn.scene_layout import CLASSES, KINDS
from paretorch.workloads.drawn.scene_render import Rendered

QUADRANTS = ("above left", "above right", "below left", "below right")
COVERED = 0.05  # of the image, for "much"
ATTRIBUTES = (
    *(f"{name} {place}" for name in CLASSES for place in QUADRANTS),
    *(f"much {name}" for name in KINDS),
    "largest object left of the middle",
    "largest object above the middle",
)


class Labels(NamedTuple):
    """What n images show.

    Args:
        classification: (n,) kind of the object of most pixels, index into ``KINDS``.
        segmentation: (n, edge, edge) bytes, index into ``CLASSES``; classes are read with ``.long()``.
        depth: (n, edge, edge) metres.
        normals: (n, 3, edge, edge) in float16, which holds unit vectors to .03 degrees.
        detection: (n, 4) left, top, right, bottom of that object's pixels, in parts of the image.
        attributes: (n, 40) 0 or 1, the answers to :data:`ATTRIBUTES`.
    """

    classification: Tensor
    segmentation: Tensor
    depth: Tensor
    normals: Tensor
    detection: Tensor
    attributes: Tensor


def labels_of(rendered: Rendered) -> Labels:
    """The labels of rendered scenes.

    An image of which wall and floor fill every pixel does not happen: the main object is near and in front.

    Raises:
        ValueError: it did.
    """
    instances, edge = rendered.instances.long(), rendered.instances.shape[-1]
    things = int(instances.max()) + 1
    counts = torch.stack([(instances == thing).sum(dim=(1, 2)) for thing in range(things)], dim=1)
    if things <= 2 or bool((counts[:, 2:].sum(dim=1) == 0).any()):
        raise ValueError("a scene shows no object: draw more of them, or more pixels")
    largest = counts[:, 2:].argmax(dim=1) + 2
    mask = instances == largest[:, None, None]
    kinds = (rendered.segmentation.long() * mask).amax(dim=(1, 2))
    detection = _boxes(mask)
    return Labels(
        kinds - 2,
        rendered.segmentation,
        rendered.depth,
        rendered.normals.half(),
        detection / edge,
        _attributes(rendered.segmentation, detection / edge),
    )


def _boxes(mask: Tensor) -> Tensor:
    """(n, 4) the pixels that hold all of the mask: left, top, right, bottom, the last two exclusive."""
    edge = mask.shape[-1]
    places = torch.arange(edge)
    spans = []
    for rows in (mask.any(dim=1), mask.any(dim=2)):  # columns, rows
        first = torch.where(rows, places, edge).amin(dim=1)
        last = torch.where(rows, places, -1).amax(dim=1) + 1
        spans.append((first, last))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1)


def _attributes(segmentation: Tensor, boxes: Tensor) -> Tensor:
    """(n, 40) answers."""
    half = segmentation.shape[-1] // 2
    halves = (slice(None, half), slice(half, None))
    answers = []
    for name in range(len(CLASSES)):
        mask = segmentation == name
        answers += [mask[:, rows, columns].any(dim=2).any(dim=1) for rows in halves for columns in halves]
    for name in range(2, len(CLASSES)):
        answers.append((segmentation == name).float().mean(dim=(1, 2)) > COVERED)
    answers += [boxes[:, 0] + boxes[:, 2] < 1, boxes[:, 1] + boxes[:, 3] < 1]
    return torch.stack(answers, dim=1).long()
