"""Packing of images into a pack; an interrupted packing continues with the next call."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from paretorch.storage import atomic
from paretorch.storage.json_files import write_json
from paretorch.storage.locks import acquire_lock, check_held
from paretorch.storage.regular_files import read_regular
from paretorch.workloads.loading.image_source import ImageSource, SelectedImage, SourceImage, SquareReader
from paretorch.workloads.loading.unreadable import UnreadableError, check_unreadable, shortened
from paretorch.workloads.loading.workers import batch_indices, data_loader
from paretorch.workloads.packs.index import PackEntry, read_entries, read_entry
from paretorch.workloads.packs.pack import Manifest, damaged_error, mapped

CHUNK = 32  # images between two writes to the disk
MOST_LISTED = 10  # names in a message
Progress = Callable[[int, int], None]
Row = NDArray[np.uint8] | str  # the bytes of an image, or why it cannot be read


@dataclass(frozen=True)
class PackResult:
    """The result of packing.

    Args:
        folder: of the pack.
        images: number of selected images.
        added: number of those that this call packed.
        unreadable: reasons by name.
        bytes: of all rows.
    """

    folder: Path
    images: int
    added: int
    unreadable: Mapping[str, str]
    bytes: int


def pack_images(
    source: ImageSource,
    images: Sequence[SourceImage],
    folder: Path,
    wanted: Manifest,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> PackResult:
    """Packs the images that are not packed yet; packed images are unchanged.

    Rows are written to the disk before their lines of the index, and the index before ``pack.json`` counts its lines. After an
    interruption, exactly the images whose rows or lines are incomplete are packed again.

    Args:
        source: image files.
        images: to pack; of an incomplete group the first ones in the order of :func:`~.selection.ordered`.
        folder: of the pack; it is created if it does not exist.
        wanted: the manifest of the pack; its counts are ignored.
        workers: processes that decode; 0: the calling process decodes.
        progress: called with the number of packed images and of all images.

    Raises:
        ValueError: the folder has a damaged pack or one of other data, images changed since they were packed, or more than 1 %
            of the images cannot be read.
        OSError: the disk is full, another process packs into the folder, or the folder was moved or removed meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with acquire_lock(folder / ".lock", f"another process is packing into {folder}: wait for it"):
        manifest, entries = _recover(folder, _open_manifest(folder, wanted))
        done = {entry.name: entry for entry in entries}
        _check_unchanged(source, [image for image in images if image.name in done], folder, manifest, done, workers)
        missing = [image for image in images if image.name not in done or done[image.name].row < 0]
        _check_disk_space(folder, manifest, len(missing))
        added = _append(source, missing, folder, manifest, done, len(images), workers, progress)
        _count(folder, replace(manifest, available=wanted.available, rows=manifest.rows + added))
    names = {image.name for image in images}
    unreadable = {name: entry.reason for name, entry in sorted(done.items()) if entry.row < 0 and name in names}
    return PackResult(folder, len(images), added, unreadable, (manifest.rows + added) * manifest.row_bytes)


def _open_manifest(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest in the folder, checked against ``wanted``; a new one without rows if there is none."""
    if not (folder / "pack.json").exists():
        empty = replace(wanted, lines=0, rows=0, length=0, sha256=sha256(b"").hexdigest())
        for name in ("rows.u8", "index.jsonl"):
            if os.path.lexists(folder / name):
                raise ValueError(
                    f"{folder} has {name} but no pack.json, so it is not known to be a pack. Pack into another folder (--out), "
                    "or remove this one"
                )
        write_json(folder / "pack.json", empty.to_json())
        return empty
    found = Manifest.read(folder)
    for name in ("task", "edge", "masks", "seed"):
        if getattr(found, name) != getattr(wanted, name):
            raise ValueError(
                f"{folder} has another pack: its {name} is {getattr(found, name)!r}, expected {getattr(wanted, name)!r}. Pack "
                "into another folder (--out), or remove this one"
            )
    if found.fingerprint != wanted.fingerprint:
        raise outdated_error(folder, found.fingerprint, wanted.fingerprint)
    return found


def outdated_error(folder: Path, packed: Mapping[str, str], current: Mapping[str, str]) -> ValueError:
    """The error for a pack of data whose fingerprint has changed since."""
    names = {*packed, *current}
    return _outdated(folder, sorted(name for name in names if packed.get(name) != current.get(name)))


def _outdated(folder: Path, changed: Sequence[str]) -> ValueError:
    return ValueError(
        f"{folder} is out of date: {shortened(changed, MOST_LISTED)} changed since it was packed. Remove the folder {folder} and "
        "run `paretorch data pack` again"
    )


def _recover(folder: Path, manifest: Manifest) -> tuple[Manifest, list[PackEntry]]:
    """Keeps the complete rows and lines of an interrupted packing and truncates the files after them."""
    path, rows = folder / "index.jsonl", folder / "rows.u8"
    content = read_regular(path) if path.exists() else b""
    valid = content[: manifest.length]
    if sha256(valid).hexdigest() != manifest.sha256:
        raise damaged_error(path, "its content differs from what was written")
    size = rows.stat().st_size if rows.exists() else 0
    if size < manifest.rows * manifest.row_bytes:
        raise damaged_error(rows, f"expected {manifest.rows * manifest.row_bytes:,} bytes, got {size:,}")
    end, count = manifest.length, manifest.rows
    try:
        entries = read_entries(valid)
    except ValueError as error:
        raise damaged_error(path, str(error)) from None
    stored = mapped(folder, replace(manifest, rows=size // manifest.row_bytes))
    for line in content[manifest.length :].splitlines(keepends=True):
        try:
            entry = read_entry(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or entry.row >= len(stored):
            break
        if entry.row >= 0 and (entry.row != count or zlib.crc32(stored[entry.row]) != entry.crc):
            break
        entries.append(entry)
        end, count = end + len(line), count + (entry.row >= 0)
    del stored  # closes the mapping before the file is truncated
    for file, length in ((path, end), (rows, count * manifest.row_bytes)):
        with atomic.open_to_append(file) as handle:
            handle.truncate(length)
    return replace(manifest, rows=count), entries


def _check_unchanged(
    source: ImageSource,
    packed: Sequence[SourceImage],
    folder: Path,
    manifest: Manifest,
    done: Mapping[str, PackEntry],
    workers: int,
) -> None:
    """Checks that packed images have not changed; only files that are newer than the manifest are read again."""
    written = (folder / "pack.json").stat().st_mtime_ns
    newer = [image for image in packed if done[image.name].row >= 0 and _newer(source.file(image.name), written)]
    changed = [
        image.name
        for chunk in _rows(source, newer, manifest.edge, workers)
        for image, row in chunk
        if isinstance(row, str) or zlib.crc32(row.data) != done[image.name].crc
    ]
    if changed:
        raise _outdated(folder, changed)


def _newer(file: Path, moment: int) -> bool:
    """Whether a file was written or moved at ``moment`` or later; True if its times cannot be read."""
    try:
        found = file.stat()
    except OSError:
        return True
    return max(found.st_mtime_ns, found.st_ctime_ns) >= moment


def _append(
    source: ImageSource,
    missing: Sequence[SourceImage],
    folder: Path,
    manifest: Manifest,
    done: dict[str, PackEntry],
    total: int,
    workers: int,
    progress: Progress | None,
) -> int:
    """Packs ``missing``, adds their entries to ``done``, and returns the number of new rows."""
    failed: dict[str, str] = {}
    row, images_done = manifest.rows, total - len(missing)
    if progress is not None:
        progress(images_done, total)
    with atomic.open_to_append(folder / "rows.u8") as rows, atomic.open_to_append(folder / "index.jsonl") as index:
        for chunk in _rows(source, missing, manifest.edge, workers):
            entries, contents = [], []
            for image, content in chunk:
                if isinstance(content, str):
                    failed[image.name] = content
                    if image.name in done and done[image.name].reason == content:
                        continue
                    entry = PackEntry(image.folder, image.group, image.name, -1, reason=content)
                else:
                    entry = PackEntry(image.folder, image.group, image.name, row, zlib.crc32(content.data))
                    contents.append(content.tobytes())
                    row += 1
                entries.append(entry)
            check_held(folder)
            atomic.append(rows, b"".join(contents))
            lines = "".join(json.dumps(astuple(entry), separators=(",", ":")) + "\n" for entry in entries)
            atomic.append(index, lines.encode())
            done.update((entry.name, entry) for entry in entries)
            check_unreadable(str(folder), failed, total, ", and run the same command again, which continues")
            images_done += len(chunk)
            if progress is not None:
                progress(images_done, total)
    return row - manifest.rows


def _rows(
    source: ImageSource, images: Sequence[SourceImage], edge: int, workers: int
) -> Iterator[list[tuple[SourceImage, Row]]]:
    """The images with their rows, in chunks."""
    chunks = batch_indices(len(images), CHUNK, order=None)
    dataset = RowDataset(source.reader([SelectedImage(image.name) for image in images], edge))
    for chunk, rows in zip(chunks, data_loader(dataset, chunks, workers), strict=True):
        yield [(images[index], row) for index, row in zip(chunk, rows, strict=True)]


@dataclass(frozen=True)
class RowDataset(Dataset[list[Row]]):
    """Rows by lists of indices."""

    reader: SquareReader

    def __getitem__(self, indices: list[int]) -> list[Row]:
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Row:
        try:
            image, label = self.reader.read(index)
        except UnreadableError as error:
            return error.reason
        parts = [image.numpy().ravel(), label.numpy().ravel()] if label.ndim else [image.numpy().ravel()]
        return np.concatenate(parts)


def _count(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest with the counts of the whole index."""
    content = (folder / "index.jsonl").read_bytes()
    counted = replace(manifest, lines=content.count(b"\n"), length=len(content), sha256=sha256(content).hexdigest())
    write_json(folder / "pack.json", counted.to_json())


def _check_disk_space(folder: Path, manifest: Manifest, images: int) -> None:
    needed, free = images * manifest.row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{images:,} images of {manifest.edge} x {manifest.edge} pixels need {_size(needed)}, {folder} has {_size(free)} "
            "free: pack fewer images ('imagenet_coco(classes=..., train=...)'), smaller ones (size=...), or into another "
            "folder (--out)",
        )


def _size(count: int) -> str:
    """A number of bytes in the largest unit that it reaches.

    Example:
        >>> _size(0), _size(40_500), _size(7_200_000), _size(2_400_000_000_000)
        ('0 bytes', '40.5 kB', '7.2 MB', '2,400.0 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} bytes"
