"""Folders of published data sets: the search for them, and the messages when they are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paretorch.workloads.formats.image_files import is_image_file


@dataclass(frozen=True)
class PublishedData:
    """A published data set.

    Args:
        title: its name.
        option: the workload's option that names its folder.
        layout: the expected files below the root, one line for each pattern.
        origin: where it is published; a sentence without its full stop.
    """

    title: str
    option: str
    layout: str
    origin: str

    @property
    def description(self) -> str:
        """Layout and origin, as ``paretorch data list`` prints them."""
        return f"{self.layout}\n{self.origin}"


def searched_folders(root: Path, given: str, prefixes: tuple[str, ...]) -> list[Path]:
    """The folders in which a data set is searched for.

    Args:
        root: its subfolders with a fitting name are searched, then the folder itself.
        given: the data set's own folder; if not empty, only this one is searched.
        prefixes: of the subfolders' names, in lower case.
    """
    if given:
        return [Path(given)]
    below = sorted(root.iterdir()) if root.is_dir() else []
    return [*(path for path in below if path.is_dir() and path.name.lower().startswith(prefixes)), root]


def only_folder(data: PublishedData, found: Sequence[Path], where: str, searched: Sequence[Path]) -> Path:
    """The only folder that has the layout of a data set.

    Args:
        data: the data set.
        found: folders that have its layout.
        where: the folder in which the search began, for messages.
        searched: folders that were searched.

    Raises:
        FileNotFoundError: there is none; the message has the expected layout and the content of the searched folders.
        ValueError: there are several.
    """
    if len(found) > 1:
        raise ValueError(
            f"{data.title} was found {len(found)} times: {', '.join(map(str, found))}. Select one: "
            f"{data.option}='{found[0]}'"
        )
    if found:
        return found[0]
    expected = "\n".join(f"    {line}" for line in data.layout.splitlines())
    listed = "\n".join(f"    {line}" for folder in searched for line in folder_summary(folder))
    raise FileNotFoundError(
        f"{data.title} was not found in {where}.\n  Expected, below {where}:\n{expected}\n  Found:\n{listed}\n  "
        f"{data.origin}. For another folder: {data.option}='FOLDER'"
    )


def visible_folders(folder: Path) -> list[str]:
    """The names of a folder's subfolders, sorted, without hidden ones; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def folder_summary(folder: Path, most: int = 6) -> list[str]:
    """The content of a folder, two levels deep, one line per folder.

    Args:
        folder: may be missing.
        most: number of subfolders with a line of their own.
    """
    if not folder.is_dir():
        return [f"{folder}: {'a file, not a folder' if folder.exists() else 'there is no such folder'}"]
    lines = [f"{folder}: {_file_counts(folder)}"]
    below = visible_folders(folder)
    lines += [f"{folder / name}: {_file_counts(folder / name)}" for name in below[:most]]
    return [*lines, f"and {len(below) - most} more folders"] if len(below) > most else lines


def _file_counts(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    folders = visible_folders(folder)
    kinds = Counter("images" if is_image_file(name) else f"{Path(name).suffix or 'other'} files" for name in names)
    parts = [f"{count:,} {kind}" for kind, count in sorted(kinds.items())]
    if folders:
        listed = ", ".join(folders[:4]) + (", ..." if len(folders) > 4 else "")
        parts.append(f"{len(folders):,} folder{'s' if len(folders) > 1 else ''} ({listed})")
    return ", ".join(parts) or "empty"
