"""CelebA as published: aligned photographs of faces, forty attributes of each, and their splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.regular_files import read_regular
from paretorch.workloads.formats.extensions import existing_path
from paretorch.workloads.formats.image_files import read_rgb
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders

DIGITS = 12  # of a number of faces
CELEBA = PublishedData(
    "CelebA",
    "celeba",
    """\
celeba/Img/img_align_celeba/000001.jpg   202,599 faces of 178 x 218 pixels
celeba/Anno/list_attr_celeba.txt         the count; forty names; then a line for each face, with 1 or -1 for each name
celeba/Eval/list_eval_partition.txt      a line for each face, with 0 (train), 1 (validation) or 2 (test)""",
    "CelebA is published at mmlab.ie.cuhk.edu.hk/projects/CelebA.html: the aligned and cropped images, Anno and Eval",
)
IMAGES, ANNOTATIONS, PARTITION = (
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
MOST = 1 << 28  # bytes of a list: ten times the published size
# faces of each split, in the order of the numbers of the splits
PUBLISHED = {"train": 162_770, "validation": 19_867, "test": 19_962}


def find_celeba(root: Path, given: str = "") -> Path:
    """CelebA in ``given``, or in a subfolder of ``root`` whose name begins with celeba.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    searched = searched_folders(root, given, ("celeba",))
    found = [
        folder
        for folder in searched
        if (folder / IMAGES).is_dir() and (folder / ANNOTATIONS).is_file() and (folder / PARTITION).is_file()
    ]
    return only_folder(CELEBA, found, given or str(root), searched)


@dataclass(frozen=True)
class Faces:
    """The faces of one split and their attributes.

    Args:
        folder: of the photographs.
        names: (N,) names of the files, as in the lists.
        attributes: (N, 40) bool.
    """

    folder: Path
    names: Sequence[str]
    attributes: Tensor

    def image(self, index: int) -> Tensor:
        """One photograph, (3, H, W) bytes.

        Raises:
            UnreadableError: it cannot be read.
        """
        name = self.names[index]
        return read_rgb(existing_path(self.folder / name), name)

    def first(self, count: int | None) -> Faces:
        """The first ``count`` faces; all if None."""
        return replace(self, names=self.names[:count], attributes=self.attributes[:count])


def read_faces(folder: Path) -> dict[str, Faces]:
    """The faces of each split, from the two lists.

    Raises:
        ValueError: a list is damaged, or the lists have different faces; the message names file and line.
    """
    names, attributes = _read_attributes(folder / ANNOTATIONS)
    splits = _read_partition(folder / PARTITION)
    if list(splits) != names:
        different = sorted(set(splits) ^ set(names))
        which = f"such as {different[0]} in one of them only" if different else "in another order"
        raise ValueError(
            f"{folder / PARTITION} lists {len(splits):,} faces and {ANNOTATIONS.name} {len(names):,}, {which}: "
            "unpack Anno and Eval again"
        )
    numbers = np.fromiter(splits.values(), dtype=np.int8, count=len(splits))
    found = {}
    for number, split in enumerate(PUBLISHED):
        index = np.flatnonzero(numbers == number)
        found[split] = Faces(folder / IMAGES, [names[i] for i in index], attributes[torch.from_numpy(index)])
    return found


def _read_attributes(path: Path) -> tuple[list[str], Tensor]:
    """The names of the faces, and their (N, 40) attributes."""
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdecimal() or len(lines[0].strip()) > DIGITS:
        raise ValueError(f"{path}, line 1: expected the number of faces, got {lines[0][:60] if lines else 'nothing'!r}")
    if tuple(lines[1].split()) != ATTRIBUTES:
        raise ValueError(f"{path}, line 2: expected the names of CelebA's forty attributes, got {lines[1][:60]!r}")
    rows = [line for line in lines[2:] if line.strip()]
    if int(lines[0]) != len(rows):
        raise ValueError(f"{path} declares {int(lines[0]):,} faces and lists {len(rows):,}: unpack it again")
    names, attributes = [], np.empty((len(rows), len(ATTRIBUTES)), dtype=bool)
    for index, row in enumerate(rows):
        name, *values = row.split()
        if len(values) != len(ATTRIBUTES) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"{path}, line {index + 3}: expected a file name and forty of 1 or -1, got {row[:60]!r}")
        names.append(name)
        attributes[index] = [value == "1" for value in values]
    return names, torch.from_numpy(attributes)


def _read_partition(path: Path) -> dict[str, int]:
    """The number of each face's split, by the name of the face."""
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


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path, MOST).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line, found = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(
            f"{path}, line {line}: expected text in UTF-8, got the byte 0x{found:02x}: unpack it again, or save it as UTF-8"
        ) from None
