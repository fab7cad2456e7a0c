"""Reports of what was found in a data set's folder and which problems there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from paretorch.workloads.formats.locating import PublishedData
from paretorch.workloads.loading.unreadable import MAX_UNREADABLE, UnreadableError

MOST_LISTED = 20  # names of unreadable images
Progress = Callable[[str, int, int], None]  # called with the data set, the images read and the images to read
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class DataReport:
    """What was found at one location.

    Args:
        title: the data set and where it was searched for.
        found: lines about what exists.
        problems: lines about what must be repaired; empty if there is nothing to repair.
    """

    title: str
    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def attempt(self, step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
        """The result of a call; None if it raises an OSError or ValueError, which is added to the problems."""
        try:
            return step(*args, **options)
        except (OSError, ValueError) as error:
            if not any(str(error) in problem for problem in self.problems):
                self.problems.append(str(error))
            return None


@runtime_checkable
class CheckableData(Protocol):
    """A workload that reads files and can report on them."""

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """What was found and which problems there are.

        Args:
            images: number of images of each part of the data that are read; all if None.
            progress: called with the part, the images read and the images to read.
        """
        ...


def report_on(data: PublishedData, folder: str) -> DataReport:
    """An empty report on a data set that is searched for below ``folder``."""
    return DataReport(f"{data.title}, expected below {folder}:\n{data.layout}")


def report_counts(
    data: PublishedData,
    root: str,
    find: Callable[[], Path],
    read: Callable[[Path, str], tuple[object, Sized]],
    published: Mapping[str, int],
    unit: str,
    cure: str,
    progress: Progress | None,
) -> DataReport:
    """The report on a data set of a few large files: each is read, and the numbers of images are compared.

    Args:
        data: its title and layout.
        root: the folder in which it is searched for.
        find: returns the data set's folder; raises OSError or ValueError.
        read: returns images and labels of a split in that folder; raises likewise.
        published: number of images by split.
        unit: what is counted.
        cure: for a wrong count.
        progress: called after each split.
    """
    report = report_on(data, root)
    folder = report.attempt(find)
    if folder is None:
        return report
    report.found.append(f"in {folder}")
    for split, expected in published.items():
        found = report.attempt(lambda split: len(read(folder, split)[1]), split)
        if found is None:
            continue
        report.found.append(f"{split}: {found:,} {unit} (published: {expected:,})")
        if found != expected:
            report.problems.append(f"{split} has {found:,} images, {expected:,} are published: {cure}")
        if progress is not None:
            progress(f"{data.title}, {split}", found, found)
    return report


def read_images(
    report: DataReport,
    title: str,
    names: Sequence[str],
    read: Callable[[int], object],
    progress: Progress | None,
    prefix: str = "",
) -> None:
    """Reads images one by one and reports those that cannot be read.

    Args:
        report: to extend.
        title: of the data, for ``progress``.
        names: of the images.
        read: the image with an index; every exception is reported, and the next image is read.
        progress: called after each image.
        prefix: of the images' names in the report.
    """
    reasons: dict[str, str] = {}
    for index, name in enumerate(names):
        reasons.update((prefix + file, reason) for file, reason in read_failure(name, read, index).items())
        if progress is not None:
            progress(title, index + 1, len(names))
    report_unreadable(report, len(names), reasons)


def read_failure(name: str, read: Callable[[int], object], index: int) -> dict[str, str]:
    """The reason why one image cannot be read, by the name of its file; empty if it can be read.

    A check continues after any bad file, so every exception is a reason.
    """
    try:
        read(index)
    except UnreadableError as error:
        return {error.name: error.reason}
    except Exception as error:
        return {name: f"{type(error).__name__}: {error}"}
    return {}


def report_unreadable(report: DataReport, read: int, reasons: Mapping[str, str]) -> None:
    """Reports how many images were read, which of them are unreadable, and why."""
    report.found.append(f"{read:,} images read, {len(reasons):,} of them unreadable")
    if reasons:
        lines = [f"  {name}: {reason}" for name, reason in sorted(reasons.items())[:MOST_LISTED]]
        more = [f"  and {len(reasons) - MOST_LISTED} more"] * (len(reasons) > MOST_LISTED)
        too_many = len(reasons) > MAX_UNREADABLE * read
        effect = f"more than {100 * MAX_UNREADABLE:g} %: training stops" if too_many else "training leaves them out"
        report.problems.append("\n".join([f"{len(reasons):,} images cannot be read, {effect}:", *lines, *more]))


def report_text(reports: Sequence[DataReport]) -> str:
    """The reports as text."""
    parts = []
    for report in reports:
        lines = [report.title, *(f"  {line}" for line in report.found)]
        lines += [f"  PROBLEM: {problem}" for problem in report.problems]
        parts.append("\n".join([*lines, *["  no problems"] * (not report.problems)]))
    return "\n\n".join(parts)
