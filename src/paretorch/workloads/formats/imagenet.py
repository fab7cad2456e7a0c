"""ImageNet on disk: a folder of images for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch

from paretorch.workloads.formats.pictures import pictures_in, read_rgb
from paretorch.workloads.reading.geometry import squared
from paretorch.workloads.reading.source import Example, Item


@dataclass(frozen=True)
class ClassFolders:
    """ImageNet as image files: ``train/CLASS/*.JPEG`` and perhaps ``val/CLASS/*.JPEG``; a group is a class.

    Args:
        root: the folder that holds ``train``.
    """

    root: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    @cached_property
    def has_validation(self) -> bool:
        """Whether ``val`` holds folders of classes; as published, its images lie in one heap, which does not count."""
        return any(self._files["val"].values())

    def available(self, folder: str) -> Mapping[str, int]:
        """Images by class."""
        return {group: len(names) for group, names in self._files[folder].items()}

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images of a class."""
        return [f"{folder}/{group}/{name}" for name in self._files[folder][group]]

    @cached_property
    def _files(self) -> dict[str, dict[str, list[str]]]:
        return {
            folder: {name: pictures_in(self.root / folder / name) for name in classes_in(self.root / folder)}
            for folder in ("train", "val")
        }

    def file(self, name: str) -> Path:
        """Where the image lies."""
        return self.root / name

    def fingerprint(self) -> Mapping[str, str]:
        """The names of the classes, whose order numbers them."""
        names = {folder: "/".join(classes_in(self.root / folder)) for folder in ("train", "val")}
        return {f"classes of {folder}": sha256(text.encode()).hexdigest() for folder, text in names.items()}

    def reader(self, items: Sequence[Item], edge: int) -> ClassReader:
        """Decodes the files."""
        return ClassReader(self.root, tuple(items), edge)


@dataclass(frozen=True)
class ClassReader:
    """Decodes image files of known classes."""

    root: Path
    items: tuple[Item, ...]
    edge: int
    kind: str = "image files"

    def read(self, index: int) -> Example:
        """One image and its class."""
        item = self.items[index]
        image, _ = squared(read_rgb(self.root / item.name, item.name, least=self.edge), None, self.edge)
        return image.permute(1, 2, 0).contiguous(), torch.tensor(item.label)


def classes_in(folder: Path) -> list[str]:
    """The classes of ``train`` or ``val``, in the order of their names: its visible subfolders."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
