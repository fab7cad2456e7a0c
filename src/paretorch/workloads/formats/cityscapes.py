"""Cityscapes as published: photographs, label and instance numbers and disparities, in a folder for each city."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from paretorch.workloads.dense.labels import LabelKind, LabelledScene
from paretorch.workloads.formats.extensions import existing_path, extension_spellings
from paretorch.workloads.formats.image_files import opened_image, read_rgb
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders
from paretorch.workloads.loading.unreadable import UnreadableError, shortened

CITYSCAPES = PublishedData(
    "Cityscapes",
    "root",
    """\
cityscapes/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
cityscapes/gtFine/{train,val}/CITY/*_gtFine_labelIds.png and *_gtFine_instanceIds.png
cityscapes/disparity/{train,val}/CITY/*_disparity.png""",
    "Cityscapes is published at cityscapes-dataset.com, after registration: leftImg8bit, gtFine and disparity, trainvaltest",
)
PARTS = ("train", "val")
TOLERANCE = 0.02  # relative difference of aspect ratios, for files that were scaled and rounded
PNG = extension_spellings(".png")
PIXELS = 1 << 24  # of a file: eight times those of the published photographs, which have 2048 x 1024
FILES = {
    "image": ("leftImg8bit", "leftImg8bit"),
    "label": ("gtFine", "gtFine_labelIds"),
    "instance": ("gtFine", "gtFine_instanceIds"),
    "disparity": ("disparity", "disparity"),
}
# the label numbers that the benchmark of Cityscapes evaluates, in its order, by category
CATEGORIES = {
    "flat": (7, 8), "construction": (11, 12, 13), "object": (17, 19, 20), "nature": (21, 22), "sky": (23,), "human": (24, 25),
    "vehicle": (26, 27, 28, 31, 32, 33),
}  # fmt: skip
NUMBERS = 34
INSTANCES = 1000  # an instance number is 1000 times the label's number plus a counter; numbers below are no instances
KINDS = {
    "segmentation": LabelKind.CLASSES,
    "instance": LabelKind.OFFSETS,
    "depth": LabelKind.INVERSE_DISTANCE,
}


def classes_by_number(classes: int) -> Tensor:
    """(34,) class of each label number, -1 if it is not evaluated.

    Args:
        classes: 19, or 7 for the categories.

    Raises:
        ValueError: another number of classes.

    Example:
        >>> classes_by_number(19)[[0, 7, 33]].tolist(), classes_by_number(7)[[0, 8, 33]].tolist()
        ([-1, 0, 18], [-1, 0, 6])
    """
    if classes not in (7, 19):
        raise ValueError(f"Cityscapes has 19 classes in 7 categories; expected 19 or 7, got {classes}")
    found = torch.full((NUMBERS,), -1, dtype=torch.int64)
    groups = [[number] for numbers in CATEGORIES.values() for number in numbers]
    for index, numbers in enumerate(groups if classes == 19 else CATEGORIES.values()):
        found[list(numbers)] = index
    return found


def offsets_to_means(instances: Tensor) -> Tensor:
    """(2, H, W) offset of each pixel to the mean of its instance's pixels, to the right and down; nan without instance.

    Args:
        instances: (H, W) numbers; those below 1000 are no instances.

    Example:
        >>> offsets_to_means(torch.tensor([[26001, 26001, 7]]))[0]
        tensor([[ 0.5000, -0.5000,     nan]])
    """
    height, width = instances.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([columns, rows]).reshape(2, -1).double()  # sums of coordinates exceed float32's precision
    _, which, counts = instances.flatten().unique(return_inverse=True, return_counts=True)
    means = torch.zeros(2, len(counts), dtype=torch.float64).index_add_(1, which, positions) / counts
    offsets = (means[:, which] - positions).reshape(2, height, width).float()
    return torch.where(instances >= INSTANCES, offsets, math.nan)


@dataclass(frozen=True)
class CityFolders:
    """The published folders.

    Args:
        root: contains ``leftImg8bit``, ``gtFine`` and ``disparity``.
        classes: 19 or 7.
        height: pixels of the network's images, whose width is twice the height.
    """

    root: Path
    classes: int
    height: int

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of ``train`` or ``val``, as ``CITY/CITY_SEQUENCE_FRAME``, sorted.

        Raises:
            ValueError: there is none, or a scene has no file of one kind; the message names the first ones.
        """
        found = {kind: self._found(part, kind) for kind in FILES}
        scenes = sorted(set().union(*found.values()))
        if not scenes:
            raise ValueError(
                f"{self.root / 'leftImg8bit' / part} has no scenes: expected CITY/CITY_000000_000019_leftImg8bit.png"
            )
        for kind, names in found.items():
            folder, ending = FILES[kind]
            if missing := [f"{folder}/{part}/{name}_{ending}.png" for name in scenes if name not in names]:
                raise ValueError(
                    f"{self.root}: there is no {shortened(missing, 3)}. Unpack all four archives, or remove the scenes"
                )
        return tuple(scenes)

    def reader(self, part: str, names: Sequence[str]) -> CityReader:
        """A reader of scenes of a part."""
        return CityReader(self, part, tuple(names))

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of every scene."""
        return self.height, 2 * self.height

    def _found(self, part: str, kind: str) -> set[str]:
        folder, ending = FILES[kind]
        return {
            f"{path.parent.name}/{path.stem.removesuffix(f'_{ending}')}"
            for path in (self.root / folder / part).glob(f"*/*_{ending}.*")
            if path.suffix in PNG and not path.name.startswith(".") and not path.parent.name.startswith(".")
        }


@dataclass(frozen=True)
class CityReader:
    """A reader of scenes at the network's resolution; it can be pickled.

    Args:
        folders: as published.
        part: ``train`` or ``val``.
        names: of the scenes.
    """

    folders: CityFolders
    part: str
    names: tuple[str, ...]
    kind: str = "image files"

    @property
    def tasks(self) -> tuple[str, ...]:
        """``segmentation``, ``instance`` and ``depth``."""
        return tuple(KINDS)

    def read(self, index: int) -> LabelledScene:
        """One scene: image, classes, offsets in the network's pixels, disparity in those of the photograph.

        Raises:
            UnreadableError: a file is missing or damaged, has another shape, or contains invalid numbers.
        """
        name = self.names[index]
        path, relative = self._path("image", name)
        photograph = read_rgb(path, relative, most=PIXELS).float() / 255
        stored = tuple(photograph.shape[1:])
        size = self.folders.size(self.part)
        image = functional.interpolate(photograph[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        numbers = self._numbers("label", name, stored)
        if int(numbers.max()) >= NUMBERS:
            raise UnreadableError(self._path("label", name)[1], f"expected labels 0 to 33, got {int(numbers.max())}")
        disparity = self._numbers("disparity", name, stored)
        labels = {
            "segmentation": classes_by_number(self.folders.classes)[numbers],
            "instance": offsets_to_means(self._numbers("instance", name, stored)),
            "depth": torch.where(disparity > 0, (disparity.float() - 1) / 256, 0.0),
        }
        return LabelledScene(image, labels, KINDS)

    def _numbers(self, kind: str, name: str, stored: tuple[int, ...]) -> Tensor:
        """A file at the network's resolution; it has the photograph's aspect ratio, ``stored`` is (H, W) of the photograph."""
        path, relative = self._path(kind, name)
        numbers = read_numbers(path, relative, bits=8 if kind == "label" else 16)
        (height, width), (own_height, own_width) = stored, numbers.shape
        if not abs(own_height * width - height * own_width) <= TOLERANCE * height * own_width:
            expected = f"expected {width} x {height} pixels, as the photograph has, or the same at another scale"
            raise UnreadableError(relative, f"{expected}, got {own_width} x {own_height}")
        whole, size = numbers[None, None].double(), self.folders.size(self.part)
        return functional.interpolate(whole, size, mode="nearest-exact")[0, 0].long()

    def _path(self, kind: str, name: str) -> tuple[Path, str]:
        folder, ending = FILES[kind]
        root = self.folders.root
        path = existing_path(root / folder / self.part / f"{name}_{ending}.png")
        return path, path.relative_to(root).as_posix()


def read_numbers(path: Path, name: str, bits: int = 8) -> Tensor:
    """A PNG of one channel with 8 or 16 bits, as (H, W) int64; for 8 bits one with 16 is read too.

    Raises:
        UnreadableError: it is missing, damaged, not a PNG, has more than :data:`PIXELS`, fewer bits, or has colours.
    """
    with opened_image(path, name, ("PNG",), PIXELS) as picture:
        picture.load()
        mode, pixels = picture.mode, np.array(picture)
    if mode not in ("L", "P", "I") and not mode.startswith("I;16"):
        raise UnreadableError(name, f"expected numbers in one channel, got an image of mode {mode}")
    if bits > 8 and mode in ("L", "P"):
        raise UnreadableError(
            name, f"expected numbers of {bits} bits, got 8: it was converted, and its numbers are others"
        )
    return torch.from_numpy(pixels.astype(np.int64))


def find_cityscapes(root: Path, classes: int, height: int) -> CityFolders:
    """The published folders, in a subfolder of ``root`` whose name begins with cityscapes or in ``root`` itself.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    searched = searched_folders(root, "", ("cityscapes",))
    wanted = [Path(folder) / part for folder in ("leftImg8bit", "gtFine", "disparity") for part in PARTS]
    found = [folder for folder in searched if all((folder / inner).is_dir() for inner in wanted)]
    return CityFolders(only_folder(CITYSCAPES, found, str(root), searched), classes, height)
