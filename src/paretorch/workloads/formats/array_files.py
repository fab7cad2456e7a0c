"""Files with one array, as ``np.save`` writes them; nothing is unpickled."""

from __future__ import annotations

import math
import os
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np

from paretorch.storage.regular_files import is_exhausted, open_regular
from paretorch.workloads.formats.extensions import existing_path
from paretorch.workloads.loading.unreadable import UnreadableError

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
MAGIC = b"\x93NUMPY"  # the first bytes of such a file
MOST = 1 << 28  # bytes of an array: a hundred times an image of NYUv2, 288 x 384 x 3 doubles
OBJECTS = "it contains Python objects, which are never unpickled"
# exceptions of NumPy for a damaged header
DAMAGES = (
    ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, KeyError, OverflowError, RecursionError, TokenError,
)  # fmt: skip


def read_array(path: Path, name: str) -> Numbers:
    """An array (H, W) or (H, W, channels) of a type that torch supports.

    Args:
        path: the file; its extension may be in upper case.
        name: its name in messages.

    Raises:
        UnreadableError: it is missing, damaged, not regular, has more than :data:`MOST` bytes, or is no such array.
    """
    try:
        with open_regular(existing_path(path)) as file:
            if (start := file.read(len(MAGIC))) != MAGIC:
                raise UnreadableError(name, _other_format(start))
            file.seek(0)
            _check_size(file, name)
            file.seek(0)
            array: Numbers = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UnreadableError(name, "it is missing") from None
    except DAMAGES as error:
        if is_exhausted(error):
            raise
        raise UnreadableError(name, _reason(error)) from None
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        found = f"{array.dtype} of {array.shape}"
        raise UnreadableError(name, f"expected an array of numbers, (H, W) or (H, W, channels), got {found}")
    return _for_torch(array)


def _check_size(file: BinaryIO, name: str) -> None:
    """Compares the size that the header declares with the bound and the file, before NumPy allocates memory."""
    version = np.lib.format.read_magic(file)
    # versions 2 and 3 differ in the encoding of field names, which arrays of numbers do not have
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    declared, stored = math.prod(shape) * kind.itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if kind.hasobject:
        return  # NumPy raises for it
    dimensions = " x ".join(map(str, shape)) or "no shape"
    problem = f"its header cannot be used: it declares {kind} of {dimensions}, which are {declared:,} bytes"
    if declared > MOST:
        raise UnreadableError(name, f"{problem}; at most {MOST:,} are read: save a smaller array, or a smaller type")
    if declared > stored:
        raise UnreadableError(name, f"{problem}; the file has {stored:,}: copy it again")


def _reason(error: Exception) -> str:
    """Why NumPy could not read an array."""
    if str(error).startswith("Object arrays cannot be loaded"):
        return OBJECTS
    clear = isinstance(error, (ValueError, OSError, EOFError)) and str(error)
    return str(error) if clear else f"its header cannot be used: {error}"


def _other_format(start: bytes) -> str:
    """What a file is that does not begin as an array does."""
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return OBJECTS
    found = "an archive" if start.startswith(b"PK") else f"one that begins with {start!r}" if start else "an empty one"
    return f"expected a file as np.save writes it, got {found}"


def _for_torch(array: Numbers) -> Numbers:
    """The same numbers; unsigned ones of more than 8 bits as float64, so that none becomes negative."""
    if (array.dtype.kind == "u" and array.itemsize > 1) or (array.dtype.kind == "f" and array.itemsize > 8):
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
