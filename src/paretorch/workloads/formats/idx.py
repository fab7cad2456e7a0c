"""Files of MNIST and Fashion-MNIST: arrays of bytes in the idx format, compressed by gzip or not."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.gzip_content import GzipContent
from paretorch.storage.regular_files import Readable, open_regular, read_exactly, read_regular
from paretorch.workloads.formats.locating import PublishedData, only_folder

BYTES = 0x08  # idx's code for unsigned bytes
EDGE, CLASSES = 28, 10
MOST = 1 << 28  # bytes of an array: the largest data set of this format, EMNIST, has 240,000 x 28 x 28
PUBLISHED = {"train": 60_000, "test": 10_000}
STEMS = {"train": "train", "test": "t10k"}
DIMENSIONS = {"images": 3, "labels": 1}


@dataclass(frozen=True)
class DigitSet:
    """A data set in MNIST's format.

    Args:
        published: its title, layout and origin.
        folders: the possible names of its folder, in lower case.
    """

    published: PublishedData
    folders: tuple[str, ...]


def _digit_set(title: str, option: str, folders: tuple[str, ...], address: str) -> DigitSet:
    name = title.replace("-", "")
    layout = "\n".join(
        f"{name}/raw/{stem}-{part}-idx{dimensions}-ubyte{'' if (stem, part) != ('train', 'images') else '[.gz]'}"
        for stem in STEMS.values()
        for part, dimensions in DIMENSIONS.items()
    )
    return DigitSet(PublishedData(title, option, layout, f"{title} is published at {address}"), folders)


MNIST = _digit_set("MNIST", "mnist", ("mnist",), "yann.lecun.com/exdb/mnist")
FASHION = _digit_set(
    "Fashion-MNIST", "fashion", ("fashionmnist", "fashion-mnist", "fashion_mnist", "fashion"),
    "github.com/zalandoresearch/fashion-mnist",
)  # fmt: skip


def find_digits(root: Path, which: DigitSet, given: str = "") -> Path:
    """The folder with the four files: ``given``, or below ``root`` in the layout of torchvision.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    if given:
        searched = [Path(given)]
    else:  # not the root itself, which may contain the files of either data set
        below = sorted(root.iterdir()) if root.is_dir() else []
        searched = [path for path in below if path.is_dir() and path.name.lower() in which.folders]
    folders = dict.fromkeys(folder / inner for folder in searched for inner in ("", "raw"))
    found = [folder for folder in folders if all(_file(folder, split, part) for split in STEMS for part in DIMENSIONS)]
    return only_folder(which.published, found[:1] if given else found, given or str(root), searched or [root])


def _file(folder: Path, split: str, part: str) -> Path | None:
    """The file under one of its published names."""
    stem = f"{STEMS[split]}-{part}"
    for mark in "-.":
        for ending in ("", ".gz"):
            path = folder / f"{stem}{mark}idx{DIMENSIONS[part]}-ubyte{ending}"
            if path.is_file():
                return path
    return None


def read_digits(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """(n, 28, 28) bytes of grey levels, and (n,) classes 0 to 9.

    Args:
        folder: with the four files.
        split: ``"train"`` or ``"test"``, as published.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the numbers of images and labels differ.
    """
    paths = {part: _file(folder, split, part) for part in DIMENSIONS}
    for part, path in paths.items():
        if path is None:
            name = f"{STEMS[split]}-{part}-idx{DIMENSIONS[part]}-ubyte"
            raise FileNotFoundError(f"{folder}: there is no {name}, nor {name}.gz")
    image_file, label_file = cast(list[Path], list(paths.values()))
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.shape != (len(labels), EDGE, EDGE) or labels.ndim != 1:
        raise ValueError(
            f"{image_file}: expected ({len(labels)}, {EDGE}, {EDGE}) bytes, an image for each label of {label_file.name}, got "
            f"{tuple(images.shape)}"
        )
    if int(labels.max()) >= CLASSES:
        raise ValueError(f"{label_file}: labels are 0 to {CLASSES - 1}, got {int(labels.max())}")
    return images, labels.long()


def read_idx(path: Path) -> Tensor:
    """The array of bytes in an idx file.

    Raises:
        ValueError: it is not an idx file, is empty, truncated or too long, or its header declares more than :data:`MOST` bytes.
        OSError: it is not a regular file.

    References:
        LeCun, Cortes & Burges, "The MNIST database": two zeros, the type, the number of dimensions, each dimension as four
        bytes with the highest first, the values.
    """
    if path.suffix != ".gz":
        with open_regular(path) as file:
            return _array(path, file)
    try:
        return _array(path, GzipContent(read_regular(path, MOST)))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}): copy it again from its publisher") from None


def _array(path: Path, file: Readable) -> Tensor:
    """The array in an open file; at most the declared number of bytes is decompressed."""
    start = bytes(read_exactly(file, 4))
    dimensions = start[3] if len(start) > 3 else 0
    sizes = read_exactly(file, 4 * dimensions)
    if start[:3] != bytes([0, 0, BYTES]) or not dimensions or len(sizes) < 4 * dimensions:
        raise ValueError(
            f"{path} is not an idx file of bytes: it begins with {start.hex(' ') or 'nothing'}, not with 00 00 08"
        )
    shape = np.frombuffer(sizes, ">u4").astype(int).tolist()
    expected, declared = math.prod(shape), " x ".join(map(str, shape))
    cure = "Copy it again from its publisher"
    if not expected:
        raise ValueError(f"{path} is empty: its header declares {declared} bytes. {cure}")
    if expected > MOST:
        raise ValueError(
            f"{path}: its header declares {declared} bytes, at most {MOST:,} are read, more than five times MNIST. {cure}"
        )
    content = read_exactly(file, expected)
    if len(content) != expected or file.read(1):
        found = len(content) if len(content) != expected else "more"
        raise ValueError(f"{path} is damaged: its header declares {declared} bytes, it contains {found}. {cure}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
