"""Tables of named columns, numerical or categorical, from a CSV file or from scikit-learn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretorch.extras import extra
from paretorch.storage.regular_files import read_regular

LARGEST = 3.4e38  # of float32
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # spellings of a missing value, in lower case


@dataclass(frozen=True)
class Table:
    """Columns by name, one cell for each row: floats with nan for missing values, or strings with "" for missing values."""

    columns: Mapping[str, list[float] | list[str]]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    def is_categorical(self, name: str) -> bool:
        """Whether the cells of a column are strings."""
        return isinstance(self.columns[name][0], str)

    def check(self, name: str, where: str) -> None:
        """Checks that the numbers of a column are finite in float32.

        Args:
            name: of the column.
            where: the table's name, for the message.

        Raises:
            ValueError: a number is infinite or too large.
        """
        for row, cell in enumerate(self.columns[name], start=1):
            if isinstance(cell, float) and abs(cell) > LARGEST:
                raise ValueError(
                    f"{where}, column {name!r}, row {row}: expected a number up to {LARGEST:g}, got {cell:g}. Leave the cell "
                    "empty if the number is unknown, or ignore the column"
                )


def read_csv(path: Path, delimiter: str = ",") -> Table:
    """The table in a file whose first line has the names of the columns.

    A column is numerical if every cell that is not missing is a number, without underscores; otherwise it is categorical. Empty
    cells and ``na``, ``n/a``, ``nan``, ``null``, ``none`` and ``?``, in upper or lower case, are missing values.

    Args:
        path: of the file, in UTF-8.
        delimiter: one character.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: there is no header or row, a name is empty or repeated, a row has another length, or it is not text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a CSV file whose first line has the names of the columns")
    try:
        text = read_regular(path).decode("utf-8-sig")
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}") from None
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a line of names and at least one row, got {len(lines)} lines")
    names = [name.strip() for name in lines[0]]
    repeated = sorted({name for name in names if not name or names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: expected a different name for each column, got {repeated} in {names}")
    for number, row in enumerate(lines[1:], start=1):
        if len(row) != len(names):
            raise ValueError(
                f"{path}, row {number}: expected {len(names)} cells, got {len(row)}; is {delimiter!r} the delimiter?"
            )
    cells = ([row[column].strip() for row in lines[1:]] for column in range(len(names)))
    return Table({name: _column(each) for name, each in zip(names, cells, strict=True)})


def included_table(name: str) -> Table:
    """A table of scikit-learn: ``"diabetes"``, ``"linnerud"`` or ``"wine"``.

    Raises:
        ValueError: the name is unknown.
    """
    loaders = _loaders()
    if name not in loaders:
        raise ValueError(f"tabular: included tables are {', '.join(sorted(loaders))}, got {name!r}")
    found = loaders[name]()
    inputs = dict(zip(map(str, found.feature_names), found.data.T.tolist(), strict=True))
    if name == "wine":
        return Table({**inputs, "class": [str(found.target_names[target]) for target in found.target]})
    if name == "diabetes":
        return Table({**inputs, "progression": found.target.tolist()})
    return Table({**inputs, **dict(zip(map(str, found.target_names), found.target.T.tolist(), strict=True))})


def _loaders() -> Mapping[str, Callable[[], Any]]:
    with extra("studies"):
        from sklearn.datasets import load_diabetes, load_linnerud, load_wine
    # unscaled: in the units of measurement
    return {"diabetes": lambda: load_diabetes(scaled=False), "linnerud": load_linnerud, "wine": load_wine}


def _column(cells: Sequence[str]) -> list[float] | list[str]:
    values = ["" if cell.lower() in MISSING else cell for cell in cells]
    if any("_" in cell for cell in values):  # float() would read 1_0 as 10
        return values
    try:
        return [float(cell) if cell else math.nan for cell in values]
    except ValueError:
        return values
