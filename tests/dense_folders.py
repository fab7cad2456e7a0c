"""Tiny folders of exactly the form in which data sets of labelled pixels are published, written from a seed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIZE = (32, 64)


def room(random: np.random.Generator, size: tuple[int, int] = SIZE, classes: int = 13) -> dict[str, Array]:
    """A wall above a floor, of two classes: the image's colours give class, depth and normal away."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    edge = random.integers(height // 3, 2 * height // 3)
    floor = rows >= edge
    wall_class, floor_class = random.integers(0, classes, 2)
    label = np.where(floor, floor_class, wall_class).astype(np.float64)
    depth = np.where(floor, 1 + 4 * (height - rows) / height, 3 + columns / width)
    normal = np.where(floor[..., None], [0.0, -1.0, 0.0], [0.6, 0.0, -0.8])
    label[:2], depth[:, :1], normal[:, -1:] = -1, 0, 0  # as the camera leaves gaps
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


@lru_cache(maxsize=1)
def shared_nyuv2() -> str:
    """A folder for the whole test run, which nothing changes."""
    folder = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_nyuv2(Path(folder), train=80, val=6)
    return folder
