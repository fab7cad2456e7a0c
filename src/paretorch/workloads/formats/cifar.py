"""CIFAR-10's binary files. The pickled ones, ``cifar-10-batches-py``, are never opened: a pickle runs whatever is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.regular_files import read_regular
from paretorch.workloads.formats.layout import candidates, one_place

EDGE = 32
ROW = 1 + 3 * EDGE**2  # a label, then the red, green and blue plane of an image
MOST = 10 * 10_000 * ROW  # bytes of a file: ten times what is published
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
PUBLISHED = {"train": 50_000, "test": 10_000}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORM = """\
cifar-10-batches-bin/data_batch_1.bin to data_batch_5.bin
cifar-10-batches-bin/test_batch.bin"""
SOURCE = "CIFAR-10 is published at www.cs.toronto.edu/~kriz/cifar.html: the binary version, cifar-10-binary.tar.gz"


def find_cifar(root: Path, given: str = "") -> Path:
    """The folder with the six binary files, below ``root`` or in the folder ``given``.

    Raises:
        FileNotFoundError: it is not there, or only pickled; the message says what was looked for and found.
        ValueError: it is there more than once.
    """
    starts = [Path(given)] if given else list(candidates(root, ("cifar-10", "cifar10")))
    inner = dict.fromkeys(start / below for start in starts for below in ("", "cifar-10-batches-bin"))
    places = [place for place in inner if all((place / name).is_file() for names in FILES.values() for name in names)]
    pickled = next((each for each in _pickled(starts) if not places), None)
    source = SOURCE if pickled is None else (
        f"{pickled} holds the pickled version, which is never opened: a pickle runs whatever is in it. {SOURCE}"
    )  # fmt: skip
    return one_place(places, "CIFAR-10", "cifar", given or str(root), starts, FORM, source)


def _pickled(starts: list[Path]) -> list[Path]:
    inner = [start / below for start in starts for below in ("", "cifar-10-batches-py")]
    return [place for place in inner if (place / "data_batch_1").is_file()]


def read_cifar(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """(n, 3, 32, 32) colours, bytes, and (n,) classes 0 to 9.

    Args:
        folder: with the binary files.
        split: ``"train"`` or ``"test"``, as published.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    rows = torch.cat([_rows(folder / name) for name in FILES[split]])
    return rows[:, 1:].reshape(-1, 3, EDGE, EDGE), rows[:, 0].long()


def _rows(path: Path) -> Tensor:
    content = np.frombuffer(bytearray(read_regular(path, MOST)), dtype=np.uint8)
    if not len(content) or len(content) % ROW:
        raise ValueError(
            f"{path} is damaged: expected images of {ROW} bytes each, got {len(content):,} bytes, which is no whole number of "
            f"them. Unpack it again; {SOURCE}"
        )
    rows = torch.from_numpy(content).reshape(-1, ROW)
    if int(rows[:, 0].max()) >= len(CLASSES):
        place = int((rows[:, 0] >= len(CLASSES)).nonzero()[0])
        raise ValueError(f"{path} is damaged: image {place} has the label {int(rows[place, 0])}, labels are 0 to 9")
    return rows
