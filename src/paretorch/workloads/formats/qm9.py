"""QM9 as the package qm9pack includes it: three CSV files of molecules, their coordinates and properties."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paretorch.storage.regular_files import open_regular
from paretorch.workloads.formats.cells import number
from paretorch.workloads.formats.locating import PublishedData, only_folder, searched_folders
from paretorch.workloads.formats.package_files import package_file, package_version

PACKAGE, EXTRA = "qm9pack", "data"
FILES = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
PUBLISHED = 130_831  # molecules: 133,885 less 3,054 whose structure was not confirmed
REINSTALL = "pip install --force-reinstall --no-deps 'qm9pack==1.0.3'"
QM9 = PublishedData(
    "QM9",
    "root",
    "\n".join(f"qm9/{name}   a line of names, then a line for each molecule" for name in FILES),
    "QM9 is published at doi.org/10.6084/m9.figshare.c.978904; these files are part of the package qm9pack (pypi.org), which "
    f"pip install 'paretorch[{EXTRA}]' installs. It is read if the folder has no such files",
)
ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}  # atomic number by symbol
MEV = 27_211.386245988  # of a Hartree (CODATA 2018)
# column and factor from its unit to that of the task, in the order of the benchmark's tasks
COLUMNS = {
    "mu": ("Dipole_debye", 1.0),
    "alpha": ("Polarizability_bohr3", 1.0),
    "HOMO": ("HOMO_au", MEV),
    "LUMO": ("LUMO_au", MEV),
    "R2": ("R2_bohr2", 1.0),
    "ZPVE": ("ZPVE_au", MEV),
    "U0": ("InternalEnergy_0K_au", MEV),
    "U": ("InternalEnergy_298K_au", MEV),
    "H": ("Enthalphy_298K_au", MEV),  # spelled like this in the files
    "G": ("GibbsFreeEnergy_298K_au", MEV),
    "Cv": ("Heatcapacity_Cv_cal_mol_K", 1.0),
}
UNITS = {"mu": "D", "alpha": "Bohr^3", "R2": "Bohr^2", "Cv": "cal/mol/K"}  # meV otherwise
# energies of the free atoms in Hartree at B3LYP/6-31G(2df,p), as published with QM9: doi.org/10.6084/m9.figshare.1057643
ATOMS = {
    "U0": {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730},
    "U": {"H": -0.498857, "C": -37.845355, "N": -54.582445, "O": -75.063163, "F": -99.717314},
    "H": {"H": -0.497912, "C": -37.844411, "N": -54.581501, "O": -75.062219, "F": -99.716370},
    "G": {"H": -0.510927, "C": -37.861317, "N": -54.598897, "O": -75.079532, "F": -99.733544},
}
REQUIRED = ("XYZ_file", "N_atoms", "Elements", "XYZ_Ang", *(column for column, _ in COLUMNS.values()))
MOST = 1 << 30  # bytes of a file: thirteen times the published size
BETWEEN = re.compile(r"\]\s*,\s*\[")  # the coordinates of two atoms
LONGEST = 1 << 20  # characters of a line; the published ones have at most 3,000
MOST_ATOMS = 1000  # of a molecule: memory for a batch grows with the square


@dataclass(frozen=True)
class MoleculeFiles:
    """The files of a folder and the names of their molecules.

    Args:
        folder: of the files.
        names: (n,) of the molecules, in the order of the files.
    """

    folder: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class Molecules:
    """Molecules and their properties.

    Args:
        atoms: (n, A, 4) atomic numbers and coordinates in Angstrom; A is the largest number of atoms, and rows beyond those of a
            molecule are 0.
        properties: (n, 11) of :data:`COLUMNS`, float64, in the units of the tasks; energies U0, U, H and G are those of
            atomisation.
    """

    atoms: Tensor
    properties: Tensor


def find_qm9(root: Path) -> Path:
    """The folder of the files: ``root``, or a subfolder whose name begins with qm9; otherwise that of the installed package.

    Raises:
        ValueError: several subfolders have the files.
        ModuleNotFoundError, FileNotFoundError: there are no files, and the package is missing or has none.
    """
    searched = searched_folders(root, "", ("qm9",))
    found = [folder for folder in searched if all((folder / name).is_file() for name in FILES)]
    return (
        only_folder(QM9, found, str(root), searched)
        if found
        else package_file(PACKAGE, f"data/{FILES[0]}", EXTRA).parent
    )


def file_stamps(folder: Path) -> tuple[int, ...]:
    """The times of modification of the files; 0 for a missing one."""
    paths = [folder / name for name in FILES]
    return tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in paths)


def source_of(folder: Path) -> str:
    """The package and its version, or the folder."""
    return f"{PACKAGE} {package_version(PACKAGE)}" if _is_package(folder) else str(folder)


def list_molecules(folder: Path) -> MoleculeFiles:
    """The names of all molecules; their lines are counted, not parsed.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has other columns, a molecule is in the files twice, or the package has another number of molecules
            than :data:`PUBLISHED`.
    """
    names: list[str] = []
    for name in FILES:
        path = folder / name
        with _opened(path) as file:
            _header(file, path)
            names += [line.split(b",", 1)[0].strip(b'" ').decode("utf-8", "replace") for line in _lines(file, path)]
    if len(set(names)) < len(names):
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        repeated = next(name for name in names if counts[name] > 1)
        raise ValueError(f"{folder}: expected each molecule once, got {repeated} again: {REINSTALL}")
    if _is_package(folder) and len(names) != PUBLISHED:
        raise ValueError(
            f"{PACKAGE} {package_version(PACKAGE)} has {len(names):,} molecules, expected {PUBLISHED:,}: {REINSTALL}"
        )
    return MoleculeFiles(folder, tuple(names))


def read_molecules(files: MoleculeFiles, selected: Sequence[int]) -> Molecules:
    """Molecules by their position in the files.

    Args:
        files: of the folder.
        selected: (n,) distinct positions; the result has their order.

    Raises:
        ValueError: a line is damaged, a molecule has an unknown element or no atom, or a number is not finite; the message
            names file and line.
    """
    rank = {position: row for row, position in enumerate(selected)}
    atoms: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = [np.empty((0, 4), np.float32)] * len(selected)
    properties = np.empty((len(selected), len(COLUMNS)))
    start = 0
    for name in FILES:
        path = files.folder / name
        with _opened(path) as file:
            columns = _header(file, path)
            count = 0
            for count, line in enumerate(_lines(file, path), start=1):
                row = rank.get(start + count - 1)
                if row is not None:
                    atoms[row], properties[row] = _molecule(line, columns, f"{path}, line {count + 1}")
        start += count
    largest = max(len(each) for each in atoms)
    padded = np.zeros((len(selected), largest, 4), np.float32)
    for row, each in enumerate(atoms):
        padded[row, : len(each)] = each
    return Molecules(torch.from_numpy(padded), torch.from_numpy(properties))


def _molecule(
    line: bytes, columns: dict[str, int], where: str
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], list[float]]:
    """(N, 4) atoms and the properties of one line."""
    try:
        (cells,) = csv.reader([line.decode("utf-8")], strict=True)
        found = {name: cells[place] for name, place in columns.items()}
        symbols = [str(symbol) for symbol in json.loads(found["Elements"].replace("'", '"'))]
        places = _places(found["XYZ_Ang"])
        numbers = np.array(places, dtype=np.float64).reshape(-1)
        count = int(number(found["N_atoms"]))
        raw = {task: number(found[column].strip()) for task, (column, _) in COLUMNS.items()}
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, csv.Error) as error:
        raise ValueError(f"{where}: expected a molecule as in qm9pack 1.0.3 ({error}): {REINSTALL}") from None
    name = found["XYZ_file"]
    if unknown := sorted(set(symbols) - set(ELEMENTS)):
        raise ValueError(f"{where}: molecule {name} has the elements {unknown}, expected {', '.join(ELEMENTS)} only")
    if not 1 <= len(symbols) <= MOST_ATOMS or len(symbols) != count or len(numbers) != 3 * count:
        raise ValueError(
            f"{where}: molecule {name} has {len(symbols)} elements, {len(numbers)} coordinates and N_atoms {count}: expected "
            f"1 to {MOST_ATOMS} atoms, each with an element and three coordinates"
        )
    if not np.isfinite(numbers).all() or not np.isfinite(list(raw.values())).all():
        raise ValueError(f"{where}: molecule {name} has a number that is not finite: {REINSTALL}")
    for task, free in ATOMS.items():
        raw[task] -= sum(free[symbol] for symbol in symbols)
    atoms = np.empty((count, 4), np.float32)
    atoms[:, 0] = [ELEMENTS[symbol] for symbol in symbols]
    atoms[:, 1:] = numbers.reshape(count, 3)
    return atoms, [factor * raw[task] for task, (_, factor) in COLUMNS.items()]


def _places(text: str) -> list[list[float]]:
    """The coordinates in ``[[x,y,z],[x,y,z]]``, whose numbers may be written as ``0.``, unlike those of JSON."""
    inner = text.strip()
    if inner in ("", "[]"):
        return []
    if not inner.startswith("[[") or not inner.endswith("]]"):
        raise ValueError(f"{text[:60]!r} is no list of coordinates")
    places = [[number(part.strip()) for part in place.split(",")] for place in BETWEEN.split(inner[2:-2])]
    if any(len(place) != 3 for place in places):
        raise ValueError("expected three coordinates of each atom")
    return places


def _opened(path: Path) -> BufferedReader:
    file = open_regular(path)
    if (size := os.fstat(file.fileno()).st_size) > MOST:
        file.close()
        raise ValueError(f"{path} has {size:,} bytes, at most {MOST:,} are read: {REINSTALL}")
    return file


def _header(file: BufferedReader, path: Path) -> dict[str, int]:
    """The positions of the required columns."""
    first = file.readline(LONGEST).decode("utf-8-sig", "replace")
    try:
        names = [name.strip() for name in next(csv.reader([first]), [])]
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: expected the names of columns ({error}): {REINSTALL}") from None
    if missing := [name for name in REQUIRED if name not in names]:
        raise ValueError(f"{path}, line 1: there is no column {missing[0]!r}, which qm9pack 1.0.3 has: {REINSTALL}")
    if names[0] != REQUIRED[0]:
        raise ValueError(f"{path}, line 1: expected {REQUIRED[0]!r} as the first column, got {names[0]!r}: {REINSTALL}")
    return {name: names.index(name) for name in REQUIRED}


def _lines(file: BufferedReader, path: Path) -> Iterator[bytes]:
    """The lines after the header that are not blank; there are none in the published files."""
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise ValueError(f"{path} has a line of more than {LONGEST:,} characters: {REINSTALL}")
        if not line.isspace():
            yield line


def _is_package(folder: Path) -> bool:
    return folder.parent.name == PACKAGE and folder.name == "data"
