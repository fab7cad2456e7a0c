"""Scenes as arrays on disk: ``{train,val}/{image,label,...}/NUMBER.npy``, as multi-task benchmarks publish them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paretorch.workloads.checks.checkup import Checkup, Tell, read_each
from paretorch.workloads.dense.labels import Kind, Scene
from paretorch.workloads.formats.array_files import Numbers, read_array
from paretorch.workloads.formats.extensions import spellings
from paretorch.workloads.formats.layout import candidates, contents, one_place
from paretorch.workloads.formats.pictures import UnreadableError
from paretorch.workloads.reading.selection import ranked

IMAGE = "image"
PARTS = ("train", "val")
NPY = spellings(".npy")
BEYOND = 0.01  # how far resizing may take an image's values out of 0..1
SHORTEST, LONGEST = 0.5, 1.5  # of what should be unit vectors: resizing shortens them at edges


@dataclass(frozen=True)
class Field:
    """The labels of one task.

    Args:
        task: whose they are.
        folder: in which they lie.
        kind: what the numbers mean.
        classes: how many there are, among classes.
    """

    task: str
    folder: str
    kind: Kind
    classes: int = 0


@dataclass(frozen=True)
class ArrayFolder:
    """A data set of arrays.

    Args:
        root: holds ``train`` and ``val``.
        fields: the labels.
    """

    root: Path
    fields: tuple[Field, ...]

    def names(self, part: str) -> tuple[str, ...]:
        """The scenes of ``train`` or ``val``: by number, then by name.

        Raises:
            ValueError: there is none, or a scene lacks its image or one of its labels; the first are named.
        """
        folders = [IMAGE, *(field.folder for field in self.fields)]
        there = {folder: _arrays_in(self.root / part / folder) for folder in folders}
        everything = set().union(*there.values())
        if not everything:
            raise ValueError(f"{self.root / part} has no arrays: expected NUMBER.npy in {', '.join(folders)}")
        for folder, names in there.items():
            if lacking := sorted(everything - names, key=_by_number):
                shown = ", ".join(f"{folder}/{name}.npy" for name in lacking[:5])
                more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
                raise ValueError(
                    f"{self.root / part}: every scene has an array in each of {', '.join(folders)}, but there is no {shown}"
                    f"{more}. Put these there, or remove the scenes' other arrays"
                )
        return tuple(sorted(everything, key=_by_number))

    def reader(self, part: str, names: Sequence[str]) -> ArrayReader:
        """What reads scenes of a part; their size is that of the part's first readable image.

        Raises:
            ValueError: no image of the part can be read.
        """
        return ArrayReader(self.root / part, tuple(names), self.fields, self.size(part))

    def size(self, part: str) -> tuple[int, int]:
        """(H, W) of the part's first readable image.

        Raises:
            ValueError: none can be read.
        """
        reasons = []
        for name in self.names(part)[:10]:
            try:
                height, width, _ = _image(self.root / part, name).shape
            except UnreadableError as error:
                reasons.append(str(error))
            else:
                return height, width
        raise ValueError(f"{self.root / part}: no image can be read: {'; '.join(reasons)}")


@dataclass(frozen=True)
class ArrayReader:
    """Reads scenes; can be sent to another process.

    Args:
        folder: of the part.
        names: of the scenes.
        fields: the labels.
        size: (H, W) that each has.
    """

    folder: Path
    names: tuple[str, ...]
    fields: tuple[Field, ...]
    size: tuple[int, int]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of the fields."""
        return tuple(field.task for field in self.fields)

    @property
    def kind(self) -> str:
        """``"arrays"``."""
        return "arrays"

    def read(self, place: int) -> Scene:
        """The scene at ``place``: float32 image and labels, int64 classes.

        Raises:
            UnreadableError: an array is missing, damaged, of another shape, or holds what it must not.
        """
        name = self.names[place]
        image = self._colours(name)
        labels = {field.task: self._labels(field, name) for field in self.fields}
        return Scene(image, labels, {field.task: field.kind for field in self.fields})

    def _colours(self, name: str) -> Tensor:
        array = self._array(IMAGE, name, 3)
        if array.dtype == torch.uint8:
            return array.permute(2, 0, 1).float() / 255
        image = array.permute(2, 0, 1).float()
        least, most = image.min().item(), image.max().item()
        if not (least >= -BEYOND and most <= 1 + BEYOND):
            raise _unusable(IMAGE, name, f"expected bytes, or numbers in 0..1, got {least:g} to {most:g}")
        return image

    def _labels(self, field: Field, name: str) -> Tensor:
        if field.kind == Kind.DIRECTIONS:
            return self._directions(field, name)
        values = self._array(field.folder, name, 1)[..., 0]
        if field.kind == Kind.CLASSES:
            classes = values.long()
            if bool((values != classes).any()) or int(classes.max()) >= field.classes:
                found = values[(values != classes) | (classes >= field.classes)][0].item()
                expected = f"expected classes 0 to {field.classes - 1}, and below 0 where there is none"
                raise _unusable(field.folder, name, f"{expected}, got {found:g}")
            return classes.clamp(min=-1)
        distances = values.float()
        if not bool(distances.isfinite().all()):
            raise _unusable(field.folder, name, "expected distances, and 0 where there is none, got nan or infinity")
        return distances.clamp(min=0)

    def _directions(self, field: Field, name: str) -> Tensor:
        vectors = self._array(field.folder, name, 3).permute(2, 0, 1).float()
        lengths = vectors.norm(dim=0)
        labelled = lengths > 1e-3
        if not bool(lengths.isfinite().all()) or bool((labelled & (lengths > LONGEST)).any()):
            raise _unusable(field.folder, name, f"expected unit vectors, got lengths up to {lengths.max().item():g}")
        return torch.where(labelled, vectors / lengths.clamp_min(1e-12), 0.0)

    def _array(self, folder: str, name: str, channels: int) -> Tensor:
        """(H, W, channels)."""
        array = _loaded(self.folder, folder, name)
        if channels == 1 and array.ndim == 2:
            array = array[..., None]
        if array.shape != (*self.size, channels):
            last = f" x {channels}" if channels > 1 else ""
            expected = f"expected an array of {_shown(self.size)}{last}, as the others are, got {_shown(array.shape)}"
            raise _unusable(folder, name, f"{expected}; its axes are height x width{last}")
        return torch.from_numpy(array)


def find_arrays(root: Path, title: str, prefixes: tuple[str, ...], fields: tuple[Field, ...], form: str) -> ArrayFolder:
    """The data set below ``root``, in a folder whose name begins with one of ``prefixes``, or in ``root`` itself.

    Args:
        root: where to look.
        title: of the data set.
        prefixes: in lower case.
        fields: the labels.
        form: how it must lie and, in its last line, where it is published.

    Raises:
        FileNotFoundError: it is not there; the message says what was looked for and what was found.
        ValueError: it is there more than once.
    """
    starts = list(candidates(root, prefixes))
    wanted = [Path(part) / folder for part in PARTS for folder in (IMAGE, *(field.folder for field in fields))]
    places = [start for start in starts if all((start / folder).is_dir() for folder in wanted)]
    how, published = form.rsplit("\n", 1)
    return ArrayFolder(one_place(places, title, "root", str(root), starts, how, published), fields)


def checked_arrays(
    title: str,
    find: Callable[[], ArrayFolder],
    published: Mapping[str, int],
    size: tuple[int, int],
    images: int | None,
    tell: Tell | None,
) -> Checkup:
    """What lies in a folder of arrays; all of it is read.

    Args:
        title: what was looked for.
        find: the data set, or says why not.
        published: scenes of each part.
        size: (H, W) as published.
        images: read so many of each part; all where it is None.
        tell: called with the part, the scenes read and the scenes to read.
    """
    report = Checkup(title)
    try:
        folder = find()
    except (OSError, ValueError) as error:
        report.problems.append(str(error))
        return report
    for part in PARTS:
        try:
            names = folder.names(part)
            reader = folder.reader(part, ranked(names, seed=0)[:images])
        except ValueError as error:
            report.problems.append("\n".join([str(error), *(f"    {line}" for line in contents(folder.root / part))]))
            continue
        as_published = len(names) == published[part] and reader.size == size
        differs = "as published" if as_published else f"published are {published[part]:,} of {size[0]} x {size[1]}"
        report.found.append(f"{part}: {len(names):,} scenes of {reader.size[0]} x {reader.size[1]} pixels; {differs}")
        read_each(report, f"{folder.root.name}/{part}", reader.names, reader.read, tell, below=f"{part}/")
    return report


def _arrays_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.*") if path.suffix in NPY and not path.name.startswith(".")}


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _image(part: Path, name: str) -> Numbers:
    """(H, W, 3); only the last axis is checked."""
    array = _loaded(part, IMAGE, name)
    if array.ndim != 3 or array.shape[2] != 3:
        raise _unusable(IMAGE, name, f"expected an image, height x width x 3, got {_shown(array.shape)}")
    return array


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _loaded(part: Path, folder: str, name: str) -> Numbers:
    return read_array(part / folder / f"{name}.npy", f"{folder}/{name}.npy")


def _unusable(folder: str, name: str, reason: str) -> UnreadableError:
    return UnreadableError(f"{folder}/{name}.npy", reason)
