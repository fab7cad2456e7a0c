"""Tiny data sets of labelled pixels in the published layout, written from a seed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paretorch.workloads.cityscapes import Cityscapes
from paretorch.workloads.nyuv2 import NYUv2

Array = NDArray[Any]
SIZE = (32, 64)
NARROW: dict[str, Any] = {"width": 0.125, "workers": 0, "augmentation": "none"}


def room(random: np.random.Generator, size: tuple[int, int] = SIZE, classes: int = 13) -> dict[str, Array]:
    """A wall above a floor, of two classes: the image's colours determine class, depth and normal."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    edge = random.integers(height // 3, 2 * height // 3)
    floor = rows >= edge
    wall_class, floor_class = random.integers(0, classes, 2)
    label = np.where(floor, floor_class, wall_class).astype(np.float64)
    depth = np.where(floor, 1 + 4 * (height - rows) / height, 3 + columns / width)
    normal = np.where(floor[..., None], [0.0, -1.0, 0.0], [0.6, 0.0, -0.8])
    label[:2], depth[:, :1], normal[:, -1:] = -1, 0, 0  # pixels without measurement
    image = np.stack([label / classes, depth / 6, floor], axis=-1).clip(0, 1) * 0.9 + 0.1 * random.random((*size, 3))
    return {"image": image, "label": label, "depth": depth[..., None].astype(np.float32), "normal": normal}


def write_nyuv2(root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = SIZE) -> Path:
    """``nyuv2/{train,val}/{image,label,depth,normal}/NUMBER.npy``, numbered from 0, as they are published."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(count):
            for folder, array in room(random, size).items():
                save(root / "nyuv2" / part / folder / f"{number}.npy", array)
    return root / "nyuv2"


def save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_city_arrays(root: Path, train: int = 8, val: int = 4, classes: int = 7) -> Path:
    """``cityscapes/{train,val}/{image,label,depth}/NUMBER.npy``; depths are inverse."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(count):
            arrays = room(random, classes=classes)
            depth = arrays["depth"]
            arrays["depth"] = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0)
            for folder in ("image", "label", "depth"):
                save(root / "cityscapes" / part / folder / f"{number}.npy", arrays[folder])
    return root / "cityscapes"


def write_city_images(root: Path, train: int = 8, val: int = 4, size: tuple[int, int] = (64, 128)) -> Path:
    """``leftImg8bit``, ``gtFine`` and ``disparity``: a road, the sky, two cars; the left edge without disparity."""
    random = np.random.default_rng(0)
    height, width = size
    for part, count in (("train", train), ("val", val)):
        for number in range(count):
            city = ("aachen", "bonn")[number % 2]
            labels = np.full(size, 23, np.uint8)
            labels[height // 2 :] = 7
            labels[0] = 1
            instances = labels.astype(np.uint16)
            for car in range(2):
                top, left = int(random.integers(height // 3, height // 2)), int(random.integers(0, width // 3))
                left += car * width // 2
                box = np.s_[top : top + height // 4, left : left + width // 8]
                labels[box], instances[box] = 26, 26000 + car
            disparity = (1 + 256 * (4 + 20 * np.mgrid[0:height, 0:width][0] / height)).astype(np.uint16)
            disparity[:, :8] = 0
            image = np.stack([labels * 7, instances % 1000 * 90, disparity // 40], axis=-1).astype(np.uint8)
            stem = f"{part}/{city}/{city}_{number:06d}_000019_"
            for folder, ending, array in (
                ("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", labels),
                ("gtFine", "gtFine_instanceIds", instances), ("disparity", "disparity", disparity),
            ):  # fmt: skip
                path = root / "cityscapes" / folder / f"{stem}{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root / "cityscapes"


def shared_nyuv2() -> str:
    """A folder for the whole test run that no test changes."""
    return _shared(write_nyuv2)


def shared_city_arrays() -> str:
    return _shared(write_city_arrays)


def shared_city_images() -> str:
    return _shared(write_city_images)


@lru_cache(maxsize=3)
def _shared(write: Callable[..., Path]) -> str:
    folder = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write(Path(folder), train=80, val=6)
    return folder


def narrow_cityscapes(root: Path) -> Cityscapes:
    return Cityscapes(root=str(root), form="images", height=32, **NARROW)


def narrow_nyuv2(root: Path) -> NYUv2:
    return NYUv2(root=str(root), **NARROW)


def first_scene(workload: Any) -> Any:
    """The first scene of the test set of a workload of labelled scenes."""
    source = workload.source()
    return source.reader("val", source.names("val")).read(0)
