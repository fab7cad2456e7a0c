"""Several targets of a table by one MLP: columns of a CSV file, or of tables that scikit-learn ships."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.base import MultiTaskModel, Workload
from paretorch.workloads.formats.table import Table, read_csv, shipped
from paretorch.workloads.metrics import Accuracy, MeanAbsoluteError, Metric
from paretorch.workloads.streams import Splits, TensorStream

TARGETS = {
    "diabetes": ("progression", "bmi", "bp"),
    "linnerud": ("Weight", "Waist", "Pulse"),
    "wine": ("class", "alcohol", "proline"),
}
SHARES = (0.7, 0.15)  # of the rows, to train and to validate on; the rest is the test set
FEWEST = 10  # rows
NOISE = 1e-14  # a relative spread that rounding alone may make
EXACT = 2**53  # from which on numbers of a table may be rounded


class TargetError(MeanAbsoluteError):
    """The mean absolute error in the target's own unit.

    Args:
        unit: by how much outputs and targets were divided.
    """

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.scale = unit

    def compute(self) -> float:
        """Over all labelled samples."""
        return self.scale * super().compute()


@dataclass(frozen=True)
class Prepared:
    """A table as tensors: numbers are standardised by the rows that are trained on.

    Args:
        splits: inputs (B, D); targets (B,), nan or -1 where they are not labelled.
        classes: by target that has classes, their names.
        scales: by target of numbers, the standard deviation that it was divided by.
        inputs: D.
    """

    splits: Splits
    classes: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, float]
    inputs: int


@dataclass(frozen=True)
class Tabular(Workload):
    """A task for each target column; all other columns are inputs.

    Targets of numbers are standardised and have the squared error; those of words, and those named in ``classes``, have the
    cross-entropy. Empty cells of targets are missing labels. Inputs of words become one number per word; an empty input is the
    mean, and says so in a number of its own. Rows go to training, validation and test by 70, 15 and 15 %.

    Args:
        table: ``"diabetes"``, ``"linnerud"`` or ``"wine"``, where there is no ``path``.
        path: of a CSV file whose first line names the columns.
        targets: names of columns, with commas between or as a list; of a shipped table, its own by default.
        classes: those targets whose numbers name classes.
        ignore: columns that are neither inputs nor targets, such as a row's name.
        delimiter: of the CSV file.
        hidden: units of each of the encoder's two hidden layers.
        data_seed: decides which rows are in which split; a run's seed does not.

    Example:
        >>> Tabular("wine").tasks
        ('class', 'alcohol', 'proline')
    """

    title = "several targets of a table: any CSV (path=, targets=), or diabetes, linnerud, wine; missing labels allowed"

    table: str = "diabetes"
    path: str = ""
    targets: str | Sequence[str] = ()
    classes: str | Sequence[str] = ()
    ignore: str | Sequence[str] = ()
    delimiter: str = ","
    hidden: int = 64
    data_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("targets", "classes", "ignore"):
            object.__setattr__(self, name, _names(getattr(self, name)))
        if self.hidden < 1:
            raise ValueError(f"tabular: hidden is at least 1 unit, got {self.hidden}")
        if len(self.delimiter) != 1:
            raise ValueError(f"tabular: delimiter is one character, got {self.delimiter!r}")
        if not self.path and self.table not in TARGETS:
            raise ValueError(f"tabular: table is one of {', '.join(TARGETS)}, or give a path; got {self.table!r}")
        if self.path and not self.targets:
            raise ValueError(f"tabular: name the target columns of {self.path}, as in targets='price,rooms'")
        for task in self.tasks:
            if self.tasks.count(task) > 1 or "." in task or hasattr(nn.ModuleDict(), task):
                raise ValueError(f"tabular: {task!r} cannot name a task (twice, with a dot, or torch's own): rename it")
        if stray := sorted(set(self.classes) - set(self.tasks)):
            raise ValueError(f"tabular: classes are targets {self.tasks}, got {stray}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The targets."""
        return tuple(self.targets) or TARGETS[self.table]

    def data(self) -> Splits:
        """One stream of (B, D) inputs, with a target (B,) for each task."""
        return self._prepared().splits

    def model(self) -> nn.Module:
        """An MLP of two hidden layers, and a linear head per task."""
        made = self._prepared()
        encoder = nn.Sequential(
            nn.Linear(made.inputs, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden), nn.ReLU()
        )
        heads: dict[str, nn.Module] = {
            task: nn.Linear(self.hidden, len(made.classes[task]))
            if task in made.classes
            else nn.Sequential(nn.Linear(self.hidden, 1), nn.Flatten(0))
            for task in self.tasks
        }
        return MultiTaskModel(encoder, heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of classes, squared error of numbers, over what is labelled."""
        found = {}
        for task, output in outputs.items():
            there = _labelled(targets[task])
            if not bool(there.any()):
                continue
            loss = functional.mse_loss if targets[task].is_floating_point() else functional.cross_entropy
            found[task] = loss(output[there], targets[task][there])
        return found

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """How many of the targets are known."""
        del task, size
        known: Tensor = _labelled(target).sum()
        return known

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy of classes in 0..1; mean absolute error of numbers in the column's own unit."""
        made = self._prepared()
        return {
            task: (Accuracy(),) if task in made.classes else (TargetError(made.scales[task]),) for task in self.tasks
        }

    def require(self) -> None:
        """Reads the table, which is small."""
        self._prepared()

    def _prepared(self) -> Prepared:
        stamp = Path(self.path).stat().st_mtime_ns if self.path and Path(self.path).is_file() else 0
        return _read(
            self.table,
            self.path,
            stamp,
            self.tasks,
            tuple(self.classes),
            tuple(self.ignore),
            self.delimiter,
            self.data_seed,
        )


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(part.strip() for part in parts if part.strip())


def _labelled(target: Tensor) -> Tensor:
    return ~target.isnan() if target.is_floating_point() else target >= 0


@lru_cache(maxsize=4)
def _read(
    name: str,
    path: str,
    stamp: int,  # of the file: one that has changed is read again
    tasks: tuple[str, ...],
    classes: tuple[str, ...],
    ignore: tuple[str, ...],
    delimiter: str,
    seed: int,
) -> Prepared:
    del stamp
    table = read_csv(Path(path), delimiter) if path else shipped(name)
    where = path or name
    for column in (*tasks, *ignore):
        if column not in table.columns:
            raise ValueError(f"{where} has no column {column!r}; its columns: {', '.join(table.columns)}")
    inputs = [column for column in table.columns if column not in tasks and column not in ignore]
    if not inputs:
        raise ValueError(f"{where}: all columns are targets or ignored, so nothing is left to read them from")
    if table.rows < FEWEST:
        raise ValueError(f"{where} has {table.rows} rows: at least {FEWEST} are needed to train, validate and test")
    for column in (*inputs, *tasks):
        table.check(column, where)
    order = torch.randperm(table.rows, generator=torch.Generator().manual_seed(seed))
    sizes = [round(table.rows * share) for share in SHARES]
    parts = torch.split(order, [*sizes, table.rows - sum(sizes)])
    features = torch.cat([_input(table, column, parts[0]) for column in inputs], dim=1)
    if not features.shape[1]:
        raise ValueError(
            f"{where}: the inputs {', '.join(inputs)} are empty in every row to train on, so nothing is left to learn from: fill "
            "them in, or name other inputs"
        )
    named, scales, targets = {}, {}, {}
    for task in tasks:
        if task in classes or table.words(task):
            targets[task], named[task] = _classes(table, task, where)
        else:
            targets[task], scales[task] = _numbers(table, task, parts[0], where)
    streams = [
        (TensorStream(features[part], {task: target[part] for task, target in targets.items()}),) for part in parts
    ]
    facts = {"rows": table.rows, "input columns": len(inputs)}
    missing = {task: int((~_labelled(target)).sum()) for task, target in targets.items()}
    splits = Splits(streams[0], streams[1], streams[2], {**facts, "missing labels": missing})  # type: ignore[dict-item]
    return Prepared(splits, named, scales, features.shape[1])


def _input(table: Table, column: str, train: Tensor) -> Tensor:
    """(rows, k) numbers of a column: standardised, or one per word; and where it is empty, if it ever is."""
    if table.words(column):
        cells = table.columns[column]
        words = sorted({str(cells[row]) for row in train.tolist()} - {""})
        return torch.tensor([[float(cell == word) for word in words] for cell in cells]).reshape(table.rows, -1)
    values = torch.tensor(table.columns[column], dtype=torch.float64)
    gaps = values.isnan()
    mean, scale = _spread(values[train])
    scaled = torch.where(gaps, 0.0, (values - mean) / scale).float()
    return torch.stack([scaled, gaps.float()], dim=1) if bool(gaps.any()) else scaled[:, None]


def _classes(table: Table, task: str, where: str) -> tuple[Tensor, tuple[str, ...]]:
    cells = [_class_name(cell, task, where) if isinstance(cell, float) else cell for cell in table.columns[task]]
    names = tuple(sorted(set(cells) - {""}))
    if len(names) < 2:
        raise ValueError(f"{where}: column {task!r} has {len(names)} class: at least two are needed to tell apart")
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([places.get(cell, -1) for cell in cells]), names


def _class_name(cell: float, task: str, where: str) -> str:
    """All digits of a number, so that no two classes become one; empty for a gap."""
    if math.isnan(cell):
        return ""
    if abs(cell) >= EXACT:
        raise ValueError(
            f"{where}: column {task!r} has the class {cell:.0f}, and numbers from {EXACT:,} on may be rounded into each other: "
            "put a letter before them"
        )
    return repr(cell + 0.0).removesuffix(".0")  # -0.0 is 0


def _numbers(table: Table, task: str, train: Tensor, where: str) -> tuple[Tensor, float]:
    values = torch.tensor(table.columns[task], dtype=torch.float64)
    if not bool((~values[train].isnan()).any()):
        raise ValueError(f"{where}: column {task!r} has no number among the rows to train on")
    mean, scale = _spread(values[train])
    return ((values - mean) / scale).float(), scale


def _spread(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of what is not empty; 1 where it is constant, up to rounding."""
    there = values[~values.isnan()]
    if not len(there):
        return 0.0, 1.0
    deviation = float(there.std(correction=0))
    if deviation <= NOISE * float(there.abs().max()):
        return float(there[0]), 1.0  # the mean of equal numbers may be rounded
    return float(there.mean()), deviation
