"""Locks that keep a second process out of a folder."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def acquire_lock(path: Path, message: str) -> BaseFileLock:
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
    return lock
