"""Files of one array each, as ``np.save`` writes them -> numbers; nothing is ever unpickled."""

from __future__ import annotations

import math
import os
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np

from paretorch.storage.regular_files import open_regular
from paretorch.workloads.formats.extensions import as_spelled
from paretorch.workloads.formats.pictures import UnreadableError

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
MAGIC = b"\x93NUMPY"  # how such a file begins
MOST = 1 << 28  # bytes of an array: a hundred times an image of NYUv2, 288 x 384 x 3 doubles
OBJECTS = "it holds Python objects, which are never unpickled"
# what NumPy raises where a header is damaged
DAMAGES = (
    ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, KeyError, OverflowError, RecursionError, TokenError,
)  # fmt: skip


def read_array(path: Path, name: str) -> Numbers:
    """An array (H, W) or (H, W, channels) of a type that torch computes with.

    Args:
        path: the file; its extension may be written in capitals.
        name: what it is called in messages.

    Raises:
        UnreadableError: it is missing, damaged, no regular file, of more than :data:`MOST` bytes, or holds something else.
    """
    try:
        with open_regular(as_spelled(path)) as file:
            if (start := file.read(len(MAGIC))) != MAGIC:
                raise UnreadableError(name, _other_file(start))
            file.seek(0)
            _check_size(file, name)
            file.seek(0)
            array: Numbers = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UnreadableError(name, "it is not there") from None
    except DAMAGES as error:
        raise UnreadableError(name, _damage(error)) from None
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        found = f"{array.dtype} of {array.shape}"
        raise UnreadableError(name, f"expected an array of numbers, (H, W) or (H, W, channels), got {found}")
    return _for_torch(array)


def _check_size(file: BinaryIO, name: str) -> None:
    """Compares what the header declares with the bound and with the file, before NumPy takes memory for it."""
    version = np.lib.format.read_magic(file)
    # versions 2 and 3 differ in the coding of field names, which arrays of numbers do not have
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    declared, held = math.prod(shape) * kind.itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if kind.hasobject:
        return  # refused by NumPy
    form = " x ".join(map(str, shape)) or "no shape"
    said = f"its header cannot be used: it says {kind} of {form}, which are {declared:,} bytes"
    if declared > MOST:
        raise UnreadableError(name, f"{said}; at most {MOST:,} are read: save a smaller array, or a smaller type")
    if declared > held:
        raise UnreadableError(name, f"{said}; it holds {held:,}: copy it again")


def _damage(error: Exception) -> str:
    """What is wrong with an array that NumPy refuses."""
    if str(error).startswith("Object arrays cannot be loaded"):
        return OBJECTS
    said = isinstance(error, (ValueError, OSError, EOFError)) and str(error)
    return str(error) if said else f"its header cannot be used: {error}"


def _other_file(start: bytes) -> str:
    """What is wrong with a file that begins as no array does."""
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return OBJECTS
    found = "an archive" if start.startswith(b"PK") else f"one that begins with {start!r}" if start else "an empty one"
    return f"expected a file as np.save writes it, got {found}"


def _for_torch(array: Numbers) -> Numbers:
    """The same numbers; wide unsigned ones as float64, so that none becomes negative."""
    if (array.dtype.kind == "u" and array.itemsize > 1) or (array.dtype.kind == "f" and array.itemsize > 8):
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
