"""What data there is below a folder, whether it lies as it must, and which images cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch.utils.data import Dataset

from paretorch.workloads.formats.coco import FOLDERS, CocoFolders
from paretorch.workloads.formats.imagenet import ClassFolders
from paretorch.workloads.formats.layout import COCO, IMAGENET, contents, find_coco, find_imagenet
from paretorch.workloads.formats.pictures import UnreadableError
from paretorch.workloads.packs.pack import Manifest, Pack
from paretorch.workloads.reading.selection import ranked
from paretorch.workloads.reading.source import Item, Reader, Source
from paretorch.workloads.reading.splitting import everything
from paretorch.workloads.reading.stream import BEARABLE
from paretorch.workloads.reading.workers import loader

EDGE = 64  # pixels to which images are decoded when only whether they can be is asked
SHOWN = 20  # names in a list
Tell = Callable[[str, int, int], None]  # called with the data set, the images read and the images to read


@dataclass
class Checkup:
    """What was found in one place.

    Args:
        title: what was looked for.
        found: lines that say what is there.
        problems: lines that say what must be mended; empty where all is well.
    """

    title: str
    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@runtime_checkable
class Checkable(Protocol):
    """A workload that reads files and says how they lie."""

    def checkup(self, *, images: int | None = None, tell: Tell | None = None) -> list[Checkup]:
        """What was looked for, what was found, and what must be mended.

        Args:
            images: read so many of each part of the data; all where it is None.
            tell: called with what is read, the images read and the images to read.
        """
        ...


def check_counts(
    title: str,
    place: str,
    find: Callable[[], Path],
    count: Callable[[Path, str], int],
    published: Mapping[str, int],
    wording: tuple[str, str],
    tell: Tell | None,
) -> Checkup:
    """Whether a data set of whole files is there, can be read, and has as many images as are published.

    Args:
        title: of the data set.
        place: where it is looked for, and how it must lie.
        find: its folder; raises FileNotFoundError or ValueError.
        count: reads a split in that folder and says how many images it has; raises likewise.
        published: images by split.
        wording: what is counted, and how to mend a wrong count.
        tell: called when a split has been read.
    """
    report = Checkup(f"{title}, looked for {place}")
    counted, cure = wording
    try:
        folder = find()
    except (OSError, ValueError) as error:
        report.problems.append(str(error))
        return report
    report.found.append(f"in {folder}")
    for split, expected in published.items():
        try:
            found = count(folder, split)
        except (OSError, ValueError) as error:
            report.problems.append(str(error))
            continue
        report.found.append(f"{split}: {found:,} {counted} (published: {expected:,})")
        if found != expected:
            report.problems.append(f"{split} has {found:,} images, {expected:,} are published: {cure}")
        if tell is not None:
            tell(f"{title}, {split}", found, found)
    return report


def check(
    root: Path,
    imagenet: str = "",
    coco: str = "",
    *,
    images: int | None = None,
    workers: int = 0,
    tell: Tell | None = None,
) -> list[Checkup]:
    """Looks ImageNet, COCO and packs up below ``root`` and reads every image.

    Args:
        root: the folder in which ``imagenet``, ``coco`` and ``packed`` are looked for.
        imagenet: ImageNet's folder, where it lies elsewhere.
        coco: COCO's folder, where it lies elsewhere.
        images: read so many of each data set, drawn by name; all where it is None.
        workers: processes that read.
        tell: called with the data set, the images read and the images to read.
    """
    reports = []
    for title, look, arguments, form in (
        ("ImageNet", _imagenet, (root, imagenet), IMAGENET),
        ("COCO 2017", _coco, (root, coco), COCO),
    ):
        report = Checkup(f"{title}, looked for below {root}:\n{form}")
        reports.append(report)
        try:
            source = look(report, *arguments)
            _read(report, source, images, workers, title, tell)
        except (OSError, ValueError) as error:
            report.problems.append(str(error))
    reports += [_pack(folder.parent, tell) for folder in sorted(root.glob("packed/*/pack.json"))]
    return reports


def _imagenet(report: Checkup, root: Path, given: str) -> ClassFolders:
    source = find_imagenet(root, given)
    for folder in ("train", "val"):
        counts = source.available(folder)
        if not any(counts.values()):
            found = "; ".join(contents(source.root / folder, most=0)[:1])
            report.found.append(f"no {folder} in folders of classes ({found}): validation images are held out of train")
            continue
        sizes = sorted(counts.values())
        many = f"{sizes[0]:,} to {sizes[-1]:,}" if sizes[0] < sizes[-1] else f"{sizes[0]:,}"
        report.found.append(f"{folder}: {sum(sizes):,} images in {len(sizes):,} classes, {many} in each")
        if empty := [name for name, count in counts.items() if not count]:
            report.problems.append(f"{folder}: no images in {_some(empty)}: put them there, or remove the folders")
    train, val = set(source.available("train")), set(source.available("val"))
    if val and train != val:
        missing, strange = sorted(train - val), sorted(val - train)
        parts = [f"without {_some(missing)}"] * bool(missing) + [f"with {_some(strange)}, which train lacks"] * bool(
            strange
        )
        report.problems.append(f"val has other classes than train: {', '.join(parts)}")
    return source


def _coco(report: Checkup, root: Path, given: str) -> CocoFolders:
    source = find_coco(root, given)
    for folder, name in FOLDERS.items():
        if folder == "val" and not source.has_validation:
            lacking = source.annotations("val") if (source.images / name).is_dir() else source.images / name
            report.found.append(f"{name}: there is no {lacking}: validation images are held out of train2017")
            continue
        instances, missing = source.instances(folder), source.missing(folder)
        report.found.append(
            f"{name}: {len(instances.shapes):,} images listed, {len(instances.shapes) - len(missing):,} of them there; "
            f"{len(instances.objects):,} show objects of VOC's classes ({instances.crowds:,} crowd regions, ignored); "
            f"{instances.others:,} objects of other classes are background"
        )
        if missing:
            report.problems.append(
                f"{name}: {len(missing):,} images are listed and not there: {_some(missing)}. They are not used"
            )
    return source


def _read(report: Checkup, source: Source, images: int | None, workers: int, title: str, tell: Tell | None) -> None:
    names = sorted(place.name for place in everything(source))
    names = ranked(names, seed=0)[:images]
    reader = source.reader([Item(name) for name in names], EDGE)
    chunks = [list(range(start, min(start + 32, len(names)))) for start in range(0, len(names), 32)]
    reasons: dict[str, str] = {}
    for chunk, failed in zip(chunks, loader(Probing(reader), chunks, workers), strict=True):
        reasons.update(failed)
        if tell is not None:
            tell(title, chunk[-1] + 1, len(names))
    _say_unreadable(report, len(names), reasons)


def read_each(
    report: Checkup, title: str, names: Sequence[str], read: Callable[[int], object], tell: Tell | None, below: str = ""
) -> None:
    """Reads images one by one, and enters how many could not be.

    Args:
        report: where it is entered.
        title: of what is read, for ``tell``.
        names: of the images.
        read: the image at a place; whatever it raises is entered, and the next one is read.
        tell: called when one was read.
        below: what stands before the names of images.
    """
    reasons: dict[str, str] = {}
    for place, name in enumerate(names):
        reasons.update((below + file, reason) for file, reason in failure(name, read, place).items())
        if tell is not None:
            tell(title, place + 1, len(names))
    _say_unreadable(report, len(names), reasons)


def failure(name: str, read: Callable[[int], object], place: int) -> dict[str, str]:
    """Why one image cannot be read, by the name of its file; empty where it can be.

    A check reads what training would, and goes on: no file may end it, so every error is a reason.
    """
    try:
        read(place)
    except UnreadableError as error:
        return {error.name: error.reason}
    except Exception as error:
        return {name: f"{type(error).__name__}: {error}"}
    return {}


def training_refuses(report: Checkup, data: Callable[[], object]) -> Checkup:
    """The report with what training would say before it begins, unless that is in it already.

    Args:
        report: of a workload's files.
        data: of the workload; raises OSError or ValueError where it cannot be trained.
    """
    try:
        data()
    except (OSError, ValueError) as error:
        if not any(str(error) in problem for problem in report.problems):
            report.problems.append(str(error))
    return report


def _say_unreadable(report: Checkup, read: int, reasons: Mapping[str, str]) -> None:
    """Enters how many images were read, and which could not be, and why."""
    report.found.append(f"{read:,} images read, {len(reasons):,} of them unreadable")
    if reasons:
        lines = [f"  {name}: {reason}" for name, reason in sorted(reasons.items())[:SHOWN]]
        more = [f"  and {len(reasons) - SHOWN} more"] * (len(reasons) > SHOWN)
        stops = "more than 1 %: training stops" if len(reasons) > BEARABLE * read else "training leaves them out"
        report.problems.append("\n".join([f"{len(reasons):,} images cannot be read, {stops}:", *lines, *more]))


def _pack(folder: Path, tell: Tell | None) -> Checkup:
    report = Checkup(f"pack {folder}")
    try:
        pack = Pack.open(folder)
        manifest: Manifest = pack.manifest
        report.found.append(
            f"{manifest.rows:,} images of {manifest.edge} x {manifest.edge} pixels for {manifest.task}, "
            f"{manifest.rows * manifest.row_bytes / 1e9:.2f} GB"
        )
        if broken := pack.verify(
            None if tell is None else lambda done, total: tell(f"pack {folder.name}", done, total)
        ):
            report.problems.append(
                f"{len(broken):,} rows are not what was written: {_some(broken)}. Remove the folder {folder} and run "
                "`paretorch data pack` again"
            )
    except (OSError, ValueError) as error:
        report.problems.append(str(error))
    return report


@dataclass(frozen=True)
class Probing(Dataset[dict[str, str]]):
    """Reads images and says which cannot be."""

    reader: Reader

    def __getitem__(self, places: list[int]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for place in places:
            failed |= failure(self.reader.items[place].name, self.reader.read, place)
        return failed


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
