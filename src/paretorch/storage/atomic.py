"""Files that are complete or absent, also after a crash or on a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from io import FileIO
from pathlib import Path

from paretorch.storage.locks import check_held


def write(path: Path, content: bytes) -> None:
    """Writes a temporary file, forces it to the disk and renames it to ``path`` in one step.

    Raises:
        OSError: the disk is full or the folder cannot be written; an earlier file at ``path`` is unchanged.
        MovedFolderError: the file is in a folder that this process had locked and that is no longer there.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write_through(temporary, content)
        check_held(path)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            check_held(path)  # the temporary file at this path may be that of another process
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_through(path: Path, content: bytes) -> None:
    """Replaces a file, not atomically, and forces it to the disk.

    Raises:
        OSError: with the path and the cure, if the disk is full.
    """
    try:
        with create(path) as file:
            _write_all(file, content)
    except OSError as error:
        raise disk_full_error(error, path) from error


def create(path: Path) -> FileIO:
    """A new file, open for writing. An earlier file or link at ``path`` is removed; the link is not followed.

    Raises:
        OSError: the path is a folder, or cannot be written.
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return open(path, "xb", buffering=0, opener=_open_descriptor)


def open_to_append(path: Path) -> FileIO:
    """A file for :func:`append`, without a buffer, so that closing it writes nothing.

    Raises:
        OSError: it is a link or no regular file, so that the content would be written elsewhere.
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    return open(path, "ab", buffering=0, opener=_open_descriptor)


def own_folder(path: Path) -> Path:
    """Makes a folder if necessary and returns it; see :func:`check_own`."""
    check_own(path)
    make_folder(path)
    return path


def make_folder(path: Path) -> None:
    """Makes a folder and those above it if necessary.

    Raises:
        OSError: it cannot be made.
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    path.mkdir(parents=True, exist_ok=True)


def remove_file(path: Path) -> None:
    """Removes a file if there is one.

    Raises:
        OSError: it cannot be removed.
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder with all that it contains, as far as that is possible.

    Raises:
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    shutil.rmtree(path, ignore_errors=True)


def check_own(path: Path) -> None:
    """Checks that a folder is not a link: files of the same names in the linked folder would be replaced or removed.

    Raises:
        OSError: it is a link.
        MovedFolderError: see :func:`write`.
    """
    check_held(path)
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path} is a link to another folder, whose files are not replaced: remove the link")


def _open_descriptor(path: str | Path, flags: int) -> int:
    """A file descriptor of a regular file that is no link. The flags that refuse links and do not block on FIFOs are POSIX's."""
    extra = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")]
    refused = f"{path} is a link or no regular file: it is not written to. Remove it and run the same command again"
    try:
        descriptor = os.open(path, flags | sum(extra), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise OSError(error.errno, refused) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, refused)
    return descriptor


def append(file: FileIO, content: bytes) -> None:
    """Writes to the end of a file and forces it to the disk.

    Raises:
        OSError: with the path and the cure, if the disk is full.
        MovedFolderError: see :func:`write`.
    """
    path = Path(os.fsdecode(file.name))
    check_held(path)
    try:
        _write_all(file, content)
    except OSError as error:
        raise disk_full_error(error, path) from error


def _write_all(file: FileIO, content: bytes) -> None:
    """Writes all bytes, of which a raw file may accept a part at a time, and forces them to the disk."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Forces the entries of a folder to the disk, if the operating system supports it (Windows does not)."""
    check_held(folder)
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full_error(error: OSError, path: Path) -> OSError:
    """An error with the path and the cure if the disk is full; otherwise ``error`` itself."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    larger = error.errno == errno.EFBIG
    cure = "the file system or `ulimit -f` allows no larger file; raise the limit" if larger else "free some"
    message = f"no space left to write {path}: {cure} and run the same command again, it resumes"
    return OSError(error.errno, message)
