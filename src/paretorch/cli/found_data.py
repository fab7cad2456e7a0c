"""Which of the workloads' image data this machine has, and as much of them as there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paretorch.workloads.formats.coco import find_coco
from paretorch.workloads.formats.imagenet import find_imagenet
from paretorch.workloads.imagenet_coco import TASKS, ImagenetCoco
from paretorch.workloads.loading.image_source import ImageSource
from paretorch.workloads.packs.pack import Pack
from paretorch.workloads.streams import Plain

CLASSES, TRAIN, HELD_OUT = 100, 50_000, 5_000  # the protocol's, where there are as many


@dataclass(frozen=True)
class Found:
    """What was found of one task's images.

    Args:
        where: words about it: a folder, or what is missing.
        source: the images; None where they are not there.
    """

    where: str
    source: ImageSource | None


def look(root: str) -> dict[str, Found]:
    """The packs or folders of both tasks of ``imagenet_coco`` below ``root``; image files are not opened."""
    workload = ImagenetCoco(root=root)
    return {task: _found(task, workload.pack_folder(task), Path(root)) for task in TASKS}


def _found(task: str, pack: Path, root: Path) -> Found:
    if (pack / "pack.json").exists():
        return Found(f"a pack in {pack}", Pack.open(pack))
    try:
        source = find_imagenet(root) if task == "classification" else find_coco(root)
    except FileNotFoundError as error:
        return Found(str(error).splitlines()[0], None)
    return Found(source.location, source)


def fitted(sources: Mapping[str, ImageSource], images: int | None = None) -> dict[str, Plain]:
    """Options of ``imagenet_coco`` that ask for no more than there is: the protocol's numbers, or fewer.

    Args:
        sources: by task.
        images: of each task to train on; the protocol's 50,000 where it is None.
    """
    classes = min(CLASSES, len(sources["classification"].available("train")))
    sizes = [_sizes(source, classes if task == "classification" else None) for task, source in sources.items()]
    train, validation, test = (min(size[place] for size in sizes) for place in range(3))
    return {
        "classes": classes,
        "train": min(images or TRAIN, train),
        "validation": min(HELD_OUT, validation),
        "test": min(HELD_OUT, test),
    }


def _sizes(source: ImageSource, classes: int | None) -> tuple[int, int, int]:
    """Images to train on, to select on and to report on; a tenth each of what is left out of training."""

    def there(folder: str) -> int:
        groups = list(source.available(folder).values())[:classes]
        return min(groups, default=0) * len(groups)

    held_out = max(1, min(HELD_OUT, there("train") // 10))
    validation = max(1, there("val")) if source.has_validation else held_out
    return there("train") - held_out - (0 if source.has_validation else held_out), validation, held_out
