"""COCO 2017 instances on disk: which images there are, and what is drawn on each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from paretorch.storage.regular_files import open_regular, read_regular
from paretorch.workloads.formats.extensions import as_spelled, plain
from paretorch.workloads.formats.pictures import pictures_in, read_rgb
from paretorch.workloads.formats.voc_masks import KNOWN, LABELS, NAMES, mask_of
from paretorch.workloads.reading.geometry import squared
from paretorch.workloads.reading.source import Example, Item

MOST = 1 << 32  # bytes of a file of instances: nine times the published one
FOLDERS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class Instances:
    """One file of instances.

    Args:
        file: where it was read.
        shapes: (H, W) of each image, by file name.
        objects: the image's objects of VOC's classes, as JSON: compact, since there are hundreds of thousands.
        crowds: how many crowd regions of VOC's classes there are.
        others: how many objects are of COCO's other 60 categories, which count as background.
    """

    file: Path
    shapes: Mapping[str, tuple[int, int]]
    objects: Mapping[str, bytes]
    crowds: int
    others: int


def read_instances(file: Path) -> Instances:
    """Reads ``instances_train2017.json`` or its like.

    Raises:
        ValueError: it is not of COCO's form, or has categories that COCO 2017 does not have; the message names them.
    """
    state = file.stat()
    return _read(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(file: Path, size: int, changed: int) -> Instances:
    del size, changed
    try:
        values = json.loads(read_regular(file, MOST))
        images = {
            int(image["id"]): (Path(str(image["file_name"])).name, (int(image["height"]), int(image["width"])))
            for image in values["images"]
        }
        annotations = [
            (int(each["id"]), int(each["image_id"]), int(each["category_id"]), bool(each.get("iscrowd", 0)), each)
            for each in values["annotations"]
        ]
        categories = [(int(each["id"]), str(each.get("name", ""))) for each in values.get("categories", ())]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reasons = {KeyError: f"it has no {error}", RecursionError: "its lists or objects are nested too deeply"}
        reason = reasons.get(type(error), str(error))
        raise ValueError(
            f"{file} is not a file of COCO instances: {reason}. Expected a JSON object with images (id, file_name, height, "
            f"width) and annotations (id, image_id, category_id, segmentation, iscrowd)"
        ) from None
    _check_categories(file, categories, Counter(category for _, _, category, _, _ in annotations))
    if strangers := sorted({image for _, image, _, _, _ in annotations if image not in images}):
        raise ValueError(f"{file}: annotations name images that it does not list: ids {_some(strangers)}")
    drawn: dict[str, list[Any]] = {}
    crowds = 0
    for identity, image, category, crowd, each in annotations:
        if category in LABELS:
            crowds += crowd
            drawn.setdefault(images[image][0], []).append([identity, LABELS[category], crowd, each.get("segmentation")])
    return Instances(
        file,
        shapes=dict(images.values()),
        objects={name: json.dumps(objects, separators=(",", ":")).encode() for name, objects in drawn.items()},
        crowds=crowds,
        others=sum(category not in LABELS for _, _, category, _, _ in annotations),
    )


def _digest(file: Path) -> str:
    with open_regular(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check_categories(file: Path, listed: list[tuple[int, str]], used: Mapping[int, int]) -> None:
    cure = (
        "Expected the 80 categories of COCO 2017 with their own ids, 1 (person) to 90 (toothbrush), not renumbered ones"
    )
    unknown = {identity: f"{identity} ({name!r})" for identity, name in listed if identity not in KNOWN}
    unknown |= {
        identity: f"{identity} (on {count} objects)" for identity, count in used.items() if identity not in KNOWN
    }
    if unknown:
        raise ValueError(f"{file}: unknown category ids: {_some([unknown[key] for key in sorted(unknown)])}. {cure}")
    for identity, name in listed:
        if identity in NAMES and name and name not in NAMES[identity]:
            raise ValueError(f"{file}: category {identity} is {NAMES[identity][0]!r}, here it is {name!r}. {cure}")


def _some(values: list[Any], most: int = 10) -> str:
    shown = ", ".join(map(str, values[:most]))
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown


@dataclass(frozen=True)
class CocoFolders:
    """COCO 2017 as image files and instances; all images are one group.

    Args:
        root: the folder that holds ``annotations``.
        images: the folder that holds ``train2017``: the same, or ``images`` within it.
    """

    root: Path
    images: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    @cached_property
    def has_validation(self) -> bool:
        """Whether the images and the instances of ``val2017`` are there."""
        return self.annotations("val").is_file() and (self.images / FOLDERS["val"]).is_dir()

    def annotations(self, folder: str) -> Path:
        """The file of instances of ``train`` or ``val``."""
        return self.root / "annotations" / f"instances_{FOLDERS[folder]}.json"

    def instances(self, folder: str) -> Instances:
        """What is drawn on the images of ``train`` or ``val``."""
        return read_instances(self.annotations(folder))

    def available(self, folder: str) -> Mapping[str, int]:
        """Images that are both listed and there."""
        return {"": len(self.names(folder, ""))} if folder in self._listed else {}

    def names(self, folder: str, group: str) -> Sequence[str]:
        """Images that are both listed and there."""
        del group
        return [f"{FOLDERS[folder]}/{name}" for name in self._listed[folder] if plain(name) in self._there[folder]]

    def file(self, name: str) -> Path:
        """Where the image lies."""
        return as_spelled(self.images / name)

    def fingerprint(self) -> Mapping[str, str]:
        """The files of instances."""
        files = [self.annotations(folder) for folder in FOLDERS]
        return {file.name: _digest(file) for file in files if file.is_file()}

    def missing(self, folder: str) -> list[str]:
        """Images that are listed and not there."""
        return [name for name in self._listed[folder] if plain(name) not in self._there[folder]]

    def reader(self, items: Sequence[Item], edge: int) -> CocoReader:
        """Decodes the files and draws the masks."""
        shapes, objects = [], []
        known = {name: folder for folder, name in FOLDERS.items()}
        for item in items:
            folder, _, name = item.name.partition("/")
            instances = self.instances(known[folder])
            shapes.append(instances.shapes[name])
            objects.append(instances.objects.get(name, b"[]"))
        return CocoReader(self.images, tuple(items), edge, tuple(shapes), tuple(objects))

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        return {f: sorted(self.instances(f).shapes) for f in FOLDERS if self.annotations(f).is_file()}

    @cached_property
    def _there(self) -> dict[str, set[str]]:
        return {folder: set(map(plain, pictures_in(self.images / name))) for folder, name in FOLDERS.items()}


@dataclass(frozen=True)
class CocoReader:
    """Decodes image files and draws the masks of their objects."""

    root: Path
    items: tuple[Item, ...]
    edge: int
    shapes: tuple[tuple[int, int], ...]
    objects: tuple[bytes, ...]
    kind: str = "image files"

    def read(self, index: int) -> Example:
        """One image and its mask."""
        name = self.items[index].name
        image = read_rgb(as_spelled(self.root / name), name, shape=self.shapes[index])
        mask = mask_of(json.loads(self.objects[index]), self.shapes[index], name)
        image, square = squared(image, mask, self.edge)
        assert square is not None
        return image.permute(1, 2, 0).contiguous(), square
