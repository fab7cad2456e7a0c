"""MNIST's files: arrays of bytes in the idx form, packed by gzip or not, as MNIST and Fashion-MNIST publish them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.regular_files import open_regular, read_exactly
from paretorch.workloads.formats.layout import one_place

BYTES = 0x08  # idx's mark of unsigned bytes
EDGE, CLASSES = 28, 10
MOST = 1 << 28  # bytes of an array: the largest set of digits of this form, EMNIST's, has 240,000 x 28 x 28
PUBLISHED = {"train": 60_000, "test": 10_000}
STEMS = {"train": "train", "test": "t10k"}
PARTS = {"images": 3, "labels": 1}  # and their dimensions


@dataclass(frozen=True)
class DigitSet:
    """A data set of MNIST's form.

    Args:
        title: its name.
        option: the workload's option that names its folder.
        folders: names of its folder, in small letters.
        source: where it is published.
    """

    title: str
    option: str
    folders: tuple[str, ...]
    source: str

    @property
    def form(self) -> str:
        """How its files must lie, a line each."""
        name = self.title.replace("-", "")
        return "\n".join(
            f"{name}/raw/{stem}-{part}-idx{dimensions}-ubyte{'' if (stem, part) != ('train', 'images') else '[.gz]'}"
            for stem in STEMS.values()
            for part, dimensions in PARTS.items()
        )


MNIST = DigitSet("MNIST", "mnist", ("mnist",), "MNIST is published at yann.lecun.com/exdb/mnist")
FASHION = DigitSet(
    "Fashion-MNIST", "fashion", ("fashionmnist", "fashion-mnist", "fashion_mnist", "fashion"),
    "Fashion-MNIST is published at github.com/zalandoresearch/fashion-mnist",
)  # fmt: skip


def find_digits(root: Path, which: DigitSet, given: str = "") -> Path:
    """The folder with the four files, below ``root`` as torchvision lays it, or in the folder ``given``.

    Raises:
        FileNotFoundError: it is not there, or a file is missing; the message says what was looked for and found.
        ValueError: it is there more than once.
    """
    starts = [Path(given)] if given else list(_named(root, which))
    inner = dict.fromkeys(start / below for start in starts for below in ("", "raw"))
    places = [place for place in inner if all(_file(place, *key) for key in _files())]
    return one_place(
        places[:1] if given else places, which.title, which.option, given or str(root), starts or [root], which.form,
        which.source,
    )  # fmt: skip


def _named(root: Path, which: DigitSet) -> Iterator[Path]:
    """Subfolders of a fitting name; the root itself may hold either data set, so it is none."""
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in which.folders)


def _files() -> list[tuple[str, str]]:
    return [(split, part) for split in STEMS for part in PARTS]


def _file(folder: Path, split: str, part: str) -> Path | None:
    """The file, whichever of its published names it has."""
    stem = f"{STEMS[split]}-{part}"
    for mark in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stem}{mark}idx{PARTS[part]}-ubyte{ending}"
            if path.is_file():
                return path
    return None


def read_digits(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """(n, 28, 28) grey levels, bytes, and (n,) classes 0 to 9.

    Args:
        folder: with the four files.
        split: ``"train"`` or ``"test"``, as published.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or images and labels do not fit.
    """
    paths = [_file(folder, split, part) for part in PARTS]
    if paths[0] is None or paths[1] is None:
        missing = next(part for part, path in zip(PARTS, paths, strict=True) if path is None)
        raise FileNotFoundError(
            f"{folder}: there is no {STEMS[split]}-{missing}-idx{PARTS[missing]}-ubyte, nor packed as .gz"
        )
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.shape != (len(labels), EDGE, EDGE) or labels.ndim != 1:
        raise ValueError(
            f"{paths[0]}: expected ({len(labels)}, {EDGE}, {EDGE}) bytes, an image for each label of {paths[1].name}, got "
            f"{tuple(images.shape)}"
        )
    if int(labels.max()) >= CLASSES:
        raise ValueError(f"{paths[1]}: labels are 0 to {CLASSES - 1}, got {int(labels.max())}")
    return images, labels.long()


def read_idx(path: Path) -> Tensor:
    """The array of bytes in an idx file.

    Raises:
        ValueError: it is no such file, is empty, cut off or too long, or its head declares more than :data:`MOST` bytes.
        OSError: it is no regular file.

    References:
        LeCun, Cortes & Burges, "The MNIST database": two zeros, the type, the number of dimensions, each dimension as four
        bytes with the highest first, the values.
    """
    with open_regular(path) as file:
        if path.suffix != ".gz":
            return _array(path, file)
        try:
            return _array(path, cast(BinaryIO, gzip.GzipFile(fileobj=file)))
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be unpacked ({error}): copy it again from where it is published") from None


def _array(path: Path, file: BinaryIO) -> Tensor:
    """The array of a file that is open; no more of it is unpacked than its head says that it holds."""
    start = bytes(read_exactly(file, 4))
    dimensions = start[3] if len(start) > 3 else 0
    sizes = read_exactly(file, 4 * dimensions)
    if start[:3] != bytes([0, 0, BYTES]) or not dimensions or len(sizes) < 4 * dimensions:
        raise ValueError(
            f"{path} is no idx file of bytes: it begins with {start.hex(' ') or 'nothing'}, not with 00 00 08"
        )
    shape = np.frombuffer(sizes, ">u4").astype(int).tolist()
    expected, said = math.prod(shape), " x ".join(map(str, shape))
    if not expected:
        raise ValueError(f"{path} is empty: its head says {said}. Copy it again from where it is published")
    if expected > MOST:
        raise ValueError(
            f"{path}: its head says {said} bytes, at most {MOST:,} are read, more than five times MNIST. Copy it again from "
            "where it is published"
        )
    content = read_exactly(file, expected)
    if len(content) != expected or file.read(1):
        held = len(content) if len(content) != expected else "more"
        raise ValueError(
            f"{path} is damaged: its head says {said} bytes, it holds {held}. Copy it again from where it is published"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
