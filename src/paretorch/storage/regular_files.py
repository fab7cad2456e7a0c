"""Regular files, opened without following what would block, and read below a bound."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

MOST = 1 << 30  # bytes of a file of text or JSON that is read whole: twice what COCO's largest has
KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


class IrregularFileError(OSError):
    """A path that is no regular file, such as a FIFO, a device or a folder: reading it could block or never end."""


class TooLargeError(ValueError):
    """A file that holds, or says that it holds, more than the bound."""


def open_regular(path: Path) -> BufferedReader:
    """A regular file, opened for reading.

    Links to regular files are followed: data sets are often links to another disk. Nothing else is opened: a FIFO would wait
    for a writer, and opening a device may act on it.

    Args:
        path: of the file.

    Raises:
        IrregularFileError: it is a FIFO, a device, a socket or a folder.
        OSError: it is missing, or cannot be opened.
    """
    _check(path, os.stat(path).st_mode)
    # the path may be replaced meanwhile: a FIFO that is opened without blocking is found out by its descriptor
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = MOST) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        TooLargeError: it has more.
        IrregularFileError: it is no regular file.
        OSError: it is missing, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise TooLargeError(
            f"{path} has more than {most:,} bytes, the most that is read of such a file. Replace it by the file as published, "
            "or divide it"
        )
    return content


def read_exactly(file: BinaryIO, count: int) -> bytearray:
    """``count`` bytes of a file, or fewer where it ends before.

    Memory grows with what the file gives, not with what its header says.

    Args:
        file: open for reading.
        count: bytes.
    """
    content = bytearray()
    while len(content) < count:
        piece = file.read(min(1 << 20, count - len(content)))
        if not piece:
            break
        content += piece
    return content


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise IrregularFileError(f"{path} is {kind}, expected a regular file: remove it, or put the file there")
