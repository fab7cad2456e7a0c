"""The image data of ``imagenet_coco`` on this machine, and the numbers of images in them."""

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

CLASSES, TRAIN, HELD_OUT = 100, 50_000, 5_000  # of the protocol, if there are as many


@dataclass(frozen=True)
class TaskImages:
    """The images of one task.

    Args:
        description: the folder or pack, or what is missing.
        source: the images; None if there are none.
    """

    description: str
    source: ImageSource | None


def find_image_sources(root: str) -> dict[str, TaskImages]:
    """The packs or folders of both tasks of ``imagenet_coco`` below ``root``; image files are not opened."""
    workload = ImagenetCoco(root=root)
    return {task: _find(task, workload.pack_folder(task), Path(root)) for task in TASKS}


def _find(task: str, pack: Path, root: Path) -> TaskImages:
    if (pack / "pack.json").exists():
        return TaskImages(f"a pack in {pack}", Pack.open(pack))
    try:
        source = find_imagenet(root) if task == "classification" else find_coco(root)
    except FileNotFoundError as error:
        return TaskImages(str(error).splitlines()[0], None)
    return TaskImages(source.location, source)


def size_options(sources: Mapping[str, ImageSource], images: int | None = None) -> dict[str, Plain]:
    """Numbers of classes and images for ``imagenet_coco``: those of the protocol, or fewer if there are fewer.

    Args:
        sources: images by task.
        images: training images of each task; None for the protocol's 50,000.
    """
    classes = min(CLASSES, len(sources["classification"].available("train")))
    sizes = [_split_sizes(source, classes if task == "classification" else None) for task, source in sources.items()]
    train, validation, test = (min(size[split] for size in sizes) for split in range(3))
    return {
        "classes": classes,
        "train": min(images or TRAIN, train),
        "validation": min(HELD_OUT, validation),
        "test": min(HELD_OUT, test),
    }


def _split_sizes(source: ImageSource, classes: int | None) -> tuple[int, int, int]:
    """Available images for training, validation and test. A split without a folder gets a tenth of the training images."""

    def count(folder: str) -> int:
        groups = list(source.available(folder).values())[:classes]
        return min(groups, default=0) * len(groups)

    held_out = max(1, min(HELD_OUT, count("train") // 10))
    validation = max(1, count("val")) if source.has_validation else held_out
    return count("train") - held_out - (0 if source.has_validation else held_out), validation, held_out
