"""The entries of a pack's index, one for each image. See :mod:`~paretorch.workloads.packs.pack`."""

from __future__ import annotations

from dataclasses import dataclass

from paretorch.storage.json_files import parse_json

TYPES = [str, str, str, int, int, str]  # of the values in a line


@dataclass(frozen=True)
class PackEntry:
    """One image of a pack.

    Args:
        folder: ``train`` or ``val``.
        group: its class; empty if all images are one group.
        name: as in the source.
        row: -1 if it could not be read.
        crc: CRC-32 of the row.
        reason: why it could not be read.
    """

    folder: str
    group: str
    name: str
    row: int
    crc: int = 0
    reason: str = ""


def read_entries(content: bytes) -> list[PackEntry]:
    """The entries of an index.

    Raises:
        ValueError: a line is not an entry.
    """
    return [read_entry(line) for line in content.splitlines()]


def read_entry(line: bytes) -> PackEntry:
    """The entry in a line.

    Raises:
        ValueError: it is not an entry.
    """
    values = parse_json(line)
    if not isinstance(values, list) or [type(value) for value in values] != TYPES:
        raise ValueError(f"expected a folder, group, name, row, checksum and reason, got {values!r}"[:200])
    entry = PackEntry(*values)
    if not (-1 <= entry.row < 1 << 48 and 0 <= entry.crc < 1 << 32):
        raise ValueError(f"expected a row and a checksum of 32 bits, got {entry.row} and {entry.crc}"[:200])
    return entry
