"""Reading of regular files, without blocking and with a limit of size."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Protocol

MAX_BYTES = 1 << 30  # of a text or JSON file that is read completely: twice COCO's largest
KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # file handles of the process or the machine, memory


class IrregularFileError(OSError):
    """A path that is no regular file, such as a FIFO, a device or a folder: reading it could block or never end."""


class TooLargeError(ValueError):
    """A file that is larger than the limit, or whose header declares a larger size."""


def is_exhausted(error: BaseException) -> bool:
    """Whether a file cannot be read for want of file handles or memory: the file itself may be undamaged."""
    return isinstance(error, OSError) and error.errno in EXHAUSTED


def open_regular(path: Path) -> BufferedReader:
    """A regular file, opened for reading.

    Links to regular files are followed: data sets are often links to another disk. Other files are not opened: a FIFO would
    block until there is a writer, and opening a device may have side effects.

    Args:
        path: of the file.

    Raises:
        IrregularFileError: it is a FIFO, a device, a socket or a folder.
        OSError: it is missing, or cannot be opened.
    """
    _check(path, os.stat(path).st_mode)
    # the path may have been replaced since: a FIFO, opened without blocking, is detected by its descriptor
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        most: limit of its size in bytes.

    Raises:
        TooLargeError: it is larger.
        IrregularFileError: it is no regular file.
        OSError: it is missing, or cannot be read.
    """
    with _open_limited(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:  # files such as those in /proc have no size
        raise _too_large(path, most)
    return content


def file_digest(path: Path, most: int = MAX_BYTES) -> str:
    """The SHA-256 of a regular file.

    Args:
        path: of the file.
        most: limit of its size in bytes.

    Raises:
        TooLargeError: it is larger.
        IrregularFileError: it is no regular file.
        OSError: it is missing, or cannot be read.
    """
    with _open_limited(path, most) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_limited(path: Path, most: int) -> BufferedReader:
    """A regular file of at most ``most`` bytes: of a larger one nothing is read."""
    file = open_regular(path)
    if os.fstat(file.fileno()).st_size > most:
        file.close()
        raise _too_large(path, most)
    return file


def _too_large(path: Path, most: int) -> TooLargeError:
    return TooLargeError(
        f"{path} has more than {most:,} bytes, the limit for such a file. Replace it by the file as published, or divide it"
    )


def read_sized(path: Path, size: int) -> bytes:
    """The content of a regular file of a known size; a file of another size is not read.

    Args:
        path: of the file.
        size: in bytes.

    Raises:
        ValueError: it has another size; the message is the reason, without the path.
        IrregularFileError: it is no regular file.
        OSError: it is missing, or cannot be read.
    """
    with open_regular(path) as file:
        found = os.fstat(file.fileno()).st_size
        content = file.read() if found == size else b""
    if found != size:
        raise ValueError(f"expected {size} bytes, got {found}")
    return content


class Readable(Protocol):
    """A file, or content that is decompressed."""

    def read(self, count: int, /) -> bytes:
        """The next ``count`` bytes, or fewer at the end."""


def read_exactly(file: Readable, count: int) -> bytearray:
    """``count`` bytes of a file, or fewer if it ends before.

    Memory is allocated for the bytes in the file, not for the size that its header declares.

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
