"""Packs images so that training waits neither for JPEGs nor for polygons; may be killed at any instant and goes on."""

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
from paretorch.storage.locks import acquire_lock
from paretorch.workloads.formats.pictures import UnreadableError
from paretorch.workloads.packs.index import Line, read_lines
from paretorch.workloads.packs.pack import Manifest, damaged, mapped
from paretorch.workloads.reading.source import Item, Place, Reader, Source
from paretorch.workloads.reading.workers import loader

CHUNK = 32  # images between two writes to the disk
BEARABLE = 0.01  # the share of images that may be unreadable
SHOWN = 10  # names in a message
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Packed:
    """What packing came to.

    Args:
        folder: the pack's.
        images: asked for.
        added: of them, packed now; the others were packed before.
        unreadable: reason by name.
        bytes: of all rows.
    """

    folder: Path
    images: int
    added: int
    unreadable: Mapping[str, str]
    bytes: int


def pack(
    source: Source,
    places: Sequence[Place],
    folder: Path,
    wanted: Manifest,
    *,
    workers: int = 0,
    tell: Tell | None = None,
) -> Packed:
    """Packs the images that are not packed yet; those that are stay as they are.

    Rows are on the disk before the index names them, and the index before ``pack.json`` counts its lines, so that
    whatever was cut off is packed again and nothing else is.

    Args:
        source: image files.
        places: the images; of an incomplete group the first by rank, see :func:`~.selection.ranked`.
        folder: the pack's; made if it is not there.
        wanted: what the pack is to be; its counts are not looked at.
        workers: processes that decode; 0 decodes in this one.
        tell: called with the images packed and the images asked for.

    Raises:
        ValueError: the folder holds a pack of something else, or a damaged one, or images that changed since, or more than
            1 % of the images cannot be read.
        OSError: the disk is full, or another process packs here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = acquire_lock(folder / ".lock", f"another process is packing into {folder}: wait for it")
    try:
        manifest = _begun(folder, wanted)
        manifest, lines = _recovered(folder, manifest)
        done = {line.name: line for line in lines}
        _check_images(source, [place for place in places if place.name in done], folder, manifest, done, workers)
        missing = [place for place in places if place.name not in done or done[place.name].row < 0]
        _check_room(folder, manifest, len(missing))
        added = _append(source, missing, folder, manifest, done, len(places), workers, tell)
        _finish(folder, replace(manifest, available=wanted.available, rows=manifest.rows + added))
    finally:
        lock.release()
    asked = {place.name for place in places}
    unreadable = {name: line.reason for name, line in sorted(done.items()) if line.row < 0 and name in asked}
    return Packed(folder, len(places), added, unreadable, (manifest.rows + added) * manifest.row_bytes)


def _begun(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest that is there, if it is of the same kind; else a new one, of no rows."""
    if not (folder / "pack.json").exists():
        fresh = replace(wanted, lines=0, rows=0, length=0, sha256=sha256(b"").hexdigest())
        for name in ("rows.u8", "index.jsonl"):
            if os.path.lexists(folder / name):
                raise ValueError(
                    f"{folder} holds {name} but no pack.json, so nothing says that it belongs to a pack. Pack into another "
                    "folder (--out), or remove this one"
                )
        atomic.write(folder / "pack.json", fresh.to_json())
        return fresh
    there = Manifest.read(folder)
    for name in ("task", "edge", "masks", "seed"):
        if getattr(there, name) != getattr(wanted, name):
            raise ValueError(
                f"{folder} holds another pack: its {name} is {getattr(there, name)!r}, asked for is "
                f"{getattr(wanted, name)!r}. Pack into another folder (--out), or remove this one"
            )
    if there.fingerprint != wanted.fingerprint:
        raise stale(folder, there.fingerprint, wanted.fingerprint)
    return there


def stale(folder: Path, there: Mapping[str, str], now: Mapping[str, str]) -> ValueError:
    """The error for a pack of data that have changed since."""
    return _out_of_date(folder, sorted(name for name in {*there, *now} if there.get(name) != now.get(name)))


def _out_of_date(folder: Path, changed: Sequence[str]) -> ValueError:
    more = f" and {len(changed) - SHOWN:,} more" * (len(changed) > SHOWN)
    return ValueError(
        f"{folder} is out of date: {', '.join(changed[:SHOWN])}{more} changed since it was packed. Remove the folder {folder} "
        "and run `paretorch data pack` again"
    )


def _recovered(folder: Path, manifest: Manifest) -> tuple[Manifest, list[Line]]:
    """Takes over what an interrupted packing had written, as far as it is whole, and cuts off the rest."""
    path, rows = folder / "index.jsonl", folder / "rows.u8"
    content = path.read_bytes() if path.exists() else b""
    valid = content[: manifest.length]
    if sha256(valid).hexdigest() != manifest.sha256:
        raise damaged(path, "its content is not what was written")
    size = rows.stat().st_size if rows.exists() else 0
    if size < manifest.rows * manifest.row_bytes:
        raise damaged(rows, f"expected {manifest.rows * manifest.row_bytes:,} bytes, got {size:,}")
    lines, end, count = read_lines(valid), manifest.length, manifest.rows
    present = mapped(folder, replace(manifest, rows=size // manifest.row_bytes))
    for text in content[manifest.length :].splitlines(keepends=True):
        try:
            line = Line(*json.loads(text))
        except (ValueError, TypeError):
            break
        if not text.endswith(b"\n") or line.row >= len(present):
            break
        if line.row >= 0 and (line.row != count or zlib.crc32(present[line.row]) != line.crc):
            break
        lines.append(line)
        end, count = end + len(text), count + (line.row >= 0)
    del present
    for file, length in ((path, end), (rows, count * manifest.row_bytes)):
        with atomic.open_to_append(file) as handle:
            handle.truncate(length)
    return replace(manifest, rows=count), lines


def _check_images(
    source: Source,
    packed: Sequence[Place],
    folder: Path,
    manifest: Manifest,
    done: Mapping[str, Line],
    workers: int,
) -> None:
    """Fails where packed images have changed; only files that are younger than the manifest are read again."""
    began = (folder / "pack.json").stat().st_mtime_ns
    young = [place for place in packed if done[place.name].row >= 0 and _younger(source.file(place.name), began)]
    changed = []
    for chunk, read in _squares(source, young, manifest.edge, workers):
        for place, square in zip(chunk, read, strict=True):
            if isinstance(square, str) or zlib.crc32(square.data) != done[place.name].crc:
                changed.append(place.name)
    if changed:
        raise _out_of_date(folder, changed)


def _younger(file: Path, moment: int) -> bool:
    """Whether a file was written, or put where it is, at ``moment`` or later; also where it cannot be asked."""
    try:
        found = file.stat()
    except OSError:
        return True
    return max(found.st_mtime_ns, found.st_ctime_ns) >= moment


def _append(
    source: Source,
    missing: Sequence[Place],
    folder: Path,
    manifest: Manifest,
    done: dict[str, Line],
    total: int,
    workers: int,
    tell: Tell | None,
) -> int:
    """Packs ``missing``, enters them into ``done``, and returns how many could be read."""
    failed: dict[str, str] = {}
    row, read_so_far = manifest.rows, total - len(missing)
    if tell is not None:
        tell(read_so_far, total)
    with atomic.open_to_append(folder / "rows.u8") as rows, atomic.open_to_append(folder / "index.jsonl") as index:
        for chunk, read in _squares(source, missing, manifest.edge, workers):
            lines, squares = [], []
            for place, square in zip(chunk, read, strict=True):
                if isinstance(square, str):
                    failed[place.name] = square
                    if place.name in done and done[place.name].reason == square:
                        continue
                    line = Line(place.folder, place.group, place.name, -1, reason=square)
                else:
                    line = Line(place.folder, place.group, place.name, row, zlib.crc32(square.data))
                    squares.append(square.tobytes())
                    row += 1
                lines.append(line)
            atomic.append(rows, b"".join(squares))
            text = "".join(json.dumps(astuple(line), separators=(",", ":")) + "\n" for line in lines)
            atomic.append(index, text.encode())
            done.update((line.name, line) for line in lines)
            if len(failed) > BEARABLE * total:
                raise ValueError(_too_many(folder, failed, total))
            read_so_far += len(chunk)
            if tell is not None:
                tell(read_so_far, total)
    return row - manifest.rows


def _squares(
    source: Source, places: Sequence[Place], edge: int, workers: int
) -> Iterator[tuple[Sequence[Place], list[NDArray[np.uint8] | str]]]:
    """The rows of the images, or why there are none, a few images at a time."""
    chunks = [range(start, min(start + CHUNK, len(places))) for start in range(0, len(places), CHUNK)]
    squares = Squares(source.reader([Item(place.name) for place in places], edge))
    for chunk, read in zip(chunks, loader(squares, [list(chunk) for chunk in chunks], workers), strict=True):
        yield places[chunk.start : chunk.stop], read


@dataclass(frozen=True)
class Squares(Dataset[list["NDArray[np.uint8] | str"]]):
    """Rows, or the reasons why there are none."""

    reader: Reader

    def __getitem__(self, places: list[int]) -> list[NDArray[np.uint8] | str]:
        rows: list[NDArray[np.uint8] | str] = []
        for place in places:
            try:
                image, label = self.reader.read(place)
            except UnreadableError as error:
                rows.append(error.reason)
                continue
            parts = [image.numpy().ravel(), label.numpy().ravel()] if label.ndim else [image.numpy().ravel()]
            rows.append(np.concatenate(parts))
        return rows


def _finish(folder: Path, manifest: Manifest) -> None:
    content = (folder / "index.jsonl").read_bytes()
    counted = replace(manifest, lines=content.count(b"\n"), length=len(content), sha256=sha256(content).hexdigest())
    atomic.write(folder / "pack.json", counted.to_json())


def _check_room(folder: Path, manifest: Manifest, images: int) -> None:
    needed, free = images * manifest.row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{images:,} images of {manifest.edge} x {manifest.edge} pixels need {_amount(needed)}, {folder} has "
            f"{_amount(free)} free: pack fewer images ('imagenet_coco(classes=..., train=...)'), smaller ones (size=...), "
            "or elsewhere (--out)",
        )


def _amount(size: int) -> str:
    """Bytes in a unit that leaves digits before the point.

    Example:
        >>> _amount(0), _amount(40_500), _amount(7_200_000), _amount(2_400_000_000_000)
        ('0 bytes', '40.5 kB', '7.2 MB', '2,400.0 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"


def _too_many(folder: Path, failed: Mapping[str, str], total: int) -> str:
    shown = "\n".join(f"  {name}: {reason}" for name, reason in list(failed.items())[:10])
    return (
        f"{folder}: {len(failed)} of {total:,} images cannot be read, more than 1 %:\n{shown}\n"
        "Put these files back, or take them out of the data set, and run the same command again: it goes on"
    )
