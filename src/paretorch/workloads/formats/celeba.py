"""CelebA's published folders: aligned photographs of faces, forty attributes of each, and the split they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from paretorch.storage.regular_files import read_regular
from paretorch.workloads.checks.checkup import Checkup, Tell, read_each
from paretorch.workloads.formats.extensions import as_spelled
from paretorch.workloads.formats.layout import candidates, one_place
from paretorch.workloads.formats.pictures import read_rgb
from paretorch.workloads.reading.selection import ranked
from paretorch.workloads.reading.stream import Count, ReadStream
from paretorch.workloads.streams import Samples

FORM = """\
celeba/Img/img_align_celeba/000001.jpg   202,599 faces of 178 x 218 pixels
celeba/Anno/list_attr_celeba.txt         the count; forty names; then a face a line, with 1 or -1 for each name
celeba/Eval/list_eval_partition.txt      a face a line, with 0 (train), 1 (validation) or 2 (test)"""
SOURCE = (
    "CelebA is published at mmlab.ie.cuhk.edu.hk/projects/CelebA.html: the aligned and cropped images, Anno and Eval"
)
PICTURES, ANNOTATIONS, PARTITION = (
    Path("Img/img_align_celeba"), Path("Anno/list_attr_celeba.txt"), Path("Eval/list_eval_partition.txt"),
)  # fmt: skip
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
LIST = 1 << 28  # bytes of a list: ten times the published ones
SPLITS = ("train", "validation", "test")
PUBLISHED = {"train": 162_770, "validation": 19_867, "test": 19_962}


def find_celeba(root: Path, given: str = "") -> Path:
    """CelebA below ``root``, in a folder whose name begins with celeba; or in the folder ``given``.

    Raises:
        FileNotFoundError: it is not there, or lies otherwise; the message says what was looked for and what was found.
        ValueError: it is there more than once.
    """
    starts = [Path(given)] if given else list(candidates(root, ("celeba",)))
    places = [
        start
        for start in starts
        if (start / PICTURES).is_dir() and (start / ANNOTATIONS).is_file() and (start / PARTITION).is_file()
    ]
    return one_place(places, "CelebA", "celeba", given or str(root), starts, FORM, SOURCE)


@dataclass(frozen=True)
class Faces:
    """Faces of one split, and what is true of each.

    Args:
        folder: of the photographs.
        names: (N,) of their files, as the lists have them.
        truths: (N, 40) bool.
    """

    folder: Path
    names: Sequence[str]
    truths: Tensor

    def image(self, place: int) -> Tensor:
        """The photograph at a place, (3, H, W) bytes.

        Raises:
            UnreadableError: it cannot be used.
        """
        name = self.names[place]
        return read_rgb(as_spelled(self.folder / name), name)

    def first(self, count: int | None) -> Faces:
        """The first ``count`` of them; all for None."""
        return replace(self, names=self.names[:count], truths=self.truths[:count])


def read_faces(place: Path) -> dict[str, Faces]:
    """The faces of every split, from the two lists.

    Raises:
        ValueError: a list is damaged, or the two do not speak of the same faces; says which file and line.
    """
    names, truths = _attributes(place / ANNOTATIONS)
    splits = _partition(place / PARTITION)
    if list(splits) != names:
        strange = sorted(set(splits) ^ set(names))
        which = f"such as {strange[0]} in one of them only" if strange else "which they name in another order"
        raise ValueError(
            f"{place / PARTITION} lists {len(splits):,} faces and {ANNOTATIONS.name} {len(names):,}, {which}: "
            "unpack Anno and Eval again"
        )
    of = np.fromiter(splits.values(), dtype=np.int8, count=len(splits))
    found = {}
    for number, split in enumerate(SPLITS):
        index = np.flatnonzero(of == number)
        found[split] = Faces(place / PICTURES, [names[i] for i in index], truths[torch.from_numpy(index)])
    return found


def _attributes(path: Path) -> tuple[list[str], Tensor]:
    """The faces' names, and (N, 40) what is true of them."""
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise ValueError(f"{path}, line 1: expected the number of faces, got {lines[0] if lines else 'nothing'!r}")
    if tuple(lines[1].split()) != ATTRIBUTES:
        raise ValueError(f"{path}, line 2: expected the names of CelebA's forty attributes, got {lines[1][:60]!r}")
    rows = [line for line in lines[2:] if line.strip()]
    if int(lines[0]) != len(rows):
        raise ValueError(f"{path} says that it lists {int(lines[0]):,} faces and lists {len(rows):,}: unpack it again")
    names, signs = [], np.empty((len(rows), len(ATTRIBUTES)), dtype=np.int8)
    for place, row in enumerate(rows):
        name, *values = row.split()
        if len(values) != len(ATTRIBUTES) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"{path}, line {place + 3}: expected a file name and forty of 1 or -1, got {row[:60]!r}")
        names.append(name)
        signs[place] = [value == "1" for value in values]
    return names, torch.from_numpy(signs.astype(bool))


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, LIST).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line, found = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(
            f"{path}, line {line}: expected text in UTF-8, got the byte 0x{found:02x}: unpack it again, or save it as UTF-8"
        ) from None


def _partition(path: Path) -> dict[str, int]:
    """The split of each face, by name."""
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, *value = line.split()
        if value not in (["0"], ["1"], ["2"]):
            raise ValueError(f"{path}, line {number}: expected a file name and 0, 1 or 2, got {line[:60]!r}")
        if name in found:
            raise ValueError(f"{path}, line {number}: expected each face once, got {name} again: unpack Eval again")
        found[name] = int(value[0])
    return found


@dataclass(frozen=True)
class Squeezing:
    """Reads faces and squeezes them, whole, to the network's size.

    Args:
        faces: which.
        size: pixels along one side.
    """

    faces: Faces
    size: int

    def sample(self, place: int, order: int | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The image, (3, size, size) bytes, and what is true of it, (40,) numbers 0 or 1; nothing is drawn."""
        del order
        image = self.faces.image(place)
        if image.shape[1:] != (self.size, self.size):
            wide = functional.interpolate(image[None].float(), (self.size, self.size), mode="bilinear", antialias=True)
            image = wide[0].round().clamp(0, 255).to(torch.uint8)
        return image, {"attributes": self.faces.truths[place].float()}


@dataclass(frozen=True)
class FaceStream(ReadStream):
    """Faces that are read while they are needed; see :class:`.read_stream.ReadStream`.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        faces: of it.
        size: pixels along one side.
        workers: processes that read; 0 reads in this one.
        device: where samples are given.
        count: what was met so far.
    """

    split: str
    faces: Faces
    size: int
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    count: Count = field(default_factory=Count)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The forty attributes."""
        return ATTRIBUTES

    @property
    def name(self) -> str:
        """Data set and split."""
        return f"celeba, {self.split}"

    @property
    def kind(self) -> str:
        """``"image files"``."""
        return "image files"

    def __len__(self) -> int:
        return len(self.faces.names)

    def _sampler(self) -> Squeezing:
        return Squeezing(self.faces, self.size)

    def _samples(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> Samples:
        truths = targets["attributes"].to(self.device, non_blocking=True)
        columns = dict(zip(ATTRIBUTES, truths.unbind(dim=1), strict=True))
        return Samples(inputs.to(self.device, non_blocking=True), columns, len(inputs))


def checked_faces(root: str, given: str, images: int | None, tell: Tell | None) -> Checkup:
    """What lies below a root, whether the lists can be read, and which photographs cannot.

    Args:
        root: where it is looked for; ``given``: its folder, where it lies elsewhere.
        images: read so many of each split; all where it is None.
        tell: called with the split, the images read and the images to read.
    """
    report = Checkup(f"CelebA, looked for below {given or root}:\n{FORM}")
    try:
        splits = read_faces(find_celeba(Path(root), given))
    except (OSError, ValueError) as error:
        report.problems.append(str(error))
        return report
    for split, faces in splits.items():
        differs = "as published" if len(faces.names) == PUBLISHED[split] else f"published are {PUBLISHED[split]:,}"
        report.found.append(f"{split}: {len(faces.names):,} faces; {differs}")
        asked = replace(faces, names=ranked(list(faces.names), seed=0)[:images])
        read_each(report, f"celeba/{split}", asked.names, asked.image, tell)
    return report
