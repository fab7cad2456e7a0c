"""Eleven properties of small molecules (QM9), from the files of an installed package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import MeanAbsoluteError, Metric
from paretorch.workloads.base import MultiTaskModel, Workload, check_least
from paretorch.workloads.checks.data_report import DataReport, Progress, report_on
from paretorch.workloads.formats import qm9
from paretorch.workloads.models.molecules import EdgeNetwork, FilterNetwork
from paretorch.workloads.streams import SPLITS, Plain, Splits, TensorStream

ENCODERS = {"edge_network": EdgeNetwork, "filters": FilterNetwork}


@dataclass(frozen=True)
class PreparedMolecules:
    """The splits, with targets standardised by the training molecules.

    Args:
        splits: inputs (B, A, 4), targets (B,).
        scales: standard deviation of a task's training targets, in its unit.
    """

    splits: Splits
    scales: Mapping[str, float]


@dataclass(frozen=True)
class QM9(Workload):
    """Eleven properties of molecules of up to 29 atoms H, C, N, O and F, from their elements and coordinates.

    The tasks are the dipole moment, the polarizability, the energies of the highest occupied and lowest unoccupied orbital, the
    electronic extent, the zero-point energy, the energies of atomisation U0, U, H and G, and the heat capacity. Targets are
    standardised with mean and deviation of the training molecules; the loss is the squared error, the metric the mean absolute
    error in the published unit. The seed decides the order of all molecules, of which the first are for test, the next for
    validation and the next for training.

    Args:
        root: the folder in which a folder ``qm9`` with the files of the package qm9pack is searched for; the installed package
            is read if there is none.
        train: number of training molecules.
        validation: number of validation molecules.
        test: number of test molecules; None: all that ``train=110_000`` and ``validation=10_000`` leave, 10,831.
        encoder: ``"edge_network"`` as published, or ``"filters"``, a small one for CPUs.
        width: units of an atom.
        data_seed: decides the splits, independently of a run's seed.

    Example:
        >>> QM9().tasks
        ('mu', 'alpha', 'HOMO', 'LUMO', 'R2', 'ZPVE', 'U0', 'U', 'H', 'G', 'Cv')

    References:
        Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo molecules", Scientific Data 2014; as eleven
        tasks Navon et al., "Multi-task learning as a bargaining game", ICML 2022, section 6.1.
    """

    title = "molecules (QM9): eleven properties by a message-passing network, from the package qm9pack"
    files: ClassVar[str] = qm9.QM9.description
    protocol: ClassVar[Mapping[str, Plain]] = {
        "optimizer": "Adam",
        "optimizer_options": {"lr": 1e-3},
        "batch_size": 120,
        "epochs": 300,
    }

    root: str = "data"
    train: int = 110_000
    validation: int = 10_000
    test: int | None = None
    encoder: str = "edge_network"
    width: int = 64
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_least("qm9", self, {"train": 2} | dict.fromkeys(SPLITS[1:], 1), "molecules")
        check_least("qm9", self, {"width": 1}, "unit")
        if self.encoder not in ENCODERS:
            raise ValueError(f"qm9: encoder is one of {', '.join(ENCODERS)}, got {self.encoder!r}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The eleven properties, in the order of the benchmark."""
        return tuple(qm9.COLUMNS)

    def require(self) -> None:
        """Checks that the files exist."""
        qm9.find_qm9(Path(self.root))

    def data(self) -> Splits:
        """One stream of (B, A, 4) atomic numbers, 0 for padding, and coordinates in Angstrom; (B,) standardised targets.

        Raises:
            ModuleNotFoundError: the package is missing, and the folder has no files.
            ValueError: the files are not those of qm9pack 1.0.3, a molecule cannot be read, or there are too few.
        """
        return self._prepared().splits

    def model(self) -> nn.Module:
        """The encoder, features (B, width); a linear head for each task."""
        heads = {task: nn.Sequential(nn.Linear(self.width, 1), nn.Flatten(0)) for task in self.tasks}
        return MultiTaskModel(ENCODERS[self.encoder](self.width), heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Squared error of the standardised targets."""
        return {task: functional.mse_loss(output, targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Mean absolute error in the published units: D, Bohr^3, meV, Bohr^2, cal/mol/K."""
        scales = self._prepared().scales
        return {task: (MeanAbsoluteError(qm9.UNITS.get(task, "meV"), scales[task]),) for task in self.tasks}

    def check_data(self, *, images: int | None = None, progress: Progress | None = None) -> list[DataReport]:
        """The report on the files: molecules are counted, and ``images`` of them are read; all if None."""
        report = report_on(qm9.QM9, self.root)
        folder = report.attempt(qm9.find_qm9, Path(self.root))
        files = None if folder is None else report.attempt(qm9.list_molecules, folder)
        if files is None:
            return [report]
        count = len(files.names)
        expected = "as published" if count == qm9.PUBLISHED else f"published are {qm9.PUBLISHED:,}"
        report.found += [f"in {files.folder}", f"{count:,} molecules; {expected}"]
        found = report.attempt(qm9.read_molecules, files, range(count)[:images])
        if found is not None:
            report.found.append(f"{len(found.atoms):,} molecules read, of up to {found.atoms.shape[1]} atoms")
        if progress is not None:
            progress("qm9", count, count)
        report.attempt(self.data)
        return [report]

    def _prepared(self) -> PreparedMolecules:
        folder = qm9.find_qm9(Path(self.root))
        stamps = qm9.file_stamps(folder)
        return _prepare(folder, stamps, self.train, self.validation, self.test, self.data_seed)


@lru_cache(maxsize=2)
def _prepare(
    folder: Path,
    stamps: tuple[int, ...],  # so that changed files are read again
    train: int,
    validation: int,
    test: int | None,
    seed: int,
) -> PreparedMolecules:
    del stamps
    files = qm9.list_molecules(folder)
    count = len(files.names)
    all_left = count - 120_000 if count > 120_000 else count - train - validation
    sizes = {"test": all_left if test is None else test, "validation": validation, "train": train}
    if min(sizes.values()) < 1 or sum(sizes.values()) > count:
        wanted = " + ".join(f"{max(0, size):,} for {name}" for name, size in sizes.items())
        raise ValueError(f"qm9: {folder} has {count:,} molecules, the options require {wanted}: reduce them")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: sum(sizes.values())]
    found = qm9.read_molecules(files, order.tolist())
    first = {"test": 0, "validation": sizes["test"], "train": sizes["test"] + validation}
    rows = {name: slice(first[name], first[name] + sizes[name]) for name in SPLITS}
    training = found.properties[rows["train"]]
    mean, deviation = training.mean(dim=0), training.std(dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    targets = ((found.properties - mean) / deviation).float()
    streams = {
        name: TensorStream(
            found.atoms[part], {task: targets[part, place].contiguous() for place, task in enumerate(qm9.COLUMNS)}
        )
        for name, part in rows.items()
    }
    facts: dict[str, Plain] = {"read from": qm9.source_of(folder)}
    facts |= {f"molecules, {name}": sizes[name] for name in SPLITS}
    splits = Splits((streams["train"],), (streams["validation"],), (streams["test"],), facts)
    return PreparedMolecules(splits, dict(zip(qm9.COLUMNS, deviation.tolist(), strict=True)))
