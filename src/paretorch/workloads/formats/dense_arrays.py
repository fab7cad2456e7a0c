"""Labelled scenes as arrays on disk, ``{train,val}/{image,label,...}/NUMBER.npy``, as multi-task benchmarks publish them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paretorch.workloads.dense.labels import LabelKind, LabelledScene
from paretorch.workloads.formats.array_files import Numbers, read_array
from paretorch.workloads.formats.extensions import extension_spellings
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders
from paretorch.workloads.loading.unreadable import UnreadableError, shortened

IMAGE = "image"
PARTS = ("train", "val")
NPY = extension_spellings(".npy")
TOLERANCE = 0.01  # by which resizing may move an image's values out of 0..1
MAX_LENGTH = 1.5  # of unit vectors after resizing
MIN_LENGTH = 1e-3  # vectors below it are not labelled


@dataclass(frozen=True)
class ArrayField:
    """The labels of one task.

    Args:
        task: its name.
        folder: the folder of the arrays.
        kind: what the numbers mean.
        classes: number of classes, for labels that are classes.
    """

    task: str
    folder: str
    kind: LabelKind
    classes: int = 0


@dataclass(frozen=True)
class ArrayFolder:
    """A data set of arrays.

    Args:
        root: contains ``train`` and ``val``.
        fields: the labels.
    """

    root: Path
    fields: tuple[ArrayField, ...]

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of ``train`` or ``val``, sorted by number, then by name.

        Raises:
            ValueError: there is none, or a scene has no image or no label of a task; the message names the first ones.
        """
        folders = [IMAGE, *(field.folder for field in self.fields)]
        found = {folder: _arrays_in(self.root / part / folder) for folder in folders}
        scenes = sorted(set().union(*found.values()), key=_by_number)
        if not scenes:
            raise ValueError(f"{self.root / part} has no arrays: expected NUMBER.npy in {', '.join(folders)}")
        for folder, names in found.items():
            if missing := [f"{folder}/{name}.npy" for name in scenes if name not in names]:
                raise ValueError(
                    f"{self.root / part}: every scene has an array in each of {', '.join(folders)}, but there is no "
                    f"{shortened(missing)}. Add these arrays, or remove the scenes' other arrays"
                )
        return tuple(scenes)

    def reader(self, part: str, names: Sequence[str]) -> ArrayReader:
        """A reader of scenes of a part, all of the size of the part's first readable image.

        Raises:
            ValueError: no image of the part can be read.
        """
        return ArrayReader(self.root / part, tuple(names), self.fields, self.size(part))

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of the part's first readable image.

        Raises:
            ValueError: no image can be read.
        """
        reasons = []
        for name in self.names(part)[:10]:
            try:
                height, width, _ = _read_image(self.root / part, name).shape
            except UnreadableError as error:
                reasons.append(str(error))
            else:
                return height, width
        raise ValueError(f"{self.root / part}: no image can be read: {'; '.join(reasons)}")


@dataclass(frozen=True)
class ArrayReader:
    """A reader of scenes; it can be pickled.

    Args:
        folder: of the part.
        names: of the scenes.
        fields: the labels.
        size: (H, W) of each scene.
    """

    folder: Path
    names: tuple[str, ...]
    fields: tuple[ArrayField, ...]
    size: tuple[int, int]
    kind: str = "arrays"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the fields."""
        return tuple(field.task for field in self.fields)

    def read(self, index: int) -> LabelledScene:
        """One scene: float32 image and labels, int64 classes.

        Raises:
            UnreadableError: an array is missing, damaged, has another shape, or contains invalid numbers.
        """
        name = self.names[index]
        image = self._colours(name)
        labels = {field.task: self._labels(field, name) for field in self.fields}
        return LabelledScene(image, labels, {field.task: field.kind for field in self.fields})

    def _colours(self, name: str) -> Tensor:
        array = self._array(IMAGE, name, 3)
        if array.dtype == torch.uint8:
            return array.permute(2, 0, 1).float() / 255
        image = array.permute(2, 0, 1).float()
        least, most = image.min().item(), image.max().item()
        if not (least >= -TOLERANCE and most <= 1 + TOLERANCE):
            raise _unreadable(IMAGE, name, f"expected bytes, or numbers in 0..1, got {least:g} to {most:g}")
        return image

    def _labels(self, field: ArrayField, name: str) -> Tensor:
        if field.kind == LabelKind.DIRECTIONS:
            return self._directions(field, name)
        values = self._array(field.folder, name, 1)[..., 0]
        if field.kind == LabelKind.CLASSES:
            classes = values.long()
            if bool((values != classes).any()) or int(classes.max()) >= field.classes:
                found = values[(values != classes) | (classes >= field.classes)][0].item()
                expected = f"expected classes 0 to {field.classes - 1}, and below 0 for pixels without label"
                raise _unreadable(field.folder, name, f"{expected}, got {found:g}")
            return classes.clamp(min=-1)
        distances = values.float()
        if not bool(distances.isfinite().all()):
            expected = "expected distances, and 0 for pixels without label"
            raise _unreadable(field.folder, name, f"{expected}, got nan or infinity")
        return distances.clamp(min=0)

    def _directions(self, field: ArrayField, name: str) -> Tensor:
        vectors = self._array(field.folder, name, 3).permute(2, 0, 1).float()
        lengths = vectors.norm(dim=0)
        labelled = lengths > MIN_LENGTH
        if not bool(lengths.isfinite().all()) or bool((labelled & (lengths > MAX_LENGTH)).any()):
            raise _unreadable(field.folder, name, f"expected unit vectors, got lengths up to {lengths.max().item():g}")
        return torch.where(labelled, vectors / lengths.clamp_min(1e-12), 0.0)

    def _array(self, folder: str, name: str, channels: int) -> Tensor:
        """(H, W, channels)."""
        array = _read(self.folder, folder, name)
        if channels == 1 and array.ndim == 2:
            array = array[..., None]
        if array.shape != (*self.size, channels):
            last = f" x {channels}" if channels > 1 else ""
            expected = f"expected an array of {_dimensions(self.size)}{last}, as the others are"
            raise _unreadable(
                folder, name, f"{expected}, got {_dimensions(array.shape)}; its axes are height x width{last}"
            )
        return torch.from_numpy(array)


def find_arrays(
    data: PublishedData, root: Path, prefixes: tuple[str, ...], fields: tuple[ArrayField, ...]
) -> ArrayFolder:
    """A data set of arrays, in a subfolder of ``root`` or in ``root`` itself.

    Args:
        data: its title, layout and origin.
        root: the folder in which the search begins.
        prefixes: of the subfolder's name, in lower case.
        fields: the labels.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    searched = searched_folders(root, "", prefixes)
    wanted = [Path(part) / folder for part in PARTS for folder in (IMAGE, *(field.folder for field in fields))]
    found = [folder for folder in searched if all((folder / inner).is_dir() for inner in wanted)]
    return ArrayFolder(only_folder(data, found, str(root), searched), fields)


def _arrays_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.*") if path.suffix in NPY and not path.name.startswith(".")}


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _read_image(part: Path, name: str) -> Numbers:
    """(H, W, 3); only the last axis is checked."""
    array = _read(part, IMAGE, name)
    if array.ndim != 3 or array.shape[2] != 3:
        raise _unreadable(IMAGE, name, f"expected an image, height x width x 3, got {_dimensions(array.shape)}")
    return array


def _read(part: Path, folder: str, name: str) -> Numbers:
    return read_array(part / folder / f"{name}.npy", f"{folder}/{name}.npy")


def _unreadable(folder: str, name: str, reason: str) -> UnreadableError:
    return UnreadableError(f"{folder}/{name}.npy", reason)


def _dimensions(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
