"""Tiny data sets in the published formats: MNIST's idx files and CIFAR-10's binary files."""

from __future__ import annotations

import gzip
import struct
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COUNTS = {"train": 120, "test": 24}
STEMS = {"train": "train", "test": "t10k"}


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array of bytes as an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def draw_digits(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of 28 x 28 whose class is the position of a bright bar, and the classes."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 10
    images = random.integers(0, 60, (count, 28, 28))
    for image, place in zip(images, classes, strict=True):
        image[2 * place + 4 : 2 * place + 7, 4:24] += 180
    return images.astype(np.uint8), classes.astype(np.uint8)


def write_digits(root: Path, folder: str = "MNIST", packed: bool = False, seed: int = 0) -> Path:
    """The four files below ``root/folder/raw``, in the layout of torchvision."""
    place = root / folder / "raw"
    place.mkdir(parents=True)
    for split, count in COUNTS.items():
        images, labels = draw_digits(count, seed + len(split))
        for name, array in (
            (f"{STEMS[split]}-images-idx3-ubyte", images),
            (f"{STEMS[split]}-labels-idx1-ubyte", labels),
        ):
            (place / (name + ".gz" * packed)).write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return place


def write_cifar(root: Path) -> Path:
    """The six binary files; an image's class is its brightest row."""
    place = root / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        labels = np.arange(24) % 10
        images = random.integers(0, 60, (24, 3, 32, 32))
        for image, label in zip(images, labels, strict=True):
            image[:, 3 * label + 1 : 3 * label + 4] += 180
        rows = np.concatenate([labels[:, None], images.reshape(24, -1)], axis=1)
        (place / name).write_bytes(rows.astype(np.uint8).tobytes())
    return place


@lru_cache(maxsize=1)
def shared_files() -> str:
    """A folder with both data sets of MNIST's form, one of them compressed, and CIFAR-10; no test changes it."""
    root = Path(tempfile.mkdtemp(prefix="published-"))
    write_digits(root)
    write_digits(root, "FashionMNIST", packed=True, seed=7)
    write_cifar(root)
    return str(root)
