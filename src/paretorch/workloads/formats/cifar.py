"""CIFAR-10's binary files; the pickled version is never opened, since a pickle executes code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.regular_files import read_regular
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders

CIFAR = PublishedData(
    "CIFAR-10",
    "cifar",
    """\
cifar-10-batches-bin/data_batch_1.bin to data_batch_5.bin
cifar-10-batches-bin/test_batch.bin""",
    "CIFAR-10 is published at www.cs.toronto.edu/~kriz/cifar.html: the binary version, cifar-10-binary.tar.gz",
)
EDGE = 32
ROW = 1 + 3 * EDGE**2  # bytes of an image: a label, then the red, green and blue plane
MOST = 10 * 10_000 * ROW  # bytes of a file: ten times the published size
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
PUBLISHED = {"train": 50_000, "test": 10_000}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def find_cifar(root: Path, given: str = "") -> Path:
    """The folder with the six binary files: ``given``, or a subfolder of ``root`` whose name begins with cifar.

    Raises:
        FileNotFoundError: it is missing, or only the pickled version exists; the message has the expected layout.
        ValueError: it is found more than once.
    """
    searched = searched_folders(root, given, ("cifar-10", "cifar10"))
    folders = dict.fromkeys(folder / inner for folder in searched for inner in ("", "cifar-10-batches-bin"))
    found = [
        folder for folder in folders if all((folder / name).is_file() for names in FILES.values() for name in names)
    ]
    data = CIFAR
    pickled = [folder / inner for folder in searched for inner in ("", "cifar-10-batches-py")]
    if pickled := [folder for folder in pickled if (folder / "data_batch_1").is_file()]:
        reason = f"{pickled[0]} has the pickled version, which is never opened: a pickle executes code"
        data = replace(CIFAR, origin=f"{reason}. {CIFAR.origin}")
    return only_folder(data, found, given or str(root), searched)


def read_cifar(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """(n, 3, 32, 32) bytes of colours, and (n,) classes 0 to 9.

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
            f"{path} is damaged: expected images of {ROW} bytes each, got {len(content):,} bytes, which is no multiple. "
            f"Unpack it again; {CIFAR.origin}"
        )
    rows = torch.from_numpy(content).reshape(-1, ROW)
    if int(rows[:, 0].max()) >= len(CLASSES):
        index = int((rows[:, 0] >= len(CLASSES)).nonzero()[0])
        raise ValueError(f"{path} is damaged: image {index} has the label {int(rows[index, 0])}, labels are 0 to 9")
    return rows
