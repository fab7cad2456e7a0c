"""Masks of the 21 classes of Pascal VOC from the objects of a COCO image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.extras import extra
from paretorch.workloads.loading.unreadable import UnreadableError

IGNORED = 255  # in a mask of bytes
MAX_COORDINATE = 10  # relative to the longer side
# Of an object's edges, relative to the sum of the sides: pycocotools traces them in memory whose allocation it does not check.
MAX_OUTLINE = 100
MAX_BITS = 35  # of a number in compressed runs, which are 32 bits in pycocotools
# Pascal VOC's classes in its order, and COCO's name and id of each; 0 is the background
VOC = (
    ("background", "", 0),
    ("aeroplane", "airplane", 5),
    ("bicycle", "bicycle", 2),
    ("bird", "bird", 16),
    ("boat", "boat", 9),
    ("bottle", "bottle", 44),
    ("bus", "bus", 6),
    ("car", "car", 3),
    ("cat", "cat", 17),
    ("chair", "chair", 62),
    ("cow", "cow", 21),
    ("diningtable", "dining table", 67),
    ("dog", "dog", 18),
    ("horse", "horse", 19),
    ("motorbike", "motorcycle", 4),
    ("person", "person", 1),
    ("pottedplant", "potted plant", 64),
    ("sheep", "sheep", 20),
    ("sofa", "couch", 63),
    ("train", "train", 7),
    ("tvmonitor", "tv", 72),
)
CLASSES = tuple(name for name, _, _ in VOC)
LABELS = {identity: label for label, (_, _, identity) in enumerate(VOC) if label}
NAMES = {identity: (coco, name) for name, coco, identity in VOC if identity}
# the ids of COCO 2017's 80 categories: 1 to 90 without ten
KNOWN = frozenset(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

Object = Sequence[Any]  # annotation id, VOC label, whether a crowd region, segmentation in COCO's format


def voc_mask(objects: Sequence[Object], shape: tuple[int, int], name: str) -> Tensor:
    """(H, W) uint8: 0 is the background, 1 to 20 the classes of VOC, 255 is ignored.

    Of overlapping objects the smaller one is in front. Crowd regions, whose outline is coarse, are ignored, except for single
    objects in front of them.

    Args:
        objects: of the 20 classes.
        shape: (H, W) of the image.
        name: of the image, for messages.

    Raises:
        UnreadableError: a segmentation is malformed; the reason names the annotation.

    References:
        Lin et al., "Microsoft COCO", ECCV 2014. Other scripts for this mapping ignore every overlap, such as that of a rider
        and a horse, or depend on the order in the file.
    """
    with extra("studies"):
        from pycocotools import mask as runs
    # run-length encoded: decoded, each needs as much memory as the image
    regions: list[tuple[bool, int, int, int, Any]] = []
    for identity, label, crowd, segmentation in objects:
        try:
            encoded = _encode(segmentation, shape)
            area = int(runs.area(encoded))
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
            raise UnreadableError(name, f"the segmentation of annotation {identity} is malformed: {error}") from None
        regions.append((crowd, area, identity, IGNORED if crowd else label, encoded))
    mask = np.zeros(shape, np.uint8)
    for _, _, _, label, encoded in sorted(regions, key=lambda each: (not each[0], -each[1], each[2])):
        mask[decode_mask(encoded) != 0] = label
    return torch.from_numpy(mask)


def decode_mask(encoded: Any) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1 from a mask that pycocotools encoded."""
    from pycocotools import mask as runs

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # pycocotools' with numpy 2
        region: NDArray[np.uint8] = runs.decode(encoded)
    return region


def _encode(segmentation: Any, shape: tuple[int, int]) -> Any:
    """Encodes polygons, runs or compressed runs; they are checked, since pycocotools does not check its input."""
    with extra("studies"):
        from pycocotools import mask as runs

    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != shape:
            raise ValueError(f"its size is {list(segmentation['size'])}, the image's {list(shape)}")
        counts = segmentation["counts"]
        counts = run_lengths(counts.encode("ascii")) if isinstance(counts, str) else list(counts)
        if odd := [count for count in counts if type(count) is not int]:
            raise ValueError(f"expected whole numbers of pixels, got {odd[0]!r}"[:200])
        if min(counts, default=-1) < 0 or sum(counts) != math.prod(shape):
            raise ValueError(f"its runs cover {sum(counts)} of {math.prod(shape)} pixels")
        return runs.frPyObjects({"size": list(shape), "counts": counts}, *shape)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"expected polygons or runs, got {segmentation!r}"[:200])
    if odd := [number for polygon in segmentation for number in polygon if type(number) not in (int, float)]:
        raise ValueError(f"expected numbers as coordinates, got {odd[0]!r}"[:200])
    polygons = [[float(number) for number in polygon] for polygon in segmentation]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
            raise ValueError(f"expected three points or more in a polygon, got {polygon}"[:200])
        if abs(farthest := max(polygon, key=abs)) > MAX_COORDINATE * max(shape):
            size = f"{shape[1]} x {shape[0]} pixels"
            expected = f"expected points within {MAX_COORDINATE} times the longer side of the image's {size}"
            raise ValueError(f"{expected}, got the coordinate {farthest:g}")
    if (outline := sum(map(_outline, polygons))) > MAX_OUTLINE * sum(shape):
        raise ValueError(f"its outline has {outline:,.0f} pixels, more than {MAX_OUTLINE} times the sides of the image")
    return runs.merge(runs.frPyObjects(polygons, *shape))


def _outline(polygon: list[float]) -> float:
    """The pixels along the edges of a polygon, which is closed."""
    points = np.array(polygon).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def run_lengths(compressed: bytes) -> list[int]:
    """Run lengths from COCO's compressed format: six bits per character, differences to the last run but one.

    Raises:
        ValueError: it ends within a number, has an invalid character, or a number that is too large.

    Example:
        >>> run_lengths(b"12300000O")
        [1, 2, 3, 2, 3, 2, 3, 2, 2]
    """
    counts: list[int] = []
    value = shift = 0
    for character in compressed:
        six = character - 48
        if not 0 <= six < 64:
            raise ValueError(f"{compressed[:50]!r} has {chr(character)!r}, which is no character of compressed runs")
        value |= (six & 31) << shift
        shift += 5
        if shift > MAX_BITS:
            raise ValueError(f"{compressed[:50]!r} has a number of more than {MAX_BITS} bits")
        if six & 32:
            continue
        if six & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its compressed runs are truncated")
    return counts
