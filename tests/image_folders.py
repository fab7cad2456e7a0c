"""Tiny versions of ImageNet and COCO in the published layout, written from a seed."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as runs

from paretorch.workloads.formats.voc_masks import decode_mask

CLASSES = ("n01440764", "n01443537", "n02123045")
Pixels = NDArray[np.uint8]


def pixels(height: int, width: int, random: np.random.Generator) -> Pixels:
    """Random smooth colours, which JPEG preserves."""
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save_jpeg(path: Path, image: Pixels, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG", quality=95, **options)


def write_imagenet(root: Path, train: int = 12, val: int = 6, classes: tuple[str, ...] = CLASSES) -> Path:
    """``imagenet/train`` and, unless there are none, ``imagenet/val``, as many images in each class.

    One is grey, one CMYK, one a PNG of another name, as some of ImageNet are.
    """
    random = np.random.default_rng(0)
    for folder, count in (("train", train), ("val", val)):
        for number, name in enumerate(classes):
            for index in range(count):
                image = pixels(40 + 3 * index % 17, 56, random) // 2
                image[..., number % 3] += 100  # a learnable feature
                save_jpeg(root / "imagenet" / folder / name / f"{name}_{index}.JPEG", image)
    odd = root / "imagenet" / "train" / classes[0]
    Image.fromarray(pixels(40, 56, random)).convert("L").save(odd / f"{classes[0]}_0.JPEG", "JPEG")
    Image.fromarray(pixels(40, 56, random)).convert("CMYK").save(odd / f"{classes[0]}_1.JPEG", "JPEG")
    Image.fromarray(pixels(40, 56, random)).save(odd / f"{classes[0]}_2.JPEG", "PNG")
    return root / "imagenet"


def write_coco(root: Path, train: int = 36, val: int = 18) -> Path:
    """``coco/annotations``, ``coco/train2017`` and, unless there are none, ``coco/val2017``.

    Objects are polygons of one part or two, runs, packed runs and crowd regions, of VOC's classes and of others.
    """
    random = np.random.default_rng(1)
    for folder, count in (("train2017", train), ("val2017", val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            identity, height, width = 1000 + index, 48 + index % 5, 64
            image = pixels(height, width, random)
            objects = some_objects(index, height, width)
            for category, _, segmentation in objects:
                if category == 1:  # people are bright, a learnable feature
                    image = np.where(region(segmentation, height, width)[..., None] > 0, 230, image // 2).astype(
                        np.uint8
                    )
            name = f"{identity:012d}.jpg"
            save_jpeg(root / "coco" / folder / name, image)
            images.append({"id": identity, "file_name": name, "height": height, "width": width})
            for category, crowd, segmentation in objects:
                annotations.append(
                    annotation(10 * identity + len(annotations), identity, category, segmentation, crowd)
                )
        if count:
            write_instances(root / "coco" / "annotations" / f"instances_{folder}.json", images, annotations)
    return root / "coco"


def some_objects(index: int, height: int, width: int) -> list[tuple[int, int, Any]]:
    """(category, crowd, segmentation) of the objects of an image, depending on its index."""
    person = [[10.0, 5.0, 40.0, 5.0, 40.0, 40.0, 10.0, 40.0]]
    tie = [[20.0, 10.0, 24.0, 10.0, 24.0, 20.0, 20.0, 20.0]]
    parts = [[2.0, 2.0, 8.0, 2.0, 8.0, 12.0], [50.0, 30.0, 60.0, 30.0, 60.0, 44.0, 50.0, 44.0]]
    whole = rectangle(height, width, 30, 0, height, width)
    kinds: list[list[tuple[int, int, Any]]] = [
        [(1, 0, person), (32, 0, tie)],
        [(1, 0, person), (17, 0, parts)],
        [(3, 0, unpacked_runs(whole)), (1, 0, person)],
        [(1, 1, packed_runs(whole)), (18, 0, packed_runs(rectangle(height, width, 40, 20, 46, 40)))],
        [],
    ]
    return kinds[index % 5]


def rectangle(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Pixels:
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def unpacked_runs(mask: Pixels) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def packed_runs(mask: Pixels) -> dict[str, Any]:
    packed = runs.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": packed["counts"].decode()}


def region(segmentation: Any, height: int, width: int) -> Pixels:
    """The mask of a segmentation by pycocotools."""
    if isinstance(segmentation, list):
        segmentation = runs.merge(runs.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = runs.frPyObjects(segmentation, height, width)
    return decode_mask(segmentation)


def annotation(identity: int, image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "area": 1.0,
        "bbox": box_of(segmentation),
    }


def box_of(segmentation: Any) -> list[float]:
    """Left and upper edge, width and height of a segmentation, as COCO's annotations have them."""
    if isinstance(segmentation, list):
        points = np.array([number for polygon in segmentation for number in polygon]).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
    else:
        rows, columns = np.nonzero(region(segmentation, *segmentation["size"]))
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    return [float(number) for number in (*low, *(high - low))]


def write_instances(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [(1, "person"), (3, "car"), (17, "cat"), (18, "dog"), (32, "tie")]
    listed = [{"id": identity, "name": name, "supercategory": "thing"} for identity, name in categories]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": listed} | more))


def truncate(path: Path) -> None:
    """Reduces a file to its first half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_both(root: Path, train: int = 12, val: int = 6) -> Path:
    """Both data sets, with as many images in each of the three classes and three times as many of COCO."""
    write_imagenet(root, train, val)
    write_coco(root, 3 * train, 3 * val)
    return root


@lru_cache(maxsize=1)
def shared_root() -> str:
    """A folder for the whole test run that no test changes."""
    folder = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_both(Path(folder), train=60, val=6)
    return folder


# options that fit that folder
SMALL: dict[str, Any] = {"classes": 3, "train": 160, "validation": 9, "test": 6, "size": 32, "workers": 0}
