"""Tables of named columns: from a CSV file or shipped with scikit-learn; numbers, words and gaps told apart."""

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

LARGEST = 3.4e38  # that float32 holds
GAPS = ("", "na", "n/a", "nan", "null", "none", "?")  # how an empty cell is written, in small letters


@dataclass(frozen=True)
class Table:
    """Columns by name, each with as many cells as there are rows: floats, nan where empty, or words, empty where empty."""

    columns: Mapping[str, list[float] | list[str]]

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values())))

    def words(self, name: str) -> bool:
        """Whether a column holds words."""
        return isinstance(self.columns[name][0], str)

    def check(self, name: str, where: str) -> None:
        """Checks that a column can be computed with.

        Args:
            name: the column's.
            where: the table's name, for the message.

        Raises:
            ValueError: a number of it is infinite, or larger than float32 holds.
        """
        for row, cell in enumerate(self.columns[name], start=1):
            if isinstance(cell, float) and abs(cell) > LARGEST:
                raise ValueError(
                    f"{where}, column {name!r}, row {row}: expected a number up to {LARGEST:g}, got {cell:g}. Leave the cell "
                    "empty where the number is not known, or ignore the column"
                )


def read_csv(path: Path, delimiter: str = ",") -> Table:
    """The table in a file whose first line names the columns.

    A column is of numbers where every cell that is not empty is one, otherwise of words. Empty, and ``na``, ``nan``, ``null``,
    ``none`` and ``?``, however capitalised, are gaps. A number has no underscores.

    Args:
        path: of the file, in UTF-8.
        delimiter: one character.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: no header or row, a name twice or none, a row of another length, or not text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: expected a CSV file whose first line names the columns")
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
        raise ValueError(f"{path}: expected a name of its own for each column, got {repeated} in {names}")
    for place, row in enumerate(lines[1:], start=1):
        if len(row) != len(names):
            raise ValueError(
                f"{path}, row {place}: expected {len(names)} cells, got {len(row)}; is {delimiter!r} the delimiter?"
            )
    cells = ([row[column].strip() for row in lines[1:]] for column in range(len(names)))
    return Table({name: _column(each) for name, each in zip(names, cells, strict=True)})


def shipped(name: str) -> Table:
    """A table that scikit-learn ships: ``"diabetes"``, ``"linnerud"`` or ``"wine"``.

    Raises:
        ValueError: there is none of that name.
    """
    loaders = _loaders()
    if name not in loaders:
        raise ValueError(f"tabular: shipped tables are {', '.join(sorted(loaders))}, got {name!r}")
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
    # in the units they were measured in
    return {"diabetes": lambda: load_diabetes(scaled=False), "linnerud": load_linnerud, "wine": load_wine}


def _column(cells: Sequence[str]) -> list[float] | list[str]:
    blank = ["" if cell.lower() in GAPS else cell for cell in cells]
    if any("_" in cell for cell in blank):  # float() would read 1_0 as 10
        return blank
    try:
        return [float(cell) if cell else math.nan for cell in blank]
    except ValueError:
        return blank
