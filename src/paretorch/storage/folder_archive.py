"""A folder as one archive at a URL, of any file system that fsspec opens.

An archive is replaced as a whole, so that a process that is killed while it writes leaves the previous one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

from paretorch.extras import extra
from paretorch.storage.damage import BROKEN_ARCHIVE

LEFT_OUT = (".lock",)  # files that belong to a process


def upload(folder: Path, url: str) -> None:
    """Replaces the archive by one of all files in a folder.

    Raises:
        OSError: the URL cannot be written.
    """
    system, path = _opened(url)
    writing = f"{path}.{uuid.uuid4().hex}.writing"
    with tempfile.TemporaryDirectory(prefix="paretorch-") as scratch:
        archive = Path(scratch) / "folder.zip"
        with zipfile.ZipFile(archive, "w") as file:  # tensors cannot be compressed
            for each in sorted(folder.rglob("*")):
                if each.is_file() and each.name not in LEFT_OUT:
                    file.write(each, each.relative_to(folder))
        system.makedirs(system._parent(path), exist_ok=True)
        system.put_file(str(archive), writing)
    system.mv(writing, path)


def download(url: str, folder: Path) -> bool:
    """Replaces a folder by the files of an archive; returns False, and changes nothing, if there is no archive.

    Raises:
        OSError: the URL cannot be read.
        ValueError: it is no archive.
    """
    system, path = _opened(url)
    if not system.exists(path):
        return False
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        archive = partial / "folder.zip"
        system.get_file(path, str(archive))
        with zipfile.ZipFile(archive) as file:  # which writes nothing outside the folder
            file.extractall(partial)
        archive.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except BROKEN_ARCHIVE as error:
        raise ValueError(f"{url} is damaged: {error}. Remove it, and the same command trains the run again") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def check_writable(url: str) -> None:
    """Checks that files can be written and removed below a URL.

    Raises:
        ValueError: they cannot; the message has the reason.
    """
    try:
        system, path = _opened(url)
        probe = f"{path.rstrip('/')}/.{uuid.uuid4().hex}"
        system.makedirs(path, exist_ok=True)
        system.pipe_file(probe, b"")
        system.rm_file(probe)
    except Exception as error:  # every file system has its own errors
        raise ValueError(
            f"the storage {url} cannot be written: {type(error).__name__}: {error}. Give an fsspec URL such as s3://bucket/runs, "
            "and install the package of its file system and its credentials on every node"
        ) from error


def _opened(url: str) -> tuple[Any, str]:
    with extra("ray"):
        from fsspec.core import url_to_fs
    system, path = url_to_fs(url)
    return system, path
