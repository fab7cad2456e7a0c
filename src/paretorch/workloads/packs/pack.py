"""A pack: the stored squares of a data set as bytes in one file, mapped into memory.

A pack is a folder of three files.

- ``rows.u8``: row after row of E * E * 3 bytes of an image and, where the label is a mask, E * E bytes of it.
- ``index.jsonl``: a line for each image: its folder, group and name, and its row and the row's checksum, or why it could
  not be read.
- ``pack.json``: how many lines and rows are valid, the index's checksum, and what the images were chosen from. What lies
  beyond the valid lines belongs to a packing that was interrupted, and is not looked at.
"""

from __future__ import annotations

import json
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

from paretorch.storage.regular_files import open_regular, read_exactly, read_regular
from paretorch.workloads.formats.pictures import UnreadableError
from paretorch.workloads.packs.index import Line, read_lines
from paretorch.workloads.reading.source import DamagedError, Example, Item
from paretorch.workloads.reading.splitting import NotPackedError

FORMAT = "paretorch pack 1"


@dataclass(frozen=True)
class Manifest:
    """The content of ``pack.json``.

    Args:
        task: what the labels are for.
        edge: E, pixels along one side.
        masks: whether the labels are masks.
        seed: of the ranking by which the images of an incomplete group were chosen.
        available: images that the source had, by folder and group.
        fingerprint: of the source.
        lines: valid lines of the index.
        rows: valid rows.
        length: bytes of the valid lines.
        sha256: their digest.
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

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps({"format": FORMAT} | vars(self), indent=1).encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the pack in ``folder``.

        Raises:
            DamagedError: the file cannot be read, or is not of this format.
        """
        path = folder / "pack.json"
        try:
            values = json.loads(read_regular(path))
            if values.pop("format") != FORMAT:
                raise damaged(path, f"expected the format {FORMAT!r}")
            found = cls(**values)
            if any(type(getattr(found, name)) is not int for name in ("edge", "seed", "lines", "rows", "length")):
                raise damaged(path, "a count is not a number")
            if found.edge < 1 or min(found.lines, found.rows, found.length) < 0:
                raise damaged(path, "a count is below zero")
            return found
        except DamagedError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise damaged(path, str(error) or type(error).__name__) from None


def damaged(path: Path, reason: str) -> DamagedError:
    """The error for a pack that is not what was written."""
    folder = path if path.is_dir() else path.parent
    return DamagedError(
        f"{path} is damaged or was changed: {reason}. Remove the folder {folder} and run `paretorch data pack` again, or train "
        "with source='files'"
    )


@dataclass(frozen=True)
class Pack:
    """A pack on disk, as a source of images.

    Args:
        folder: where it lies.
        manifest: of it.

    Raises:
        DamagedError: a file is missing, too short, or not what was written.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """The pack in ``folder``, its index checked; rows are checked when they are read."""
        found = cls(folder, Manifest.read(folder))
        rows = folder / "rows.u8"
        expected = found.manifest.rows * found.manifest.row_bytes
        size = rows.stat().st_size if rows.is_file() else 0
        if size < expected:
            raise damaged(rows, f"expected {expected:,} bytes, got {size:,}")
        assert len(found.lines) >= 0
        return found

    @cached_property
    def lines(self) -> dict[str, Line]:
        """The valid lines, by the image's name."""
        path = self.folder / "index.jsonl"
        content = b""
        if path.is_file():
            with open_regular(path) as file:
                content = bytes(read_exactly(file, self.manifest.length))
        if sha256(content).hexdigest() != self.manifest.sha256:
            raise damaged(path, "its content is not what was written")
        try:
            lines = read_lines(content)
        except ValueError as error:
            raise damaged(path, str(error)) from None
        if far := next((line for line in lines if line.row >= self.manifest.rows), None):
            raise damaged(path, f"it names the row {far.row} of {far.name}, there are {self.manifest.rows}")
        return {line.name: line for line in lines}

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def has_validation(self) -> bool:
        """Whether the source had a folder ``val``."""
        return bool(self.manifest.available.get("val"))

    def available(self, folder: str) -> Mapping[str, int]:
        """How many images the source had, which decides how many of each group are chosen."""
        return self.manifest.available.get(folder, {})

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images that are packed."""
        return self._groups.get((folder, group), [])

    def check_seed(self, seed: int) -> None:
        """Checks that images chosen with ``seed`` are those that the source would give.

        Raises:
            NotPackedError: only a part of the images is packed, and it was chosen with another seed.
        """
        if seed == self.manifest.seed:
            return
        for folder, groups in self.manifest.available.items():
            for group, count in groups.items():
                if 0 < len(self.names(folder, group)) < count:
                    raise NotPackedError(f"{self.folder} holds images that data_seed={self.manifest.seed} chose")

    def file(self, name: str) -> Path:
        """All rows are in one."""
        del name
        return self.folder / "rows.u8"

    def fingerprint(self) -> Mapping[str, str]:
        """The source's, when it was packed."""
        return self.manifest.fingerprint

    def reader(self, items: Sequence[Item], edge: int) -> PackReader:
        """What reads the rows."""
        if edge != self.manifest.edge:
            raise ValueError(f"{self.folder} holds squares of {self.manifest.edge} pixels, asked for are {edge}")
        lines = [self.lines[item.name] for item in items]
        rows = np.array([(line.row, line.crc) for line in lines], dtype=np.int64).reshape(-1, 2)
        reasons = {index: line.reason for index, line in enumerate(lines) if line.row < 0}
        return PackReader(self.folder, tuple(items), self.manifest, rows, reasons)

    def verify(self, tell: Callable[[int, int], None] | None = None) -> list[str]:
        """The names of images whose rows are not what was written.

        Args:
            tell: called with the rows checked and the rows there are.
        """
        lines = [line for line in self.lines.values() if line.row >= 0]
        rows, broken = mapped(self.folder, self.manifest), []
        for done, line in enumerate(lines, start=1):
            if zlib.crc32(rows[line.row]) != line.crc:
                broken.append(line.name)
            if tell is not None and (done % 256 == 0 or done == len(lines)):
                tell(done, len(lines))
        return broken

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[str]]:
        groups: dict[tuple[str, str], list[str]] = {}
        for line in self.lines.values():
            groups.setdefault((line.folder, line.group), []).append(line.name)
        return groups


def mapped(folder: Path, manifest: Manifest) -> NDArray[np.uint8]:
    """(rows, bytes) of a pack, mapped: changes to the array stay in memory."""
    shape = (manifest.rows, manifest.row_bytes)
    if not manifest.rows:
        return np.empty(shape, np.uint8)
    return np.memmap(folder / "rows.u8", np.uint8, mode="c", shape=shape)


@dataclass(frozen=True, eq=False)
class PackReader:
    """Reads rows, each against its checksum.

    Args:
        folder: the pack's.
        items: the selection.
        manifest: the pack's.
        rows: (n, 2) row and checksum of each item.
        reasons: of the items that could not be read when they were packed, by place.
    """

    folder: Path
    items: tuple[Item, ...]
    manifest: Manifest
    rows: NDArray[np.int64]
    reasons: Mapping[int, str]
    kind: str = "pack"

    def read(self, index: int) -> Example:
        """One square and its label."""
        item = self.items[index]
        if index in self.reasons:
            raise UnreadableError(item.name, self.reasons[index])
        row, crc = self.rows[index].tolist()
        content = self._mapped[row]
        if zlib.crc32(content) != crc:
            raise damaged(self.folder / "rows.u8", f"the row of {item.name} is not what was written")
        edge = self.manifest.edge
        pixels = edge * edge * 3
        image = torch.from_numpy(content[:pixels]).view(edge, edge, 3)
        if not self.manifest.masks:
            return image, torch.tensor(item.label)
        return image, torch.from_numpy(content[pixels:]).view(edge, edge)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # the mapping is made anew elsewhere

    @cached_property
    def _mapped(self) -> NDArray[np.uint8]:
        return mapped(self.folder, self.manifest)
