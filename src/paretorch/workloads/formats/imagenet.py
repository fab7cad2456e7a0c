"""ImageNet as published: a folder of image files for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch

from paretorch.workloads.formats.image_files import image_files_in, read_rgb
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders, visible_folders
from paretorch.workloads.loading.image_crops import central_square
from paretorch.workloads.loading.image_source import SelectedImage, StoredSquare

IMAGENET = PublishedData(
    "ImageNet",
    "imagenet",
    """\
imagenet/train/CLASS/*.JPEG      a folder for each class, with any name (n01440764, ...)
imagenet/val/CLASS/*.JPEG        the same classes; without it, images of train are held out""",
    "ImageNet (ILSVRC 2012, CLS-LOC) is published at image-net.org, after registration",
)
INSIDE = (Path(), Path("Data/CLS-LOC"), Path("ILSVRC/Data/CLS-LOC"))  # paths within the unpacked archives


def find_imagenet(root: Path, given: str = "") -> ClassFolders:
    """ImageNet in ``given``, or in a subfolder of ``root`` whose name begins with imagenet or ilsvrc.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    searched = searched_folders(root, given, ("imagenet", "ilsvrc"))
    folders = dict.fromkeys(folder / inside for folder in searched for inside in INSIDE)
    found = [folder for folder in folders if _has_images(folder / "train")]
    return ClassFolders(only_folder(IMAGENET, found, given or str(root), searched))


def _has_images(folder: Path) -> bool:
    return any(image_files_in(folder / name) for name in visible_folders(folder))


@dataclass(frozen=True)
class ClassFolders:
    """ImageNet as image files, ``train/CLASS/*.JPEG`` and optionally ``val/CLASS/*.JPEG``; a group is a class.

    Args:
        root: the folder that contains ``train``.
    """

    root: Path

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.root)

    @cached_property
    def has_validation(self) -> bool:
        """Whether ``val`` contains folders of classes; the archive has all its images in one folder, which is not used."""
        return any(self._files["val"].values())

    def available(self, folder: str) -> Mapping[str, int]:
        """Number of images by class."""
        return {group: len(names) for group, names in self._files[folder].items()}

    def names(self, folder: str, group: str) -> Sequence[str]:
        """The images of a class."""
        return [f"{folder}/{group}/{name}" for name in self._files[folder][group]]

    @cached_property
    def _files(self) -> dict[str, dict[str, list[str]]]:
        return {
            folder: {name: image_files_in(self.root / folder / name) for name in visible_folders(self.root / folder)}
            for folder in ("train", "val")
        }

    def file(self, name: str) -> Path:
        """The path of an image."""
        return self.root / name

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of the class names, whose order decides the labels."""
        names = {folder: "/".join(visible_folders(self.root / folder)) for folder in ("train", "val")}
        return {f"classes of {folder}": sha256(text.encode()).hexdigest() for folder, text in names.items()}

    def reader(self, items: Sequence[SelectedImage], edge: int) -> ClassReader:
        """A reader of the selected images."""
        return ClassReader(self.root, tuple(items), edge)


@dataclass(frozen=True)
class ClassReader:
    """A reader of image files with known classes."""

    root: Path
    items: tuple[SelectedImage, ...]
    edge: int
    kind: str = "image files"

    def read(self, index: int) -> StoredSquare:
        """One image and its class."""
        item = self.items[index]
        image, _ = central_square(read_rgb(self.root / item.name, item.name, least=self.edge), None, self.edge)
        return image.permute(1, 2, 0).contiguous(), torch.tensor(item.label)
