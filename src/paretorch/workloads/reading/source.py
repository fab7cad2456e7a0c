"""What every source of labelled images offers: names by group, and a reader of squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

Example = tuple[Tensor, Tensor]  # (E, E, 3) uint8; the class, () int64, or the mask, (E, E) uint8


class DamagedError(ValueError):
    """Something on disk is not what was written; the message says the cure."""


@dataclass(frozen=True)
class Item:
    """One image of a selection.

    Args:
        name: where it lies below the data set's folder, with slashes on every system.
        label: its class; -1 where a mask is the label.
    """

    name: str
    label: int = -1


@dataclass(frozen=True)
class Place:
    """One image of a source.

    Args:
        folder: ``train`` or ``val``.
        group: its class; empty where all images are one group.
        name: as in :class:`Item`.
    """

    folder: str
    group: str
    name: str


class Reader(Protocol):
    """Gives the images of a selection as stored squares; can be sent to another process."""

    @property
    def items(self) -> tuple[Item, ...]:
        """The selection."""
        ...

    @property
    def kind(self) -> str:
        """``"image files"`` or ``"pack"``."""
        ...

    def read(self, index: int) -> Example:
        """The square and the label of one image.

        Raises:
            UnreadableError: it cannot be used.
        """
        ...


class Source(Protocol):
    """A data set of one task: folders ``train`` and perhaps ``val``, each with groups of images."""

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        ...

    @property
    def has_validation(self) -> bool:
        """Whether there is a folder ``val`` of the right form."""
        ...

    def available(self, folder: str) -> Mapping[str, int]:
        """How many images ``train`` or ``val`` has, by group, groups in their order."""
        ...

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images of a group."""
        ...

    def file(self, name: str) -> Path:
        """The file that an image is read from."""
        ...

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of what decides labels and order, by name: a pack of it is out of date when they change."""
        ...

    def reader(self, items: Sequence[Item], edge: int) -> Reader:
        """What reads a selection as squares of ``edge`` pixels."""
        ...
