"""Reports on data sets of labelled scenes and on CelebA; every file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from paretorch.workloads.checks.data_report import DataReport, Progress, read_images, report_on
from paretorch.workloads.dense.labels import UNLABELLED, LabelKind
from paretorch.workloads.dense.losses import labelled_count
from paretorch.workloads.dense.scene_sampler import SceneReader
from paretorch.workloads.formats.celeba import CELEBA, PUBLISHED, find_celeba, read_faces
from paretorch.workloads.formats.cityscapes import CITYSCAPES, PARTS, CityFolders
from paretorch.workloads.formats.dense_arrays import ArrayFolder
from paretorch.workloads.formats.locating import PublishedData, folder_summary
from paretorch.workloads.loading.selection import ordered


def report_arrays(
    data: PublishedData,
    root: str,
    find: Callable[[], ArrayFolder],
    published: Mapping[str, int],
    size: tuple[int, int],
    images: int | None,
    progress: Progress | None,
) -> DataReport:
    """The report on a data set of arrays.

    Args:
        data: its title and layout.
        root: the folder in which it is searched for.
        find: the data set; raises OSError or ValueError.
        published: number of scenes of each part.
        size: (H, W) as published.
        images: number of scenes of each part that are read; all if None.
        progress: called with the part, the scenes read and the scenes to read.
    """
    report = report_on(data, root)
    folder = report.attempt(find)
    if folder is None:
        return report
    for part in PARTS:
        try:
            names = folder.names(part)
            reader = folder.reader(part, ordered(names, seed=0)[:images])
        except ValueError as error:
            content = [f"    {line}" for line in folder_summary(folder.root / part)]
            report.problems.append("\n".join([str(error), *content]))
            continue
        as_published = len(names) == published[part] and reader.size == size
        expected = "as published" if as_published else f"published are {published[part]:,} of {size[0]} x {size[1]}"
        report.found.append(f"{part}: {len(names):,} scenes of {reader.size[0]} x {reader.size[1]} pixels; {expected}")
        _read_scenes(report, f"{folder.root.name}/{part}", reader, progress, prefix=f"{part}/")
    return report


def report_cities(
    root: str, find: Callable[[], CityFolders], images: int | None, progress: Progress | None
) -> DataReport:
    """The report on the published folders of Cityscapes; arguments as in :func:`report_arrays`."""
    report = report_on(CITYSCAPES, root)
    folders = report.attempt(find)
    if folders is None:
        return report
    for part in PARTS:
        names = report.attempt(folders.names, part)
        if names is None:
            continue
        cities = len({name.partition("/")[0] for name in names})
        report.found.append(f"{part}: {len(names):,} scenes of {cities} cities")
        reader = folders.reader(part, ordered(names, seed=0)[:images])
        _read_scenes(report, f"cityscapes/{part}", reader, progress)
    return report


def _read_scenes(
    report: DataReport, title: str, reader: SceneReader, progress: Progress | None, prefix: str = ""
) -> None:
    """Reads scenes one by one, and reports tasks of which no pixel has a label; arguments as :func:`.data_report.read_images`."""
    kinds: dict[str, LabelKind] = {}
    labelled: set[str] = set()

    def read(index: int) -> None:
        scene = reader.read(index)
        kinds.update(scene.kinds)
        labelled.update(task for task, label in scene.labels.items() if labelled_count(scene.kinds[task], label[None]))

    read_images(report, title, reader.names, read, progress, prefix)
    for task, kind in kinds.items():
        if task not in labelled:
            report.problems.append(
                f"{title}: no pixel of the {len(reader.names):,} scenes has a label of the task {task}: expected other values "
                f"than {UNLABELLED[kind]:g}. Copy these files again, or omit the task"
            )


def report_faces(root: str, given: str, images: int | None, progress: Progress | None) -> DataReport:
    """The report on CelebA.

    Args:
        root: the folder in which it is searched for.
        given: its own folder, if not empty.
        images: number of photographs of each split that are read; all if None.
        progress: called with the split, the photographs read and the photographs to read.
    """
    report = report_on(CELEBA, given or root)
    splits = report.attempt(lambda: read_faces(find_celeba(Path(root), given))) or {}
    for split, faces in splits.items():
        expected = "as published" if len(faces.names) == PUBLISHED[split] else f"published are {PUBLISHED[split]:,}"
        report.found.append(f"{split}: {len(faces.names):,} faces; {expected}")
        selected = replace(faces, names=ordered(list(faces.names), seed=0)[:images])
        read_images(report, f"celeba/{split}", selected.names, selected.image, progress)
    return report
