"""Cityscapes as its owner publishes it: photographs, label and instance numbers, disparities, a folder for each city."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from paretorch.workloads.checks.checkup import Checkup, Tell, read_each
from paretorch.workloads.dense.labels import Kind, Scene
from paretorch.workloads.formats.extensions import as_spelled, spellings
from paretorch.workloads.formats.layout import candidates, one_place
from paretorch.workloads.formats.pictures import UnreadableError, opened_picture, read_rgb
from paretorch.workloads.reading.selection import ranked

PARTS = ("train", "val")
SQUEEZED = 0.02  # share by which the sides of small copies may differ from those of the large, by rounding
PNG = spellings(".png")
PIXELS = 1 << 24  # of a file: eight times those of the published photographs, which have 2048 x 1024
FILES = {
    "image": ("leftImg8bit", "leftImg8bit"),
    "label": ("gtFine", "gtFine_labelIds"),
    "instance": ("gtFine", "gtFine_instanceIds"),
    "disparity": ("disparity", "disparity"),
}
# the numbers that the evaluation of Cityscapes counts, in its order, by category
CATEGORIES = {
    "flat": (7, 8), "construction": (11, 12, 13), "object": (17, 19, 20), "nature": (21, 22), "sky": (23,), "human": (24, 25),
    "vehicle": (26, 27, 28, 31, 32, 33),
}  # fmt: skip
NUMBERS = 34
INSTANCES = 1000  # numbers from here on are 1000 times the label's, plus the instance's
KINDS = {"segmentation": Kind.CLASSES, "instance": Kind.OFFSETS, "depth": Kind.INVERSE_DISTANCE}


def classes_by_number(classes: int) -> Tensor:
    """(34,) the class of each label number, -1 where it is not evaluated.

    Args:
        classes: 19, or 7 for the categories.

    Raises:
        ValueError: another number of classes.

    Example:
        >>> classes_by_number(19)[[0, 7, 33]].tolist(), classes_by_number(7)[[0, 8, 33]].tolist()
        ([-1, 0, 18], [-1, 0, 6])
    """
    if classes not in (7, 19):
        raise ValueError(f"Cityscapes has 19 classes, or 7 categories of them; got {classes}")
    found = torch.full((NUMBERS,), -1, dtype=torch.int64)
    groups = [[number] for numbers in CATEGORIES.values() for number in numbers]
    for place, numbers in enumerate(groups if classes == 19 else CATEGORIES.values()):
        found[list(numbers)] = place
    return found


def offsets_to_means(instances: Tensor) -> Tensor:
    """(2, H, W) the way from each pixel to the mean of its instance's pixels, to the right and down; nan where there is none.

    Args:
        instances: (H, W) numbers; those below 1000 are no instances.

    Example:
        >>> offsets_to_means(torch.tensor([[26001, 26001, 7]]))[0]
        tensor([[ 0.5000, -0.5000,     nan]])
    """
    height, width = instances.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).reshape(2, -1).double()  # sums of coordinates are too large for float32
    _, which, counts = instances.flatten().unique(return_inverse=True, return_counts=True)
    means = torch.zeros(2, len(counts), dtype=torch.float64).index_add_(1, which, places) / counts
    ways = (means[:, which] - places).reshape(2, height, width).float()
    return torch.where(instances >= INSTANCES, ways, math.nan)


@dataclass(frozen=True)
class CityFolders:
    """The published folders.

    Args:
        root: holds ``leftImg8bit``, ``gtFine`` and ``disparity``.
        classes: 19 or 7.
        height: pixels of the network's images, which are twice as wide.
    """

    root: Path
    classes: int
    height: int

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of ``train`` or ``val``, as ``CITY/CITY_SEQUENCE_FRAME``, by name.

        Raises:
            ValueError: there is none, or one lacks a file; the first are named.
        """
        there = {kind: self._there(part, kind) for kind in FILES}
        everything = sorted(set().union(*there.values()))
        if not everything:
            raise ValueError(
                f"{self.root / 'leftImg8bit' / part} has no scenes: expected CITY/CITY_000000_000019_leftImg8bit.png"
            )
        for kind, names in there.items():
            if lacking := [name for name in everything if name not in names]:
                folder, ending = FILES[kind]
                shown = ", ".join(f"{folder}/{part}/{name}_{ending}.png" for name in lacking[:3])
                more = f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
                raise ValueError(
                    f"{self.root}: there is no {shown}{more}. Unpack all four archives, or remove the scenes"
                )
        return tuple(everything)

    def reader(self, part: str, names: Sequence[str]) -> CityReader:
        """What reads scenes of a part."""
        return CityReader(self.root, part, tuple(names), self.classes, self.height)

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of every scene."""
        return self.height, 2 * self.height

    def _there(self, part: str, kind: str) -> set[str]:
        folder, ending = FILES[kind]
        files = (self.root / folder / part).glob(f"*/*_{ending}.*")
        pictures = [path for path in files if path.suffix in PNG and not path.name.startswith(".")]
        seen = [path for path in pictures if not path.parent.name.startswith(".")]
        return {f"{path.parent.name}/{path.stem.removesuffix(f'_{ending}')}" for path in seen}


@dataclass(frozen=True)
class CityReader:
    """Reads scenes at the network's resolution; can be sent to another process.

    Args:
        root: of the published folders.
        part: ``train`` or ``val``.
        names: of the scenes.
        classes: 19 or 7.
        height: pixels of the network's images.
    """

    root: Path
    part: str
    names: tuple[str, ...]
    classes: int
    height: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """``segmentation``, ``instance`` and ``depth``."""
        return tuple(KINDS)

    @property
    def kind(self) -> str:
        """``"image files"``."""
        return "image files"

    def read(self, place: int) -> Scene:
        """The scene at ``place``: image, classes, offsets in the network's pixels, disparity in those of the photograph.

        Raises:
            UnreadableError: a file is missing or damaged, of another shape, or holds numbers that Cityscapes does not have.
        """
        name = self.names[place]
        path, shown = self._path("image", name)
        photograph = read_rgb(path, shown, most=PIXELS).float() / 255
        stored = tuple(photograph.shape[1:])
        size = [self.height, 2 * self.height]
        image = functional.interpolate(photograph[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        numbers = self._numbers("label", name, stored)
        if int(numbers.max()) >= NUMBERS:
            raise UnreadableError(self._path("label", name)[1], f"expected labels 0 to 33, got {int(numbers.max())}")
        disparity = self._numbers("disparity", name, stored)
        labels = {
            "segmentation": classes_by_number(self.classes)[numbers],
            "instance": offsets_to_means(self._numbers("instance", name, stored)),
            "depth": torch.where(disparity > 0, (disparity.float() - 1) / 256, 0.0),
        }
        return Scene(image, labels, KINDS)

    def _numbers(self, kind: str, name: str, stored: tuple[int, ...]) -> Tensor:
        """At the network's resolution, from a file of the shape of the photograph's (H, W), if not of its size."""
        path, shown = self._path(kind, name)
        numbers = read_numbers(path, shown)
        (height, width), (high, wide) = stored, numbers.shape
        if not abs(high * width - height * wide) <= SQUEEZED * height * wide:
            expected = f"expected {width} x {height} pixels, as the photograph has, or the same at another scale"
            raise UnreadableError(shown, f"{expected}, got {wide} x {high}")
        size = [self.height, 2 * self.height]
        return functional.interpolate(numbers[None, None].double(), size, mode="nearest-exact")[0, 0].long()

    def _path(self, kind: str, name: str) -> tuple[Path, str]:
        folder, ending = FILES[kind]
        path = as_spelled(self.root / folder / self.part / f"{name}_{ending}.png")
        return path, path.relative_to(self.root).as_posix()


def read_numbers(path: Path, name: str) -> Tensor:
    """A PNG of one channel, of 8 or 16 bits, as (H, W) int64.

    Raises:
        UnreadableError: it is missing, damaged, no PNG, of more than :data:`PIXELS`, or has colours.
    """
    with opened_picture(path, name, ("PNG",), PIXELS) as picture:
        picture.load()
        mode, pixels = picture.mode, np.array(picture)
    if mode not in ("L", "P", "I") and not mode.startswith("I;16"):
        raise UnreadableError(name, f"expected numbers in one channel, got an image of mode {mode}")
    return torch.from_numpy(pixels.astype(np.int64))


def find_cityscapes(root: Path, classes: int, height: int, form: str) -> CityFolders:
    """The published folders below ``root``, in a folder whose name begins with cityscapes, or in ``root`` itself.

    Raises:
        FileNotFoundError: they are not there; the message says what was looked for and what was found.
        ValueError: they are there more than once.
    """
    starts = list(candidates(root, ("cityscapes",)))
    wanted = [Path(folder) / part for folder in ("leftImg8bit", "gtFine", "disparity") for part in PARTS]
    places = [start for start in starts if all((start / folder).is_dir() for folder in wanted)]
    how, published = form.rsplit("\n", 1)
    return CityFolders(one_place(places, "Cityscapes", "root", str(root), starts, how, published), classes, height)


def checked_cities(title: str, folders: CityFolders, images: int | None, tell: Tell | None) -> Checkup:
    """What lies in the published folders; all of it is read.

    Args:
        title: what was looked for.
        folders: of the data set.
        images: read so many of each part; all where it is None.
        tell: called with the part, the scenes read and the scenes to read.
    """
    report = Checkup(title)
    for part in PARTS:
        try:
            names = folders.names(part)
        except ValueError as error:
            report.problems.append(str(error))
            continue
        cities = len({name.partition("/")[0] for name in names})
        report.found.append(f"{part}: {len(names):,} scenes of {cities} cities")
        reader = folders.reader(part, ranked(names, seed=0)[:images])
        read_each(report, f"cityscapes/{part}", reader.names, reader.read, tell)
    return report
