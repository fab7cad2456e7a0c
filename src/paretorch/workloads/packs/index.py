"""The entries of a pack's index, one for each image. See :mod:`~paretorch.workloads.packs.pack`."""

from __future__ import annotations

import json
from dataclasses import dataclass


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
    try:
        entries = [PackEntry(*json.loads(line)) for line in content.splitlines()]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    for entry in entries:
        if type(entry.row) is not int or type(entry.crc) is not int or not isinstance(entry.name, str):
            raise ValueError(f"expected a name, a row and a checksum, got {list(vars(entry).values())}"[:200])
    return entries
