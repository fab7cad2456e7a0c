"""Reports on ImageNet, COCO and packs; every image is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from paretorch.workloads.checks.data_report import DataReport, Progress, read_failure, report_on, report_unreadable
from paretorch.workloads.formats.coco import COCO, FOLDERS, CocoFolders, find_coco
from paretorch.workloads.formats.imagenet import IMAGENET, ClassFolders, find_imagenet
from paretorch.workloads.formats.locating import PublishedData, folder_summary
from paretorch.workloads.loading.image_source import ImageSource, SelectedImage, SquareReader
from paretorch.workloads.loading.image_splits import all_images
from paretorch.workloads.loading.selection import ordered
from paretorch.workloads.loading.unreadable import shortened
from paretorch.workloads.loading.workers import batch_indices, data_loader
from paretorch.workloads.packs.pack import Pack

EDGE = 64  # pixels to which images are decoded
CHUNK = 32  # images between two calls of ``progress``


def report_images(
    root: Path,
    imagenet: str = "",
    coco: str = "",
    *,
    images: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[DataReport]:
    """The reports on ImageNet, COCO and the packs below a folder.

    Args:
        root: the folder in which ``imagenet``, ``coco`` and ``packed`` are searched for.
        imagenet: ImageNet's own folder, if not empty.
        coco: COCO's own folder, if not empty.
        images: number of images of each data set that are read, selected by name; all if None.
        workers: processes that read.
        progress: called with the data set, the images read and the images to read.
    """
    reports = []
    steps: tuple[tuple[PublishedData, Callable[[DataReport, Path, str], ImageSource], str], ...] = (
        (IMAGENET, _imagenet, imagenet),
        (COCO, _coco, coco),
    )
    for data, described, given in steps:
        report = report_on(data, str(root))
        reports.append(report)
        source = report.attempt(described, report, root, given)
        if source is not None:
            report.attempt(_read, report, source, images, workers, data.title, progress)
    return reports + [_pack(path.parent, progress) for path in sorted(root.glob("packed/*/pack.json"))]


def _imagenet(report: DataReport, root: Path, given: str) -> ClassFolders:
    source = find_imagenet(root, given)
    for folder in ("train", "val"):
        counts = source.available(folder)
        if not any(counts.values()):
            found = folder_summary(source.root / folder, most=0)[0]
            report.found.append(f"no {folder} in folders of classes ({found}): validation images are held out of train")
            continue
        sizes = sorted(counts.values())
        per_class = f"{sizes[0]:,} to {sizes[-1]:,}" if sizes[0] < sizes[-1] else f"{sizes[0]:,}"
        report.found.append(f"{folder}: {sum(sizes):,} images in {len(sizes):,} classes, {per_class} in each")
        if empty := [name for name, count in counts.items() if not count]:
            report.problems.append(f"{folder}: no images in {shortened(empty)}: add images, or remove the folders")
    train, val = set(source.available("train")), set(source.available("val"))
    if val and train != val:
        parts = [f"without {shortened(sorted(train - val))}"] * bool(train - val)
        parts += [f"with {shortened(sorted(val - train))}, which train does not have"] * bool(val - train)
        report.problems.append(f"val has other classes than train: {', '.join(parts)}")
    return source


def _coco(report: DataReport, root: Path, given: str) -> CocoFolders:
    source = find_coco(root, given)
    for folder, name in FOLDERS.items():
        if folder == "val" and not source.has_validation:
            missing_file = source.annotations("val") if (source.images / name).is_dir() else source.images / name
            report.found.append(f"{name}: there is no {missing_file}: validation images are held out of train2017")
            continue
        instances, missing = source.instances(folder), source.missing(folder)
        report.found.append(
            f"{name}: {len(instances.shapes):,} images listed, {len(instances.shapes) - len(missing):,} of them present; "
            f"{len(instances.objects):,} show objects of VOC's classes ({instances.crowds:,} crowd regions, ignored); "
            f"{instances.others:,} objects of other classes are background"
        )
        if missing:
            report.problems.append(
                f"{name}: {len(missing):,} images are listed and missing: {shortened(missing)}. They are not used"
            )
    return source


def _read(
    report: DataReport,
    source: ImageSource,
    images: int | None,
    workers: int,
    title: str,
    progress: Progress | None,
) -> None:
    names = ordered(sorted(image.name for image in all_images(source)), seed=0)[:images]
    reader = source.reader([SelectedImage(name) for name in names], EDGE)
    chunks = batch_indices(len(names), CHUNK, order=None)
    reasons: dict[str, str] = {}
    for chunk, failed in zip(chunks, data_loader(ReadFailures(reader), chunks, workers), strict=True):
        reasons.update(failed)
        if progress is not None:
            progress(title, chunk[-1] + 1, len(names))
    report_unreadable(report, len(names), reasons)


def _pack(folder: Path, progress: Progress | None) -> DataReport:
    report = DataReport(f"pack {folder}")
    pack = report.attempt(Pack.open, folder)
    if pack is None:
        return report
    manifest = pack.manifest
    report.found.append(
        f"{manifest.rows:,} images of {manifest.edge} x {manifest.edge} pixels for {manifest.task}, "
        f"{manifest.rows * manifest.row_bytes / 1e9:.2f} GB"
    )
    rows_done = None if progress is None else lambda done, total: progress(f"pack {folder.name}", done, total)
    if broken := report.attempt(pack.verify, rows_done):
        report.problems.append(
            f"{len(broken):,} rows differ from what was written: {shortened(broken)}. Remove the folder {folder} and run "
            "`paretorch data pack` again"
        )
    return report


@dataclass(frozen=True)
class ReadFailures(Dataset[dict[str, str]]):
    """Reasons, by name, why images cannot be read."""

    reader: SquareReader

    def __getitem__(self, indices: list[int]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for index in indices:
            failed |= read_failure(self.reader.items[index].name, self.reader.read, index)
        return failed
