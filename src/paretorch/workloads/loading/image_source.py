"""Protocols of a source of labelled images and of the reader of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

StoredSquare = tuple[Tensor, Tensor]  # (E, E, 3) uint8; the class, () int64, or the mask, (E, E) uint8


@dataclass(frozen=True)
class SelectedImage:
    """One image of a selection.

    Args:
        name: its path below the data set's folder, with slashes on every system.
        label: its class; -1 if the label is a mask.
    """

    name: str
    label: int = -1


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    Args:
        folder: ``train`` or ``val``.
        group: its class; empty if all images are one group.
        name: as in :class:`SelectedImage`.
    """

    folder: str
    group: str
    name: str


class SquareReader(Protocol):
    """A reader of selected images as stored squares; it can be pickled."""

    @property
    def items(self) -> tuple[SelectedImage, ...]:
        """The selection."""
        ...

    @property
    def kind(self) -> str:
        """``"image files"`` or ``"pack"``."""
        ...

    def read(self, index: int) -> StoredSquare:
        """The square and the label of one image.

        Raises:
            UnreadableError: the image cannot be read.
        """
        ...


class ImageSource(Protocol):
    """A data set of one task: folders ``train`` and optionally ``val``, each with groups of images."""

    @property
    def location(self) -> str:
        """Where it is stored, for messages."""
        ...

    @property
    def has_validation(self) -> bool:
        """Whether there is a folder ``val`` with the expected layout."""
        ...

    def available(self, folder: str) -> Mapping[str, int]:
        """Number of images of ``train`` or ``val``, by group, in the order of the groups."""
        ...

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images of a group."""
        ...

    def file(self, name: str) -> Path:
        """The file of an image."""
        ...

    def fingerprint(self) -> Mapping[str, str]:
        """Digests, by name, of whatever decides labels and order; a pack is out of date if they change."""
        ...

    def reader(self, items: Sequence[SelectedImage], edge: int) -> SquareReader:
        """A reader of a selection as squares of ``edge`` pixels."""
        ...
