"""A pack: stored squares of a data set as bytes in one memory-mapped file.

A pack is a folder of three files.

- ``rows.u8``: for each image a row of E * E * 3 bytes and, if labels are masks, E * E bytes of the mask.
- ``index.jsonl``: for each image a line with its folder, group and name, and its row and the row's checksum, or the reason
  why it could not be read.
- ``pack.json``: the numbers of valid lines and rows, the index's checksum, and the source. Lines after the valid ones were
  written by an interrupted packing and are ignored.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paretorch.storage.damage import WRONG
from paretorch.storage.json_files import read_json
from paretorch.storage.regular_files import IrregularFileError, open_regular, read_exactly
from paretorch.storage.seals import json_digest
from paretorch.storage.value_types import typed
from paretorch.workloads.loading.image_source import SelectedImage, StoredSquare
from paretorch.workloads.loading.image_splits import NotPackedError
from paretorch.workloads.loading.unreadable import DamagedError, UnreadableError
from paretorch.workloads.packs.index import PackEntry, read_entries

FORMAT = "paretorch pack 2"
UNSEALED = "paretorch pack 1"  # of earlier versions: without a digest of the manifest
DIGEST = "digest"  # the key of the digest of all other values of the manifest
LARGEST = 1 << 40  # of a count


@dataclass(frozen=True)
class Manifest:
    """The content of ``pack.json``.

    Args:
        task: of the labels.
        edge: E, pixels along one side.
        masks: whether the labels are masks.
        seed: of the order by which the images of an incomplete group were selected.
        available: number of images of the source, by folder and group.
        fingerprint: of the source.
        lines: valid lines of the index.
        rows: valid rows.
        length: bytes of the valid lines.
        sha256: digest of the valid lines.
    """

    task: str
    edge: int
    masks: bool
    seed: int
    available: Mapping[str, Mapping[str, int]]
    fingerprint: Mapping[str, str]
    lines: int = 0
    rows: int = 0
    length: int = 0
    sha256: str = sha256(b"").hexdigest()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.edge * self.edge * (4 if self.masks else 3)

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        content = {"format": FORMAT} | vars(self)
        return content | {DIGEST: json_digest(content)}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the pack in ``folder``.

        Raises:
            DamagedError: the file is missing, no regular file, damaged, or not of this format.
            OSError: it cannot be read.
        """
        path = folder / "pack.json"
        try:
            values = read_json(path)
            digest = values.pop(DIGEST, None)
            if values["format"] not in (FORMAT, UNSEALED):
                raise damaged_error(path, f"expected the format {FORMAT!r}")
            if (values["format"] == FORMAT or digest is not None) and digest != json_digest(values):
                raise damaged_error(path, "its content differs from what was written")
            del values["format"]
            found: Manifest = typed(values, cls)
            if found.edge < 1 or min(found.lines, found.rows, found.length) < 0:
                raise damaged_error(path, "a count is below zero")
            if max(found.edge, found.lines, found.rows, found.length) > LARGEST:
                raise damaged_error(path, f"a count is above {LARGEST:,}")
            return found
        except DamagedError:
            raise
        except (FileNotFoundError, IrregularFileError, *WRONG) as error:
            raise damaged_error(path, str(error) or type(error).__name__) from None


def damaged_error(path: Path, reason: str) -> DamagedError:
    """The error for a pack whose content differs from what was written."""
    folder = path if path.is_dir() else path.parent
    return DamagedError(
        f"{path} is damaged or was changed: {reason}. Remove the folder {folder} and run `paretorch data pack` again, or train "
        "with source='files'"
    )


@dataclass(frozen=True)
class Pack:
    """A pack on disk, as a source of images.

    Args:
        folder: of the pack.
        manifest: of the pack.

    Raises:
        DamagedError: a file is missing, too short, or differs from what was written.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """The pack in ``folder``, with its index checked; rows are checked when they are read."""
        found = cls(folder, Manifest.read(folder))
        rows = folder / "rows.u8"
        expected = found.manifest.rows * found.manifest.row_bytes
        size = rows.stat().st_size if rows.is_file() else 0
        if size < expected:
            raise damaged_error(rows, f"expected {expected:,} bytes, got {size:,}")
        found.entries  # noqa: B018 - reads and checks the index
        return found

    @cached_property
    def entries(self) -> dict[str, PackEntry]:
        """The valid entries, by the image's name."""
        path = self.folder / "index.jsonl"
        content = b""
        if path.is_file():
            with open_regular(path) as file:
                content = bytes(read_exactly(file, self.manifest.length))
        if sha256(content).hexdigest() != self.manifest.sha256:
            raise damaged_error(path, "its content differs from what was written")
        try:
            entries = read_entries(content)
        except ValueError as error:
            raise damaged_error(path, str(error)) from None
        if beyond := next((entry for entry in entries if entry.row >= self.manifest.rows), None):
            raise damaged_error(path, f"it has row {beyond.row} for {beyond.name}, there are {self.manifest.rows}")
        return {entry.name: entry for entry in entries}

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def has_validation(self) -> bool:
        """Whether the source had a folder ``val``."""
        return bool(self.manifest.available.get("val"))

    def available(self, folder: str) -> Mapping[str, int]:
        """Number of images of the source, which decides the number to select from each group."""
        return self.manifest.available.get(folder, {})

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images that are packed."""
        return self._groups.get((folder, group), [])

    def check_seed(self, seed: int) -> None:
        """Checks that a selection with ``seed`` is the same as from the source.

        Raises:
            NotPackedError: only a part of the images is packed, selected with another seed.
        """
        if seed == self.manifest.seed:
            return
        for folder, groups in self.manifest.available.items():
            for group, count in groups.items():
                if 0 < len(self.names(folder, group)) < count:
                    raise NotPackedError(
                        f"{self.folder} has images that were selected with data_seed={self.manifest.seed}"
                    )

    def file(self, name: str) -> Path:
        """The file of all rows."""
        del name
        return self.folder / "rows.u8"

    def fingerprint(self) -> Mapping[str, str]:
        """The fingerprint of the source when it was packed."""
        return self.manifest.fingerprint

    def reader(self, items: Sequence[SelectedImage], edge: int) -> PackReader:
        """A reader of the selected rows."""
        if edge != self.manifest.edge:
            raise ValueError(f"{self.folder} has squares of {self.manifest.edge} pixels, expected {edge}")
        entries = [self.entries[item.name] for item in items]
        rows = np.array([(entry.row, entry.crc) for entry in entries], dtype=np.int64).reshape(-1, 2)
        reasons = {index: entry.reason for index, entry in enumerate(entries) if entry.row < 0}
        return PackReader(self.folder, tuple(items), self.manifest, rows, reasons)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """The names of images whose rows differ from what was written.

        Args:
            progress: called with the rows checked and the number of rows.
        """
        entries = [entry for entry in self.entries.values() if entry.row >= 0]
        rows, broken = mapped(self.folder, self.manifest), []
        for done, entry in enumerate(entries, start=1):
            if zlib.crc32(rows[entry.row]) != entry.crc:
                broken.append(entry.name)
            if progress is not None and (done % 256 == 0 or done == len(entries)):
                progress(done, len(entries))
        return broken

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[str]]:
        groups: dict[tuple[str, str], list[str]] = {}
        for entry in self.entries.values():
            groups.setdefault((entry.folder, entry.group), []).append(entry.name)
        return groups


def mapped(folder: Path, manifest: Manifest) -> NDArray[np.uint8]:
    """(rows, bytes) of a pack, memory-mapped copy-on-write."""
    shape = (manifest.rows, manifest.row_bytes)
    if not manifest.rows:
        return np.empty(shape, np.uint8)
    return np.memmap(folder / "rows.u8", np.uint8, mode="c", shape=shape)


@dataclass(frozen=True, eq=False)
class PackReader:
    """A reader of rows that verifies their checksums.

    Args:
        folder: of the pack.
        items: the selection.
        manifest: of the pack.
        rows: (n, 2) row and checksum of each item.
        reasons: of the items that could not be read when they were packed, by index.
    """

    folder: Path
    items: tuple[SelectedImage, ...]
    manifest: Manifest
    rows: NDArray[np.int64]
    reasons: Mapping[int, str]
    kind: str = "pack"

    def read(self, index: int) -> StoredSquare:
        """One square and its label."""
        item = self.items[index]
        if index in self.reasons:
            raise UnreadableError(item.name, self.reasons[index])
        row, crc = self.rows[index].tolist()
        content = self._mapped[row]
        if zlib.crc32(content) != crc:
            raise damaged_error(self.folder / "rows.u8", f"the row of {item.name} differs from what was written")
        edge = self.manifest.edge
        pixels = edge * edge * 3
        image = torch.from_numpy(content[:pixels]).view(edge, edge, 3)
        if not self.manifest.masks:
            return image, torch.tensor(item.label)
        return image, torch.from_numpy(content[pixels:]).view(edge, edge)

    def __getstate__(self) -> dict[str, Any]:
        # without the mapping, which another process makes itself
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        return mapped(self.folder, self.manifest)
