"""Where ImageNet and COCO lie below a folder: what is looked for, what is found, and how it must lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from paretorch.workloads.formats.coco import FOLDERS, CocoFolders
from paretorch.workloads.formats.imagenet import ClassFolders, classes_in
from paretorch.workloads.formats.pictures import is_picture, pictures_in

IMAGENET = """\
imagenet/train/CLASS/*.JPEG      a folder for each class, named as you like (n01440764, ...)
imagenet/val/CLASS/*.JPEG        the same classes; without it, images of train are held out"""
IMAGENET_SOURCE = "ImageNet (ILSVRC 2012, CLS-LOC) is published at image-net.org, for those who register"
COCO = """\
coco/annotations/instances_train2017.json
coco/annotations/instances_val2017.json
coco/train2017/*.jpg             or coco/images/train2017
coco/val2017/*.jpg               without it, images of train2017 are held out"""
COCO_SOURCE = "COCO 2017 is published at cocodataset.org: train2017.zip, val2017.zip, annotations_trainval2017.zip"
INSIDE = (Path(), Path("Data/CLS-LOC"), Path("ILSVRC/Data/CLS-LOC"))  # as the archives unpack


def find_imagenet(root: Path, given: str = "") -> ClassFolders:
    """ImageNet below ``root``, in a folder whose name begins with imagenet or ilsvrc; or in the folder ``given``.

    Raises:
        FileNotFoundError: it is not there, or lies otherwise; the message says what was looked for and what was found.
        ValueError: it is there more than once.
    """

    def fits(place: Path) -> bool:
        return any(pictures_in(place / "train" / name) for name in classes_in(place / "train"))

    starts = [Path(given)] if given else list(candidates(root, ("imagenet", "ilsvrc")))
    places = [place for start in starts for place in _unlike(start / inside for inside in INSIDE) if fits(place)]
    return ClassFolders(
        one_place(places, "ImageNet", "imagenet", given or str(root), starts, IMAGENET, IMAGENET_SOURCE)
    )


def find_coco(root: Path, given: str = "") -> CocoFolders:
    """COCO 2017 below ``root``, in a folder whose name begins with coco or mscoco; or in the folder ``given``.

    Raises:
        FileNotFoundError: it is not there, or lies otherwise; the message says what was looked for and what was found.
        ValueError: it is there more than once.
    """

    def images(place: Path) -> Path | None:
        there = [inner for inner in (place, place / "images") if (inner / FOLDERS["train"]).is_dir()]
        return there[0] if there and (place / "annotations" / f"instances_{FOLDERS['train']}.json").is_file() else None

    starts = [Path(given)] if given else list(candidates(root, ("coco", "mscoco")))
    places = [start for start in starts if images(start)]
    place = one_place(places, "COCO 2017", "coco", given or str(root), starts, COCO, COCO_SOURCE)
    found = images(place)
    assert found is not None
    return CocoFolders(place, found)


def candidates(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Subfolders of ``root`` whose name begins with one of ``names``, then the folder itself."""
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower().startswith(names))
    yield root


def _unlike(places: Iterator[Path]) -> list[Path]:
    return list(dict.fromkeys(places))


def one_place(
    places: list[Path], title: str, option: str, where: str, starts: list[Path], form: str, published: str
) -> Path:
    """The one place where a data set lies.

    Args:
        places: that are of the right form.
        title: of the data set.
        option: of the workload that names its folder.
        where: it was looked for.
        starts: folders that were looked into.
        form: how it must lie, a line each.
        published: where it is published.

    Raises:
        FileNotFoundError: there is none; the message says what was looked for and what was found.
        ValueError: there are several.
    """
    if len(places) > 1:
        found = ", ".join(map(str, places))
        raise ValueError(f"{title} is there {len(places)} times: {found}. Say which is meant: {option}='{places[0]}'")
    if places:
        return places[0]
    looked = "\n".join(f"    {line}" for line in form.splitlines())
    found = "\n".join(f"    {line}" for start in starts for line in contents(start))
    raise FileNotFoundError(
        f"{title} was not found in {where}.\n  Looked for, below {where}:\n{looked}\n  Found:\n{found}\n  {published}. "
        f"A folder elsewhere: {option}='FOLDER'"
    )


def contents(folder: Path, most: int = 6) -> list[str]:
    """What a folder holds, two levels deep, a line for each subfolder.

    Args:
        folder: may be missing.
        most: subfolders that are shown one by one.
    """
    if not folder.is_dir():
        return [f"{folder}: {'a file, not a folder' if folder.exists() else 'there is no such folder'}"]
    lines = [f"{folder}: {_summary(folder)}"]
    below = classes_in(folder)
    lines += [f"{folder / name}: {_summary(folder / name)}" for name in below[:most]]
    return [*lines, f"and {len(below) - most} more folders"] if len(below) > most else lines


def _summary(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    folders = classes_in(folder)
    kinds = Counter("images" if is_picture(name) else f"{Path(name).suffix or 'other'} files" for name in names)
    parts = [f"{count:,} {kind}" for kind, count in sorted(kinds.items())]
    if folders:
        shown = ", ".join(folders[:4]) + (", ..." if len(folders) > 4 else "")
        parts.append(f"{len(folders):,} folder{'s' if len(folders) > 1 else ''} ({shown})")
    return ", ".join(parts) or "empty"
