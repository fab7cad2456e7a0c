"""Disjoint training, validation and test images of a source, selected by name and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretorch.workloads.loading.image_source import ImageSource, SelectedImage, SourceImage
from paretorch.workloads.loading.selection import assigned, ordered
from paretorch.workloads.loading.unreadable import shortened

HELD_OUT = ("test", "validation", "train")  # the order of assignment: training receives what remains


class NotPackedError(LookupError):
    """A pack does not contain all selected images."""


@dataclass(frozen=True)
class ImageSplits:
    """The images of each split.

    Args:
        groups: the classes in the order of their labels.
        parts: the images of ``train``, ``validation`` and ``test``, sorted by name.
        validation_from: ``"val"``, or ``"train"`` if there is no such folder.
    """

    groups: tuple[str, ...]
    parts: Mapping[str, tuple[SourceImage, ...]]
    validation_from: str

    def items(self, part: str, masks: bool) -> tuple[SelectedImage, ...]:
        """The images of a part with their classes; -1 if masks are the labels."""
        numbers = {group: -1 if masks else number for number, group in enumerate(self.groups)}
        return tuple(SelectedImage(image.name, numbers[image.group]) for image in self.parts[part])


def split_images(source: ImageSource, sizes: Mapping[str, int], seed: int, classes: int | None = None) -> ImageSplits:
    """Selects equally many images of each of the first classes by name.

    Validation images are taken from the folder ``val`` if it exists, and are held out of ``train`` otherwise. Test images are
    held out of ``train``; they are first in the order, so they do not depend on the number of training images.

    Args:
        source: images by folder and group.
        sizes: number of images of ``train``, ``validation`` and ``test``.
        seed: of the order.
        classes: number of classes; all groups if None.

    Raises:
        ValueError: there are too few classes or images; the message has the numbers.
        NotPackedError: the source is a pack without some of the images.
    """
    available = dict(source.available("train"))
    if classes is not None and len(available) < classes:
        raise ValueError(
            f"too few classes: {source.location} has {len(available):,} in train, the options require {classes:,}. Reduce "
            f"them to classes={len(available)} or less, or add folders"
        )
    groups = tuple(list(available)[:classes])
    folders = {"train": ("test", "train"), "val": ("validation",)} if source.has_validation else {"train": HELD_OUT}
    parts: dict[str, tuple[SourceImage, ...]] = {}
    for folder, names in folders.items():
        counts = source.available(folder)
        if empty := [group for group in groups if not counts.get(group)]:
            raise ValueError(
                f"{source.location}: no images in {folder} of {shortened(empty)}. Each class has a folder with at least one image"
                if any(empty)
                else f"{source.location}: no image of {folder} is both listed in the annotations and present"
            )
        sizes_here = {part: sizes[part] for part in names}
        ranges = assigned({group: counts[group] for group in groups}, sizes_here, f"{source.location}, {folder}")
        orders = {group: ordered(source.names(folder, group), seed) for group in groups}
        for part in names:
            parts[part] = _images(source, folder, orders, ranges[part])
    return ImageSplits(groups, parts, "val" if source.has_validation else "train")


def all_images(source: ImageSource) -> tuple[SourceImage, ...]:
    """All images of a source."""
    folders = ("train", "val") if source.has_validation else ("train",)
    return tuple(
        SourceImage(folder, group, name)
        for folder in folders
        for group in source.available(folder)
        for name in source.names(folder, group)
    )


def _images(
    source: ImageSource, folder: str, orders: Mapping[str, list[str]], ranges: Mapping[str, tuple[int, int]]
) -> tuple[SourceImage, ...]:
    images = []
    for group, (begin, end) in ranges.items():
        if end > len(orders[group]):
            raise NotPackedError(
                f"{source.location} contains {len(orders[group]):,} images of {folder} {group}, the options require {end:,}"
            )
        images += [SourceImage(folder, group, name) for name in orders[group][begin:end]]
    return tuple(sorted(images, key=lambda image: image.name))
