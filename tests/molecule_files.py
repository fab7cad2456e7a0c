"""Tiny QM9 files in the form of the package qm9pack, written from a seed."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from paretorch.workloads.formats.qm9 import ATOMS, FILES

HEADER = (
    "XYZ_file,Index,SMILES,InChi,N_atoms,Stoichiometry,Elements,XYZ_Ang,Mulliken_pop,Harmonic_Freq_cmi,RotA_GHz,RotB_GHz,RotC_GHz,"
    "Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,InternalEnergy_0K_au,"
    "InternalEnergy_298K_au,Enthalphy_298K_au,GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K"
)


def molecule_line(number: int, symbols: list[str], places: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> str:
    """A molecule whose properties follow from its atoms: size, elements and extent."""
    random = np.random.default_rng(number)
    count = len(symbols)
    extent = float(np.square(places - places.mean(axis=0)).sum()) if count else 0.0
    listed = ",".join("[" + ",".join(f"{value:.10f}" for value in place) + "]" for place in places)
    counts = ",".join(str(symbols.count(symbol)) for symbol in ATOMS["U0"])
    bond = -0.1 * count - 0.01 * symbols.count("O")
    energies = [sum(ATOMS[task][symbol] for symbol in symbols) + bond for task in ("U0", "U", "H", "G")]
    values = [
        1 / max(1, count),
        3.0 * count,
        -0.2 - 0.01 * symbols.count("N"),
        0.1 - 0.001 * count,
        0.3,
        extent,
        0.008 * count,
    ]
    numbers = [*random.random(3).round(5), *values, *energies, 1.5 * count]
    return (
        f'"dsgdb9nsd_{number:06}.xyz",{number},"C{number}","InChI=1S/{number}",{count},"[{counts}]",'
        f'"[{",".join(repr(symbol) for symbol in symbols)}]","[{listed}]","[0.1]","[100.0,200.0]",'
        + ",".join(f"{value:.7g}" if abs(value) < 30 else f"{value:.6f}" for value in numbers)
    )


def write_molecules(folder: Path, counts: tuple[int, int, int] = (60, 60, 60), seed: int = 0) -> Path:
    """The three files; the first molecule has one atom."""
    random, number = np.random.default_rng(seed), 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in zip(FILES, counts, strict=True):
        lines = [HEADER]
        for _ in range(count):
            atoms = 1 if number == 0 else int(random.integers(2, 10))
            symbols = [str(symbol) for symbol in random.choice(list(ATOMS["U0"]), atoms)]
            number += 1
            lines.append(molecule_line(number, symbols, random.normal(0, 1.5, (atoms, 3))))
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@lru_cache(maxsize=1)
def shared_molecules() -> str:
    """A root for the whole test run that no test changes."""
    root = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_molecules(Path(root) / "qm9")
    return root
