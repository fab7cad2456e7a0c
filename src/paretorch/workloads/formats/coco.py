"""COCO 2017 as published: image files, and lists of the objects in them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.workloads.formats.extensions import existing_path, lower_extension
from paretorch.workloads.formats.image_files import PIXELS, image_files_in, read_rgb
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders
from paretorch.workloads.formats.voc_masks import KNOWN, LABELS, NAMES, voc_mask
from paretorch.workloads.loading.image_crops import boxes_within, central_square, square_window
from paretorch.workloads.loading.image_source import SelectedImage, StoredSquare
from paretorch.workloads.loading.unreadable import shortened

COCO = PublishedData(
    "COCO 2017",
    "coco",
    """\
coco/annotations/instances_train2017.json
coco/annotations/instances_val2017.json
coco/train2017/*.jpg             or coco/images/train2017
coco/val2017/*.jpg               without it, images of train2017 are held out""",
    "COCO 2017 is published at cocodataset.org: train2017.zip, val2017.zip, annotations_trainval2017.zip",
)
MOST = 1 << 32  # bytes of a file of instances: nine times the published one
FOLDERS = {"train": "train2017", "val": "val2017"}


def find_coco(root: Path, given: str = "") -> CocoFolders:
    """COCO 2017 in ``given``, or in a subfolder of ``root`` whose name begins with coco or mscoco.

    Raises:
        FileNotFoundError, ValueError: as :func:`.locating.only_folder`.
    """
    searched = searched_folders(root, given, ("coco", "mscoco"))
    images = {
        folder: inner
        for folder in searched
        if (folder / "annotations" / f"instances_{FOLDERS['train']}.json").is_file()
        for inner in (folder / "images", folder)
        if (inner / FOLDERS["train"]).is_dir()
    }
    folder = only_folder(COCO, list(images), given or str(root), searched)
    return CocoFolders(folder, images[folder])


@dataclass(frozen=True)
class Instances:
    """The content of one file of instances.

    Args:
        file: its path.
        shapes: (H, W) of each image, by file name.
        objects: the image's objects of VOC's classes, as JSON to save memory: there are hundreds of thousands.
        boxes: (k, 6) annotation, class of VOC without the background, and left, upper edge, width and height in pixels, of the
            image's objects without crowd regions; nan for a box that is missing or malformed.
        crowds: number of crowd regions of VOC's classes.
        others: number of objects of COCO's other 60 categories, which count as background.
    """

    file: Path
    shapes: Mapping[str, tuple[int, int]]
    objects: Mapping[str, bytes]
    boxes: Mapping[str, NDArray[np.float64]]
    crowds: int
    others: int


def read_instances(file: Path) -> Instances:
    """Reads a file such as ``instances_train2017.json``.

    Raises:
        ValueError: it is not in COCO's format, or has categories that COCO 2017 does not have; the message names them.
    """
    state = file.stat()
    return _read(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(file: Path, size: int, changed: int) -> Instances:
    del size, changed  # they only decide whether the cached content is still valid
    try:
        values = json.loads(read_regular(file, MOST))
        images = _listed_images(values["images"])
        annotations = [
            (*(_integer(each, name) for name in ("id", "image_id", "category_id")), _is_crowd(each), each)
            for each in values["annotations"]
        ]
        categories = [(_integer(each, "id"), str(each.get("name", ""))) for each in values.get("categories", ())]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reasons = {KeyError: f"it has no {error}", RecursionError: "its lists or objects are nested too deeply"}
        reason = reasons.get(type(error), str(error))
        raise ValueError(
            f"{file} is not a file of COCO instances: {reason}. Expected a JSON object with images (id, file_name, height, "
            f"width) and annotations (id, image_id, category_id, segmentation, iscrowd)"
        ) from None
    if repeated := sorted(
        identity for identity, count in Counter(each[0] for each in annotations).items() if count > 1
    ):
        raise ValueError(f"{file} lists annotations more than once: ids {shortened(repeated, 10)}")
    _check_categories(file, categories, Counter(category for _, _, category, _, _ in annotations))
    if unlisted := sorted({image for _, image, _, _, _ in annotations if image not in images}):
        raise ValueError(f"{file}: annotations refer to images that it does not list: ids {shortened(unlisted, 10)}")
    objects: dict[str, list[Any]] = {}
    boxes: dict[str, list[list[float]]] = {}
    crowds = 0
    for identity, image, category, crowd, each in annotations:
        if category in LABELS:
            crowds += crowd
            object_ = [identity, LABELS[category], crowd, each.get("segmentation")]
            objects.setdefault(images[image][0], []).append(object_)
            if not crowd:
                boxes.setdefault(images[image][0], []).append(
                    [identity, LABELS[category] - 1, *_sides(each.get("bbox"))]
                )
    return Instances(
        file,
        shapes=dict(images.values()),
        objects={name: json.dumps(each, separators=(",", ":")).encode() for name, each in objects.items()},
        boxes={name: np.array(each, np.float64) for name, each in boxes.items()},
        crowds=crowds,
        others=sum(category not in LABELS for _, _, category, _, _ in annotations),
    )


def _listed_images(listed: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, tuple[int, int]]]:
    """File name and (H, W) of each image, by its id.

    Raises:
        ValueError: an image has no pixels or too many or no name, or two have one id or one file name.
    """
    images: dict[int, tuple[str, tuple[int, int]]] = {}
    names = set()
    for image in listed:
        identity, shape = _integer(image, "id"), (_integer(image, "height"), _integer(image, "width"))
        name = Path(str(image["file_name"])).name
        if not name.isprintable():  # an unpaired surrogate cannot be written to a file
            raise ValueError(f"the file_name of image {identity} is {name!r}"[:200])
        if min(shape) < 1 or math.prod(shape) > PIXELS:
            raise ValueError(f"image {identity} has {shape[1]} x {shape[0]} pixels, at most {PIXELS:,} are read"[:200])
        if identity in images or name in names:
            raise ValueError(f"it lists two images with the id {identity} or the file_name {name!r}"[:200])
        images[identity] = name, shape
        names.add(name)
    return images


def _integer(values: Mapping[str, Any], name: str) -> int:
    """An integer, which some programs write as 3.0 or as text."""
    number = int(values[name])
    if isinstance(values[name], bool) or (isinstance(values[name], float) and number != values[name]):
        raise ValueError(f"{name} is an integer, got {values[name]!r}")
    return number


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd is 0 or 1, got {crowd!r}"[:200])
    return bool(crowd)


def _sides(given: Any) -> list[float]:
    """Four finite numbers, or four nan."""
    try:
        sides = [float(number) for number in given if type(number) in (int, float)]
    except (TypeError, ValueError, OverflowError):
        sides = []
    return sides if len(sides) == 4 and all(map(math.isfinite, sides)) else [math.nan] * 4


def _check_categories(file: Path, listed: list[tuple[int, str]], used: Mapping[int, int]) -> None:
    cure = (
        "Expected the 80 categories of COCO 2017 with their own ids, 1 (person) to 90 (toothbrush), not renumbered ones"
    )
    unknown = {identity: f"{identity} ({name!r})" for identity, name in listed if identity not in KNOWN}
    unknown |= {
        identity: f"{identity} (on {count} objects)" for identity, count in used.items() if identity not in KNOWN
    }
    if unknown:
        names = shortened([unknown[key] for key in sorted(unknown)], 10)
        raise ValueError(f"{file}: unknown category ids: {names}. {cure}")
    for identity, name in listed:
        if identity in NAMES and name and name not in NAMES[identity]:
            raise ValueError(f"{file}: category {identity} is {NAMES[identity][0]!r} in COCO, got {name!r}. {cure}")


@dataclass(frozen=True)
class CocoFolders:
    """COCO 2017 as image files and instances; all images are one group.

    Args:
        root: the folder that contains ``annotations``.
        images: the folder that contains ``train2017``: the same, or ``images`` within it.
    """

    root: Path
    images: Path

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.root)

    @cached_property
    def has_validation(self) -> bool:
        """Whether both the images and the instances of ``val2017`` exist."""
        return self.annotations("val").is_file() and (self.images / FOLDERS["val"]).is_dir()

    def annotations(self, folder: str) -> Path:
        """The file of instances of ``train`` or ``val``."""
        return self.root / "annotations" / f"instances_{FOLDERS[folder]}.json"

    def instances(self, folder: str) -> Instances:
        """The objects in the images of ``train`` or ``val``."""
        return read_instances(self.annotations(folder))

    def available(self, folder: str) -> Mapping[str, int]:
        """Number of images that are listed and exist."""
        return {"": len(self.names(folder, ""))} if folder in self._listed else {}

    def names(self, folder: str, group: str) -> Sequence[str]:
        """Images that are listed and exist."""
        del group
        return [f"{FOLDERS[folder]}/{name}" for name in self._listed[folder] if self._exists(folder, name)]

    def missing(self, folder: str) -> list[str]:
        """Images that are listed and do not exist."""
        return [name for name in self._listed[folder] if not self._exists(folder, name)]

    def file(self, name: str) -> Path:
        """The path of an image."""
        return existing_path(self.images / name)

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of the files of instances."""
        files = [self.annotations(folder) for folder in FOLDERS]
        return {file.name: _digest(file) for file in files if file.is_file()}

    def reader(self, items: Sequence[SelectedImage], edge: int) -> CocoReader:
        """A reader of the selected images and their masks."""
        shapes, objects = [], []
        known = {name: folder for folder, name in FOLDERS.items()}
        for item in items:
            folder, _, name = item.name.partition("/")
            instances = self.instances(known[folder])
            shapes.append(instances.shapes[name])
            objects.append(instances.objects.get(name, b"[]"))
        return CocoReader(self.images, tuple(items), edge, tuple(shapes), tuple(objects))

    def boxes(self, items: Sequence[SelectedImage]) -> tuple[Tensor, ...]:
        """(k, 5) class of VOC, 0 to 19, and box of the objects of each selected image, relative to its central square.

        Crowd regions are no objects; of overlapping objects all are.

        Raises:
            ValueError: an object has no box of positive width and height within the image; the message names the annotation.
        """
        found = []
        known = {name: folder for folder, name in FOLDERS.items()}
        for item in items:
            folder, _, name = item.name.partition("/")
            instances = self.instances(known[folder])
            rows = instances.boxes.get(name, np.empty((0, 6)))
            height, width = instances.shapes[name]
            good = (rows[:, 4:] > 0).all(axis=1) & (rows[:, 2:4] < [width, height]).all(axis=1)
            good &= (rows[:, 2:4] + rows[:, 4:] > 0).all(axis=1)
            if not good.all():
                number = int(rows[~good][0, 0])
                raise ValueError(
                    f"{instances.file}: annotation {number} of {name} has no bbox of four numbers with width and height above "
                    "0 within the image, which detection requires: unpack the annotations again, or omit detection"
                )
            left, top = rows[:, 2] / width, rows[:, 3] / height
            edges = [left, top, left + rows[:, 4] / width, top + rows[:, 5] / height]
            objects = torch.from_numpy(np.stack([rows[:, 1], *edges], axis=1)).float()
            inside = boxes_within(objects, square_window(height, width), height, width)
            found.append(inside[inside[:, 0] >= 0])
        return tuple(found)

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        return {f: sorted(self.instances(f).shapes) for f in FOLDERS if self.annotations(f).is_file()}

    @cached_property
    def _files(self) -> dict[str, set[str]]:
        return {
            folder: set(map(lower_extension, image_files_in(self.images / name))) for folder, name in FOLDERS.items()
        }

    def _exists(self, folder: str, name: str) -> bool:
        return lower_extension(name) in self._files[folder]


def _digest(file: Path) -> str:
    with open_regular(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@dataclass(frozen=True)
class CocoReader:
    """A reader of image files that draws the masks of their objects."""

    root: Path
    items: tuple[SelectedImage, ...]
    edge: int
    shapes: tuple[tuple[int, int], ...]
    objects: tuple[bytes, ...]
    kind: str = "image files"

    def read(self, index: int) -> StoredSquare:
        """One image and its mask."""
        name = self.items[index].name
        image = read_rgb(existing_path(self.root / name), name, shape=self.shapes[index])
        mask = voc_mask(json.loads(self.objects[index]), self.shapes[index], name)
        image, square = central_square(image, mask, self.edge)
        assert square is not None
        return image.permute(1, 2, 0).contiguous(), square
