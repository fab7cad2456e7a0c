"""The lines of a pack's index, one for each image. See :mod:`~paretorch.workloads.packs.pack`."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One image of a pack.

    Args:
        folder: ``train`` or ``val``.
        group: its class; empty where there are none.
        name: as the source calls it.
        row: -1 where it could not be read.
        crc: CRC-32 of the row.
        reason: why it could not be read.
    """

    folder: str
    group: str
    name: str
    row: int
    crc: int = 0
    reason: str = ""


def read_lines(content: bytes) -> list[Line]:
    """The lines of an index.

    Raises:
        ValueError: one is not of its form.
    """
    try:
        lines = [Line(*json.loads(line)) for line in content.splitlines()]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    for line in lines:
        if type(line.row) is not int or type(line.crc) is not int or not isinstance(line.name, str):
            raise ValueError(f"expected a name, a row and a checksum, got {list(vars(line).values())}"[:200])
    return lines
