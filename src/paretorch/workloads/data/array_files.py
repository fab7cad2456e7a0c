"""Files of one array each, as ``np.save`` writes them -> numbers; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from paretorch.workloads.data.extensions import as_spelled
from paretorch.workloads.data.pictures import UnreadableError

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
MAGIC = b"\x93NUMPY"  # how such a file begins
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
        UnreadableError: it is missing, damaged, or holds something else.
    """
    try:
        with open(as_spelled(path), "rb") as file:
            if (start := file.read(len(MAGIC))) != MAGIC:
                raise UnreadableError(name, _other_file(start))
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
