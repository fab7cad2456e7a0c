"""A source's images -> what to train on, what to select on, what to report on: disjoint, by name and seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretorch.workloads.reading.selection import dealt, ranked
from paretorch.workloads.reading.source import Item, Place, Source

HELD_OUT = ("test", "validation", "train")  # the order in which parts are dealt: training takes what is left


class NotPackedError(LookupError):
    """A pack lacks images that were asked for."""


@dataclass(frozen=True)
class Chosen:
    """The images of each split.

    Args:
        groups: the classes in the order of their labels.
        parts: the images of ``train``, ``validation`` and ``test``, sorted by name.
        validation_from: ``"val"``, or ``"train"`` where there is no such folder.
    """

    groups: tuple[str, ...]
    parts: Mapping[str, tuple[Place, ...]]
    validation_from: str

    def items(self, part: str, masks: bool) -> tuple[Item, ...]:
        """The images of a part with their classes; -1 where masks are the labels."""
        numbers = {group: -1 if masks else number for number, group in enumerate(self.groups)}
        return tuple(Item(place.name, numbers[place.group]) for place in self.parts[part])


def split(source: Source, sizes: Mapping[str, int], seed: int, classes: int | None = None) -> Chosen:
    """Chooses images of the first classes by name, as many of each as of the others.

    Validation images come from the folder ``val`` where there is one, and are held out of ``train`` otherwise. Test
    images are held out of ``train``: they are the first by rank, so asking for more or fewer training images leaves
    them as they are.

    Args:
        source: images by folder and group.
        sizes: images of ``train``, ``validation`` and ``test``.
        seed: of the ranking.
        classes: how many; all groups where it is None.

    Raises:
        ValueError: there are fewer classes or images than asked for; the message says how many.
        NotPackedError: the source is a pack without some of the images.
    """
    available = dict(source.available("train"))
    if classes is not None and len(available) < classes:
        raise ValueError(
            f"fewer classes than asked for: {source.place} has {len(available):,} in train, asked are {classes:,}. Ask for "
            f"classes={len(available)} or fewer, or add folders"
        )
    groups = tuple(list(available)[:classes])
    folders = {"train": ("test", "train"), "val": ("validation",)} if source.has_validation else {"train": HELD_OUT}
    parts: dict[str, tuple[Place, ...]] = {}
    for folder, names in folders.items():
        there = source.available(folder)
        if empty := [group for group in groups if not there.get(group)]:
            raise ValueError(
                f"{source.place}: no images in {folder} of {_some(empty)}. Each class has a folder with at least one image"
                if any(empty)
                else f"{source.place}: no image of {folder} is both listed in the annotations and there"
            )
        places = dealt(
            {group: there[group] for group in groups}, {part: sizes[part] for part in names}, _in(source, folder)
        )
        ranks = {group: ranked(source.names(folder, group), seed) for group in groups}
        for part in names:
            parts[part] = tuple(_taken(source, folder, ranks, places[part]))
    return Chosen(groups, parts, "val" if source.has_validation else "train")


def everything(source: Source) -> tuple[Place, ...]:
    """All images of a source."""
    folders = ("train", "val") if source.has_validation else ("train",)
    return tuple(
        Place(folder, group, name)
        for folder in folders
        for group in source.available(folder)
        for name in source.names(folder, group)
    )


def _taken(
    source: Source, folder: str, ranks: Mapping[str, list[str]], places: Mapping[str, tuple[int, int]]
) -> list[Place]:
    taken = []
    for group, (begin, end) in places.items():
        if end > len(ranks[group]):
            raise NotPackedError(
                f"{source.place} holds {len(ranks[group]):,} images of {_in(source, folder)} {group}, needed are {end:,}"
            )
        taken += [Place(folder, group, name) for name in ranks[group][begin:end]]
    return sorted(taken, key=lambda place: place.name)


def _in(source: Source, folder: str) -> str:
    return f"{source.place}, {folder}"


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
