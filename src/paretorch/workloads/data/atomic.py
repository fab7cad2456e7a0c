"""Files that are either whole or not there, also when the process dies or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
from io import FileIO
from pathlib import Path

_locks: set[int] = set()  # handles that this process holds


def write(path: Path, content: bytes) -> None:
    """Writes a file beside ``path``, forces it to the disk and moves it there in one step.

    Raises:
        OSError: the disk is full or the folder cannot be written; what ``path`` held before is untouched.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write_through(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    settle(path.parent)


def write_through(path: Path, content: bytes) -> None:
    """Writes a file and forces it to the disk.

    Raises:
        OSError: with the file's name and the cure, where the disk is full.
    """
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise named(error, path) from error


def appending(path: Path) -> FileIO:
    """A file that :func:`append` writes to: without a buffer, so that closing it writes nothing more."""
    return open(path, "ab", buffering=0)


def append(file: FileIO, content: bytes) -> None:
    """Writes to the end of a file and forces it to the disk.

    Raises:
        OSError: with the file's name and the cure, where the disk is full.
    """
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError as error:
        raise named(error, Path(os.fsdecode(file.name))) from error


def settle(folder: Path) -> None:
    """Forces a folder's entries to the disk, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def named(error: OSError, path: Path) -> OSError:
    """The error with the file and the cure in it, where the disk is full; itself otherwise."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    larger = error.errno == errno.EFBIG
    cure = "the file system or `ulimit -f` allows no larger file; raise that" if larger else "free some"
    message = f"no space left to write {path}: {cure} and run the same command again, it resumes"
    return OSError(error.errno, message)


def locked(path: Path, taken: str) -> int:
    """An open handle on ``path`` that no other process can have until :func:`unlock` or until this process ends.

    Processes that are forked from this one do not hold it: a loader's worker that outlives it locks nobody out.

    Args:
        path: an empty file, made if it is not there.
        taken: the message where another process has it.

    Raises:
        BlockingIOError: another process has it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks of this kind: there, the user takes care
        _locks.add(handle)
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BlockingIOError(errno.EWOULDBLOCK, taken) from None
    _locks.add(handle)
    return handle


def unlock(handle: int) -> None:
    """Gives up what :func:`locked` gave."""
    _locks.discard(handle)
    os.close(handle)


def _close_inherited() -> None:
    """In a forked process: closing its copies leaves the locks to the process that took them."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
