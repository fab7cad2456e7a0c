"""Locks that keep a second process out of a folder, and checks that a locked folder is still at its path.

A lock belongs to a file, not to a path: after the folder was moved or removed, another process can lock a new folder at the same
path. This process then must not write there. It remembers which file it has locked, and :func:`check_held` compares it with the
file at the path before anything is written, replaced or removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)  # of a path at which the file no longer is

_locked: dict[Path, tuple[Path, tuple[int, int]]] = {}  # by folder, as given and absolute: lock file, device and inode


class MovedFolderError(OSError):
    """A folder was moved, removed or replaced while this process was writing to it."""


class HeldLock:
    """A lock that this process has; as a context manager, until the end of the block.

    Args:
        lock: that was acquired.
        path: of its file.

    Raises:
        MovedFolderError: the file is not at its path any more.
    """

    def __init__(self, lock: BaseFileLock, path: Path) -> None:
        self._lock = lock
        if (identity := _identity(path)) is None:
            raise _moved_folder_error(path.parent)
        self._entry = path, identity
        self._folders = {path.parent, path.parent.absolute()}
        _locked.update(dict.fromkeys(self._folders, self._entry))

    def release(self) -> None:
        """Lets other processes acquire the lock."""
        for folder in self._folders:
            if _locked.get(folder) is self._entry:
                del _locked[folder]
        self._lock.release()

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire_lock(path: Path, message: str) -> HeldLock:
    """A lock that no other process can acquire until ``release()`` or until this process ends, however it ends.

    Processes that are forked from this one do not keep it: a data loader's worker that outlives it locks nobody out
    (older versions of filelock than 3.30 let them keep it).

    Args:
        path: of an empty file, which is created if necessary and stays.
        message: of the error where another process has the lock.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the path is a link or no regular file, or the file system allows no lock.
    """
    from filelock import FileLock, Timeout  # with the first lock, not with this module

    refused = f"{path} is a link or no regular file: it is not used as a lock. Remove it and run the same command again"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, refused)
    except FileNotFoundError:
        pass
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, message) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise OSError(error.errno, refused) from None
        raise
    try:
        return HeldLock(lock, path)
    except BaseException:
        lock.release()
        raise


def check_held(path: Path) -> None:
    """Checks that the locked folders that contain ``path`` are still those that were locked; others are not checked.

    It is called before a file or folder is written, replaced or removed.

    Args:
        path: of a file or folder, which need not exist.

    Raises:
        MovedFolderError: a folder was moved, removed or replaced, or its lock was.
    """
    if not _locked:
        return
    _check_folders(path)
    if not path.is_absolute():
        with contextlib.suppress(FileNotFoundError):  # the current folder was removed: the path as given was checked
            _check_folders(path.absolute())


def locks_above(path: Path) -> dict[str, list[int]]:
    """The locks of the folders that contain ``path``, as plain values for :func:`watch_locks` of a process on this machine."""
    absolute = path.absolute()
    found = {folder: _locked[folder] for folder in (absolute, *absolute.parents) if folder in _locked}
    return {str(folder): list(identity) for folder, (_, identity) in found.items()}


def watch_locks(locks: Mapping[str, Sequence[int]]) -> None:
    """Makes :func:`check_held` check folders that the process that started this one has locked.

    Args:
        locks: as :func:`locks_above` returns them.
    """
    for folder, (device, inode) in locks.items():
        _locked[Path(folder)] = Path(folder) / ".lock", (device, inode)


def _check_folders(path: Path) -> None:
    for folder in (path, *path.parents):
        if (entry := _locked.get(folder)) is not None and _identity(entry[0]) != entry[1]:
            raise _moved_folder_error(folder)


def _moved_folder_error(folder: Path) -> MovedFolderError:
    return MovedFolderError(
        errno.ESTALE,
        f"the folder {folder}, or the file .lock in it, was moved, removed or replaced while this command was writing to it, so "
        "the command has stopped: another command may use that path now. What was written before is where the folder is now. To "
        f"continue, move it back to {folder} and run the same command again",
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return found.st_dev, found.st_ino
