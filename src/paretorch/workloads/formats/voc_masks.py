"""The objects of one COCO image -> a mask of the 21 classes of Pascal VOC."""

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
from paretorch.workloads.formats.pictures import UnreadableError

IGNORED = 255  # in a mask of bytes
FAR = 10  # times the image's longer side: pycocotools follows edges pixel by pixel, so none may lead further out
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
# COCO 2017 numbers its 80 categories from 1 to 90 and leaves these out
KNOWN = frozenset(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

Object = Sequence[Any]  # annotation id, VOC label, whether a crowd, segmentation as COCO writes it


def mask_of(objects: Sequence[Object], shape: tuple[int, int], name: str) -> Tensor:
    """(H, W) uint8: 0 is the background, 1 to 20 the classes of VOC, 255 is ignored.

    Where objects overlap, the smaller one lies in front. Crowd regions, whose outline is coarse, are ignored, except
    where a single object lies on them.

    Args:
        objects: those of the 20 classes.
        shape: (H, W) of the image.
        name: the image, for messages.

    Raises:
        UnreadableError: a segmentation is malformed; the reason names the annotation.

    References:
        Lin et al., "Microsoft COCO", ECCV 2014. Scripts for this mapping elsewhere ignore every overlap, which takes
        the rider off the horse, or let the order in the file decide.
    """
    with extra("studies"):
        from pycocotools import mask as runs
    drawn: list[tuple[bool, int, int, int, Any]] = []  # as runs: decoded, each would take as much as the image
    for identity, label, crowd, segmentation in objects:
        try:
            encoded = _encoded(segmentation, shape)
            area = int(runs.area(encoded))
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
            raise UnreadableError(name, f"the segmentation of annotation {identity} is malformed: {error}") from None
        drawn.append((crowd, area, identity, IGNORED if crowd else label, encoded))
    mask = np.zeros(shape, np.uint8)
    for _, _, _, label, encoded in sorted(drawn, key=lambda each: (not each[0], -each[1], each[2])):
        mask[decoded(encoded) != 0] = label
    return torch.from_numpy(mask)


def decoded(encoded: Any) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1 from what pycocotools encodes."""
    from pycocotools import mask as runs

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # pycocotools' with numpy 2
        region: NDArray[np.uint8] = runs.decode(encoded)
    return region


def _encoded(segmentation: Any, shape: tuple[int, int]) -> Any:
    """Polygons, runs or packed runs as pycocotools takes them; it trusts what it is given, so that is checked here."""
    with extra("studies"):
        from pycocotools import mask as runs

    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != shape:
            raise ValueError(f"its size is {list(segmentation['size'])}, the image's {list(shape)}")
        counts = segmentation["counts"]
        counts = unpacked(counts.encode("ascii")) if isinstance(counts, str) else [int(count) for count in counts]
        if min(counts, default=-1) < 0 or sum(counts) != math.prod(shape):
            raise ValueError(f"its runs cover {sum(counts)} of {math.prod(shape)} pixels")
        return runs.frPyObjects({"size": list(shape), "counts": counts}, *shape)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"expected polygons or runs, got {segmentation!r}"[:200])
    polygons = [[float(number) for number in polygon] for polygon in segmentation]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
            raise ValueError(f"expected three points or more in a polygon, got {polygon}"[:200])
        if abs(farthest := max(polygon, key=abs)) > FAR * max(shape):
            expected = (
                f"expected points within {FAR} times the longer side of the image's {shape[1]} x {shape[0]} pixels"
            )
            raise ValueError(f"{expected}, got the coordinate {farthest:g}")
    return runs.merge(runs.frPyObjects(polygons, *shape))


def unpacked(packed: bytes) -> list[int]:
    """Run lengths from COCO's packed form: six bits a character, and each run as its difference to the one before last.

    Raises:
        ValueError: it ends within a number, or holds another character.

    Example:
        >>> unpacked(b"12300000O")
        [1, 2, 3, 2, 3, 2, 3, 2, 2]
    """
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        six = character - 48
        if not 0 <= six < 64:
            raise ValueError(f"{packed[:50]!r} holds {chr(character)!r}, which no packed run has")
        value |= (six & 31) << shift
        shift += 5
        if six & 32:
            continue
        if six & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its packed runs are cut off")
    return counts
