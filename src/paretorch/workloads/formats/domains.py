"""Office-31, Office-Home and other data sets in their form: a folder for each domain, with a folder of images for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from paretorch.workloads.formats.image_files import image_files_in, read_rgb
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders, visible_folders
from paretorch.workloads.loading.selection import ordered
from paretorch.workloads.loading.unreadable import shortened

OFFICE = PublishedData(
    "Office-31 or Office-Home",
    "office",
    """\
office/amazon/images/back_pack/*.jpg     Office-31: amazon, dslr, webcam, with the same 31 classes, 4,110 images
office/Art/Alarm_Clock/*.jpg             Office-Home: Art, Clipart, Product, Real World, with the same 65 classes, 15,588 images
office/DOMAIN/CLASS/*.jpg                other data sets in this form, with domains='DOMAIN,...'""",
    "Office-31 is published at faculty.cc.gatech.edu/~judy/domainadapt, Office-Home at hemanthdv.org/officeHomeDataset.html",
)
DOMAINS = {
    "office_31": ("amazon", "dslr", "webcam"),
    "office_home": ("Art", "Clipart", "Product", "Real_World"),
}
PUBLISHED = {
    "amazon": 2_817, "dslr": 498, "webcam": 795,
    "Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real_World": 4_357,
}  # fmt: skip
INSIDE = (Path(), Path("Original_images"), Path("domain_adaptation_images"))  # paths within the unpacked archives
PREFIXES = ("office", "domain_adaptation", "original_images")
SHARE = 0.2  # of the images of a class for validation, and for test


@dataclass(frozen=True)
class DomainFolders:
    """The images of several domains that have the same classes.

    Args:
        root: the folder of the domains.
        folders: of the classes, by domain.
        classes: in the order of their labels.
    """

    root: Path
    folders: Mapping[str, Path]
    classes: tuple[str, ...]

    def names(self, domain: str) -> dict[str, list[str]]:
        """The names of the images of each class."""
        return {name: image_files_in(self.folders[domain] / name) for name in self.classes}

    def splits(self, domain: str, seed: int) -> dict[str, tuple[DomainImage, ...]]:
        """The images of each split: of each class a fifth for test and a fifth for validation, at least one, by name and seed.

        Raises:
            ValueError: a class has fewer than three images.
        """
        found: dict[str, list[DomainImage]] = {"train": [], "validation": [], "test": []}
        names = self.names(domain)
        if few := [name for name, files in names.items() if len(files) < len(found)]:
            raise ValueError(
                f"{self.folders[domain]} has fewer than three images of {shortened(few)}: each class needs one for training, "
                "validation and test. Add images, or remove the class from every domain"
            )
        for label, (name, files) in enumerate(names.items()):
            order = [DomainImage(f"{name}/{file}", label) for file in ordered(files, seed)]
            held_out = max(1, round(SHARE * len(order)))
            found["test"] += order[:held_out]
            found["validation"] += order[held_out : 2 * held_out]
            found["train"] += order[2 * held_out :]
        return {split: tuple(sorted(images, key=lambda image: image.name)) for split, images in found.items()}


@dataclass(frozen=True)
class DomainImage:
    """An image of a domain.

    Args:
        name: its path below the domain's folder of classes.
        label: its class.
    """

    name: str
    label: int


@dataclass(frozen=True)
class DomainReader:
    """A reader of the images of one domain; it can be pickled.

    Args:
        domain: for messages.
        folder: of the classes.
        images: in their order.
        least: sufficient pixels of the shorter side.
    """

    domain: str
    folder: Path
    images: tuple[DomainImage, ...]
    least: int

    def read(self, index: int) -> Tensor:
        """(3, H, W) bytes.

        Raises:
            UnreadableError: the image cannot be read.
        """
        name = self.images[index].name
        return read_rgb(self.folder / name, f"{self.domain}/{name}", least=self.least)


def find_domains(root: Path, domains: Sequence[str], given: str = "") -> DomainFolders:
    """The folders of the domains in ``given``, or below ``root`` or a subfolder whose name begins with office.

    Spaces, hyphens, underscores and case of the domains' names make no difference; a domain's classes are in its folder
    or in a folder ``images`` there.

    Args:
        root: the folder in which the search begins.
        domains: their names.
        given: the folder of the domains, if not empty.

    Raises:
        FileNotFoundError: there is no folder with all domains; the message has the expected layout.
        ValueError: there are several, or the domains have different classes.
    """
    searched = searched_folders(root, given, PREFIXES)
    places = dict.fromkeys(folder / inside for folder in searched for inside in INSIDE)
    found = {place: folders for place in places if (folders := _domains_in(place, domains))}
    place = only_folder(OFFICE, list(found), given or str(root), searched)
    folders = found[place]
    classes = {domain: visible_folders(folder) for domain, folder in folders.items()}
    everywhere = sorted(set.union(*map(set, classes.values())))
    for domain, names in classes.items():
        if absent := sorted(set(everywhere) - set(names)):
            raise ValueError(
                f"{folders[domain]} has no folder of {shortened(absent)}, which another domain has: all domains have the same "
                "classes. Unpack it again"
            )
    return DomainFolders(place, folders, tuple(everywhere))


def _domains_in(place: Path, domains: Sequence[str]) -> dict[str, Path]:
    """The folder of classes of each domain; empty unless all are there."""
    present = {_plain(name): place / name for name in visible_folders(place)}
    found = {}
    for domain in domains:
        folder = present.get(_plain(domain))
        if folder is None:
            return {}
        folder = folder / "images" if (folder / "images").is_dir() else folder
        if not visible_folders(folder):
            return {}
        found[domain] = folder
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
