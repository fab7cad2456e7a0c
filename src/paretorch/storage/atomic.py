"""Files that are either whole or not there, also when the process dies or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
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
    """Writes a file anew and forces it to the disk.

    Raises:
        OSError: with the file's name and the cure, where the disk is full.
    """
    try:
        with created(path) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise named(error, path) from error


def created(path: Path) -> FileIO:
    """A new file, open for writing, in the place of what ``path`` was: a link is removed, never followed.

    Raises:
        OSError: a folder has this name, or it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, "xb", buffering=0, opener=_handle)


def appending(path: Path) -> FileIO:
    """A file that :func:`append` writes to: without a buffer, so that closing it writes nothing more.

    Raises:
        OSError: it is a link or no regular file: what was written would end elsewhere.
    """
    return open(path, "ab", buffering=0, opener=_handle)


def own_folder(path: Path) -> Path:
    """A folder of our own, made where it is not there; see :func:`check_own`."""
    check_own(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_own(path: Path) -> None:
    """Refuses to write into a folder that is a link: files of the same names elsewhere would be replaced or removed.

    Raises:
        OSError: it is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path} is a link to another folder, in which nothing is replaced: remove the link")


def _handle(path: str | Path, flags: int) -> int:
    """A handle on a regular file that is no link. The flags that refuse links and do not wait for FIFOs are POSIX's."""
    extra = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")]
    refused = f"{path} is a link or no regular file: it is not written to. Remove it and run the same command again"
    try:
        handle = os.open(path, flags | sum(extra), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise OSError(error.errno, refused) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, refused)
    return handle


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
        OSError: it is a link or no regular file.
    """
    handle = _handle(path, os.O_RDWR | os.O_CREAT)
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
