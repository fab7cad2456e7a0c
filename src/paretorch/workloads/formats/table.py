"""Tables of named columns, from a CSV file or from scikit-learn."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from paretorch.extras import extra
from paretorch.storage.regular_files import read_regular

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # spellings of a missing value, in lower case


def read_csv(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """The table in a file whose first line has the names of the columns.

    A column is numerical if every cell that is not missing is a number, without underscores; otherwise it is categorical. Empty
    cells and ``na``, ``n/a``, ``nan``, ``null``, ``none`` and ``?``, in upper or lower case, are missing values. Blank lines are
    skipped.

    Args:
        path: of the file, in UTF-8.
        delimiter: one character.

    Returns:
        Columns of floats, with nan for missing values, or of strings, with "" for missing values.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: there is no header or row, a name is empty or repeated, a row has another length, or it is not CSV, as
            with text after a closing quotation mark.
    """
    with extra("studies"):
        import pandas as pd
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a CSV file whose first line has the names of the columns")
    content = io.BytesIO(read_regular(path))
    try:  # pandas' parser in Python, unlike the one in C, does not fill short rows with empty cells
        lines = pd.read_csv(
            content,
            sep=delimiter,
            engine="python",
            header=None,
            dtype=object,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError:
        lines = pd.DataFrame()
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}; is {delimiter!r} the delimiter?") from None
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a line of names and at least one row, got {len(lines)} lines")
    names = [name.strip() for name in lines.loc[0]]
    repeated = sorted({name for name in names if not name or names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: expected a different name for each column, got {repeated} in {names}")
    for row, cells in lines[lines.isna().any(axis=1)].iterrows():
        raise ValueError(
            f"{path}, row {row}: expected {len(names)} cells, got {cells.count()}; is {delimiter!r} the delimiter?"
        )
    return pd.DataFrame({name: _column(lines.loc[1:, place]) for place, name in enumerate(names)})


def _column(cells: pd.Series) -> pd.Series:
    cells = cells.str.strip().reset_index(drop=True)
    cells = cells.mask(cells.str.lower().isin(MISSING), "")
    if cells.str.contains("_", regex=False).any():  # float() would read 1_0 as 10
        return cells
    try:
        return cells.replace("", "nan").map(float)
    except ValueError:
        return cells


def included_table(name: str) -> pd.DataFrame:
    """A table of scikit-learn, in the units of measurement: ``"diabetes"``, ``"breast_cancer"``, ``"linnerud"`` or ``"wine"``."""
    with extra("studies"):
        from sklearn import datasets
    loaders = {
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": partial(datasets.load_diabetes, scaled=False),
        "linnerud": datasets.load_linnerud,
        "wine": datasets.load_wine,
    }
    found = loaders[name](as_frame=True)
    if name == "wine":
        return found.data.assign(**{"class": found.target_names[found.target]})
    if name == "breast_cancer":
        return found.data.rename(columns=lambda column: column.replace(" ", "_")).assign(
            diagnosis=found.target_names[found.target]
        )
    return found.frame.rename(columns={"target": "progression"})
