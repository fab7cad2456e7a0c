"""Prediction of several columns of a table by an MLP; the table is a CSV or ARFF file, or part of scikit-learn or river."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.metrics import F1, Accuracy, ErrorRate, MeanAbsoluteError, Metric
from paretorch.workloads.base import DataWarning, MultiTaskModel, Workload, check_head_names, check_least
from paretorch.workloads.formats.cells import RoundedPair, is_number, is_other_notation, unit_of
from paretorch.workloads.formats.table import DECLARED, ROUNDED, included_table, read_table
from paretorch.workloads.streams import Splits, TensorStream

if TYPE_CHECKING:
    import pandas as pd

TARGETS = {
    "diabetes": ("progression", "bmi", "bp"),
    "breast_cancer": ("diagnosis", "worst_texture", "worst_smoothness", "worst_symmetry"),
    "linnerud": ("Weight", "Waist", "Pulse"),
    "wine": ("class", "alcohol", "proline"),
    "yeast": tuple(f"Class{number}" for number in range(1, 15)),
    "solar_flare": ("c-class-flares", "m-class-flares", "x-class-flares"),
}
BINARY = {"yeast": TARGETS["yeast"]}
SHARES = (0.7, 0.15)  # of the rows, for training and validation; the remaining rows are the test set
FEWEST = 10  # rows
ROUNDING = 1e-14  # relative standard deviation of equal numbers after rounding
LARGEST = 3.4e38  # of float32
MEASURES = 20  # a column of more different numbers with one unit has measurements, one of fewer may have categories
MANY = 50  # labelled rows, of which most should not have a class of their own
EXACT = 2**53  # from here on, integers may be rounded in float64


@dataclass(frozen=True)
class PreparedTable:
    """A table as tensors; numbers are standardised with mean and standard deviation of the training rows.

    Args:
        splits: inputs (B, D); targets (B,), nan or -1 for missing labels.
        classes: names of the classes, by categorical target.
        scales: standard deviation by which the target was divided, by numerical target.
        inputs: D.
        notes: what the user should know about the columns, one sentence each.
    """

    splits: Splits
    classes: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, float]
    inputs: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tabular(Workload):
    """A task for each target column; all other columns are inputs.

    Numerical targets are standardised, with the squared error as loss; categorical targets, and those in ``classes``, have the
    cross-entropy; those in ``binary`` have one score each, with the binary cross-entropy. Missing values of targets are missing
    labels. Categorical inputs are one-hot encoded; a missing numerical input
    is replaced by the mean, with an additional indicator. Training, validation and test have 70, 15 and 15 % of the rows.

    Args:
        table: ``"diabetes"``, ``"breast_cancer"``, ``"linnerud"``, ``"wine"``, or of the package river ``"yeast"`` (14 labels
            of 2,417 genes) or ``"solar_flare"`` (3 counts of 1,066 regions), if there is no ``path``.
        path: of a CSV file whose first line has the names of the columns, or of an ARFF file; either may be compressed by gzip
            or be the only file of a zip archive.
        targets: names of columns, separated by commas or as a list; empty: the defaults of the included table.
        classes: columns whose numbers are classes, targets or inputs. A column in which most cells are numbers and others are
            not, or most are numbers in another notation such as ``"4,064"``, is an error unless it is among them.
        binary: targets of two values that are labels, such as 0 and 1 or no and yes; the last by name is positive. Empty: the
            labels of the included table.
        ignore: columns that are neither inputs nor targets, such as the name of a row.
        delimiter: of the CSV file.
        hidden: units of each of the encoder's two hidden layers.
        data_seed: decides the splits, independently of a run's seed.

    Example:
        >>> Tabular("wine").tasks
        ('class', 'alcohol', 'proline')
    """

    title = "several targets of a table: any CSV or ARFF (path=, targets=) or an included one; missing labels allowed"

    table: str = "diabetes"
    path: str = ""
    targets: str | Sequence[str] = ()
    classes: str | Sequence[str] = ()
    binary: str | Sequence[str] = ()
    ignore: str | Sequence[str] = ()
    delimiter: str = ","
    hidden: int = 64
    data_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("targets", "classes", "binary", "ignore"):
            object.__setattr__(self, name, _names(getattr(self, name)))
        check_least("tabular", self, {"hidden": 1}, "unit")
        if len(self.delimiter) != 1:
            raise ValueError(f"tabular: delimiter is one character, got {self.delimiter!r}")
        if not self.path and self.table not in TARGETS:
            raise ValueError(f"tabular: table is one of {', '.join(TARGETS)}, or give a path; got {self.table!r}")
        if self.path and not self.targets:
            raise ValueError(f"tabular: name the target columns of {self.path}, as in targets='price,rooms'")
        check_head_names(self.tasks)
        if repeated := sorted({task for task in self.tasks if self.tasks.count(task) > 1}):
            raise ValueError(f"tabular: targets are distinct columns, got {repeated} more than once")
        if others := sorted(set(self.binary) - set(self.tasks)):
            raise ValueError(f"tabular: binary are targets {self.tasks}, got {others}")
        if both := sorted(set(self.classes) & set(self.labels)):
            raise ValueError(f"tabular: a target is in classes or in binary, got {both} in both")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The targets."""
        return tuple(self.targets) or TARGETS[self.table]

    @property
    def labels(self) -> tuple[str, ...]:
        """The targets that are binary labels."""
        included = () if self.path else BINARY.get(self.table, ())
        return tuple(self.binary) or tuple(task for task in included if task in self.tasks and task not in self.classes)

    def data(self) -> Splits:
        """One stream of (B, D) inputs, with a target (B,) for each task."""
        made = self._prepared()
        for note in made.notes:
            warnings.warn(note, DataWarning, stacklevel=2)
        return made.splits

    def model(self) -> nn.Module:
        """An MLP of two hidden layers, and a linear head per task."""
        made = self._prepared()
        encoder = nn.Sequential(
            nn.Linear(made.inputs, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden), nn.ReLU()
        )
        heads: dict[str, nn.Module] = {
            task: nn.Linear(self.hidden, len(made.classes[task]))
            if task in made.classes and task not in self.labels
            else nn.Sequential(nn.Linear(self.hidden, 1), nn.Flatten(0))
            for task in self.tasks
        }
        return MultiTaskModel(encoder, heads)

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of classes and labels, squared error of numbers, over labelled rows."""
        found = {}
        labels = self.labels
        for task, output in outputs.items():
            labelled = _labelled(targets[task])
            if not bool(labelled.any()):
                continue
            scores, target = output[labelled], targets[task][labelled]
            if task in labels:
                found[task] = functional.binary_cross_entropy_with_logits(scores, target.to(scores.dtype))
            else:
                loss = functional.mse_loss if target.is_floating_point() else functional.cross_entropy
                found[task] = loss(scores, target)
        return found

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        """The number of labelled rows."""
        del task, size
        count: Tensor = _labelled(target).sum()
        return count

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """Accuracy of classes in 0..1; error in per cent and F1 of labels; mean absolute error in the unit of the column.

        The mean of F1 over the labels is the macro-averaged F1 of the multi-label literature.
        """
        made, labels = self._prepared(), self.labels
        return {
            task: (ErrorRate(), F1())
            if task in labels
            else (Accuracy(),)
            if task in made.classes
            else (MeanAbsoluteError(scale=made.scales[task]),)
            for task in self.tasks
        }

    def data_files(self) -> tuple[str, ...]:
        """The table, if it is a file."""
        return (self.path,) if self.path else ()

    def require(self) -> None:
        """Reads the table."""
        self._prepared()

    def _prepared(self) -> PreparedTable:
        stamp = Path(self.path).stat().st_mtime_ns if self.path and Path(self.path).is_file() else 0
        return _read(
            self.table,
            self.path,
            stamp,
            self.tasks,
            tuple(self.classes),
            self.labels,
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
    stamp: int,  # modification time, so that a changed file is read again
    tasks: tuple[str, ...],
    classes: tuple[str, ...],
    labels: tuple[str, ...],
    ignore: tuple[str, ...],
    delimiter: str,
    seed: int,
) -> PreparedTable:
    del stamp
    table = read_table(Path(path), delimiter) if path else included_table(name)
    where = path or name
    for column in (*tasks, *classes, *ignore):
        if column not in table:
            raise ValueError(f"{where} has no column {column!r}; its columns: {', '.join(table)}")
    inputs = [column for column in table if column not in tasks and column not in ignore]
    if not inputs:
        raise ValueError(f"{where}: all columns are targets or ignored, so there are no inputs")
    if len(table) < FEWEST:
        raise ValueError(
            f"{where} has {len(table)} rows: at least {FEWEST} are needed for training, validation and test"
        )
    notes = []
    for column in (*inputs, *tasks):
        _check_range(table[column], where)
        if column in classes or column in labels:
            continue
        _check_numbers(table[column], where)
        if not table.attrs.get(DECLARED):
            _check_notation(table[column], where)
        if pair := table.attrs.get(ROUNDED, {}).get(column):
            note = _rounded(column, pair, where)
            if column in tasks:
                raise ValueError(note)
            notes.append(note)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    sizes = [round(len(table) * share) for share in SHARES]
    parts = torch.split(order, [*sizes, len(table) - sum(sizes)])
    notes += [note for column in inputs if (note := _own_values(table[column], where))]
    features = torch.cat([_input(table[column], parts[0], column in classes, where) for column in inputs], dim=1)
    if not features.shape[1]:
        raise ValueError(
            f"{where}: the inputs {', '.join(inputs)} have no values in the training rows: fill them in, or "
            "use other inputs"
        )
    named, scales, targets = {}, {}, {}
    for task in tasks:
        if task in classes or task in labels or not _is_numerical(table[task]):
            targets[task], named[task] = _classes(table[task], where)
            notes += _own_classes(task, targets[task], where)
            if task in labels and len(named[task]) != 2:
                raise ValueError(
                    f"{where}: column {task!r} is in binary and has {len(named[task])} values: expected two, got "
                    f"{', '.join(named[task][:5])}"
                )
        else:
            targets[task], scales[task] = _numbers(table[task], parts[0], where)
    streams = [
        (TensorStream(features[part], {task: target[part] for task, target in targets.items()}),) for part in parts
    ]
    facts = {"rows": len(table), "input columns": len(inputs)}
    missing = {task: int((~_labelled(target)).sum()) for task, target in targets.items()}
    splits = Splits(streams[0], streams[1], streams[2], {**facts, "missing labels": missing})  # type: ignore[dict-item]
    return PreparedTable(splits, named, scales, features.shape[1], tuple(notes))


def _is_numerical(column: pd.Series) -> bool:
    return bool(column.dtype.kind == "f")


def _check_range(column: pd.Series, where: str) -> None:
    """Checks that numbers are finite in float32."""
    if not _is_numerical(column):
        return
    for row, cell in column[column.abs() > LARGEST].items():
        raise ValueError(
            f"{where}, column {column.name!r}, row {row + 1}: expected a number up to {LARGEST:g}, got {cell:g}. Leave the cell "
            "empty if the number is unknown, or ignore the column"
        )


def _check_numbers(column: pd.Series, where: str) -> None:
    """Checks that no cell makes a column of numbers categorical."""
    if _is_numerical(column):
        return
    given = [(row, cell) for row, cell in enumerate(column) if cell]
    odd = [(row, cell) for row, cell in given if not is_number(cell)]
    if odd and len(odd) < len(given) / 2:
        row, cell = odd[0]
        raise ValueError(
            f"{where}, column {column.name!r}, row {row + 1}: expected a number as in {len(given) - len(odd)} of {len(given)} "
            f"cells, got {cell[:60]!r}. Leave the cell empty if the number is unknown; if the values are categories, name the "
            "column in classes="
        )


def _check_notation(column: pd.Series, where: str) -> None:
    """Checks that a categorical column does not have numbers in another notation in most of its cells."""
    if _is_numerical(column):
        return
    counts = Counter(cell for cell in column if cell)
    plain = {cell for cell in counts if is_number(cell)}
    other = {cell for cell in counts if cell not in plain and is_other_notation(cell)} or _measures(counts)
    total, numbers = counts.total(), sum(counts[cell] for cell in other | plain)
    if not other or numbers <= total / 2:
        return
    row, cell = next((row, cell) for row, cell in enumerate(column) if cell in other)
    raise ValueError(
        f"{where}, column {column.name!r}, row {row + 1}: expected a number such as -1234.5, got {cell!r}; {numbers} of {total} "
        "cells are numbers, in this notation or a plain one. Write them with a decimal point, without separators, symbols and "
        "units; if the values are categories, name the column in classes="
    )


def _measures(cells: Iterable[str]) -> set[str]:
    """The cells that are numbers with the commonest unit; empty if these are few, because then they may be categories."""
    units = {cell: unit for cell in cells if (unit := unit_of(cell))}
    found: set[str] = set()
    if units:
        common = Counter(units.values()).most_common(1)[0][0]
        found = {cell for cell, unit in units.items() if unit == common}
    return found if len(found) > MEASURES else set()


def _rounded(column: str, pair: RoundedPair, where: str) -> str:
    (first, second), (cell, other) = pair.rows, pair.cells
    return (
        f"{where}, column {column!r}: the different whole numbers {cell} (row {first + 1}) and {other} (row {second + 1}) become "
        f"the same number, because those from {EXACT:,} on may be rounded. Subtract an offset from the column; if the values are "
        "categories, prefix them with a letter"
    )


def _own_classes(task: str, target: Tensor, where: str) -> list[str]:
    """A note if most labelled rows have a class that no other row has."""
    labelled = target[target >= 0]
    alone = int((labelled.bincount() == 1).sum())
    if len(labelled) < MANY or alone <= len(labelled) / 2:
        return []
    return [
        f"{where}, column {task!r}: {alone} of {len(labelled)} labelled rows have a class that no other row has, so it cannot be "
        "predicted. If the values are numbers, write them as plain numbers; otherwise use fewer classes, or another target"
    ]


def _own_values(column: pd.Series, where: str) -> str:
    """A note if most rows of a categorical input have a value that no other row has; else an empty text."""
    if _is_numerical(column):
        return ""
    counts = Counter(value for value in column if value)
    alone = sum(count == 1 for count in counts.values())
    if counts.total() < MANY or alone <= counts.total() / 2:
        return ""
    return (
        f"{where}, column {column.name!r}: {alone} of {counts.total()} values occur once, and each is an input of its own, from "
        f"which nothing is learned. Leave the column out (ignore={column.name!r}), or write dates and measurements as numbers"
    )


def _input(column: pd.Series, train: Tensor, is_class: bool, where: str) -> Tensor:
    """(rows, k) features of a column: standardised with an indicator of missing values, if there are any, or one-hot encoded."""
    if is_class and _is_numerical(column):
        column = column.map(partial(_class_name, task=column.name, where=where))
    if not _is_numerical(column):
        categories = sorted(set(column[train.numpy()]) - {""})
        return (_places(column, categories)[:, None] == torch.arange(len(categories))).float()
    values = torch.tensor(column.to_numpy())
    missing = values.isnan()
    mean, scale = _mean_and_deviation(values[train])
    scaled = torch.where(missing, 0.0, (values - mean) / scale).float()
    return torch.stack([scaled, missing.float()], dim=1) if bool(missing.any()) else scaled[:, None]


def _places(column: pd.Series, names: Sequence[str]) -> Tensor:
    """The place of each cell in ``names``; -1 if it is not among them."""
    import pandas as pd

    return torch.from_numpy(pd.Index(names, dtype=object).get_indexer(column))


def _classes(column: pd.Series, where: str) -> tuple[Tensor, tuple[str, ...]]:
    cells = column.map(partial(_class_name, task=column.name, where=where)) if _is_numerical(column) else column
    names = tuple(sorted(set(cells) - {""}))
    if len(names) < 2:
        raise ValueError(f"{where}: column {column.name!r} has {len(names)} class: expected at least two")
    return _places(cells, names), names


def _class_name(cell: float, task: str, where: str) -> str:
    """A number with all digits, so that different classes have different names; empty for a missing value."""
    if math.isnan(cell):
        return ""
    if abs(cell) >= EXACT:
        raise ValueError(
            f"{where}: column {task!r} has the class {cell:.0f}, and numbers from {EXACT:,} on may be rounded to the same value: "
            "prefix them with a letter"
        )
    return str(cell + 0.0).removesuffix(".0")  # -0.0 is 0


def _numbers(column: pd.Series, train: Tensor, where: str) -> tuple[Tensor, float]:
    values = torch.tensor(column.to_numpy())
    known = values[~values.isnan()]
    if len(known) and bool((known == known[0]).all()):
        count = f"all {len(known)} labelled rows" if len(known) > 1 else "its only labelled row"
        raise ValueError(
            f"{where}: column {column.name!r} has the value {float(known[0])!r} in {count}: expected at least two values"
        )
    if not bool((~values[train].isnan()).any()):
        raise ValueError(f"{where}: column {column.name!r} has no number in the training rows")
    mean, scale = _mean_and_deviation(values[train])
    return ((values - mean) / scale).float(), scale


def _mean_and_deviation(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the values that are not nan; deviation 1 if they are equal up to rounding."""
    known = values[~values.isnan()]
    if not len(known):
        return 0.0, 1.0
    deviation = float(known.std(correction=0))
    if deviation <= ROUNDING * float(known.abs().max()):
        return float(known[0]), 1.0  # exact, unlike the mean of equal numbers
    return float(known.mean()), deviation
