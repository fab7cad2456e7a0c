"""Tables of named columns, from a CSV or ARFF file, or from scikit-learn or river."""

from __future__ import annotations

import codecs
import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from paretorch.extras import extra
from paretorch.storage.damage import BROKEN_ARCHIVE
from paretorch.storage.gzip_content import GzipContent
from paretorch.storage.regular_files import MAX_BYTES, read_regular
from paretorch.workloads.formats.arff import read_cells
from paretorch.workloads.formats.cells import number, rounded_pair
from paretorch.workloads.formats.package_files import package_file, package_version

if TYPE_CHECKING:
    import pandas as pd

# keys of DataFrame.attrs
ROUNDED = "rounded"  # by column of floats: a RoundedPair of its cells, if there is one
DECLARED = "declared"  # True: the file declares which columns are numerical

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # spellings of a missing value, in lower case


SAVE = "save it as text in UTF-8"

# file in the package river, rows and columns
RIVER = {"yeast": ("yeast.csv.gz", (2_417, 117)), "solar_flare": ("solar-flare.csv.zip", (1_066, 13))}


def read_table(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """The table in a CSV or ARFF file, which may be compressed by gzip or be the only file of a zip archive.

    Args:
        path: of the file; ARFF if its name, without ``.gz`` or ``.zip``, ends in ``.arff``.
        delimiter: of a CSV file, one character.

    Returns:
        Columns of floats, with nan for missing values, or of strings, with "" for missing values. Its ``attrs`` have
        :data:`ROUNDED` and :data:`DECLARED`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it cannot be decompressed, or as :func:`.arff.read_cells` and :func:`read_csv`.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zip")
    if not name.endswith(".arff") or not path.is_file():
        return read_csv(path, delimiter)
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as ARFF in UTF-8: {error}; {SAVE}") from None
    columns = read_cells(text, str(path))
    return _table(
        {attribute.name: attribute.values_of(cells) for attribute, cells in columns},
        {attribute.name: cells for attribute, cells in columns},
        declared=True,
    )


def read_csv(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """The table in a file whose first line has the names of the columns.

    A column is numerical if every cell that is not missing is a :func:`.cells.number`; otherwise it is categorical. Empty
    cells and ``na``, ``n/a``, ``nan``, ``null``, ``none`` and ``?``, in upper or lower case, are missing values. Blank lines are
    skipped.

    Args:
        path: of the file, in UTF-8; it may be compressed by gzip or be the only file of a zip archive.
        delimiter: one character.

    Returns:
        Columns of floats, with nan for missing values, or of strings, with "" for missing values. Its ``attrs`` have
        :data:`ROUNDED` and :data:`DECLARED`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: there is no header or row, a name is empty or repeated, a row has another length, or it is not CSV in UTF-8,
            as with text after a closing quotation mark.
    """
    with extra("studies"):
        import pandas as pd
    if not path.is_file():
        problem = "is not a file" if path.exists() else "is missing"
        raise FileNotFoundError(f"{path} {problem}: expected a CSV file whose first line has the names of the columns")
    content = _content(path)
    if b"\0" in content and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: it has NUL characters; {SAVE}")
    try:  # pandas' parser in Python, unlike the one in C, does not fill short rows with empty cells
        lines = pd.read_csv(
            io.BytesIO(content),
            sep=delimiter,
            engine="python",
            header=None,
            dtype=object,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError:
        lines = pd.DataFrame()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}; {SAVE}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}; is {delimiter!r} the delimiter?") from None
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a line of names and at least one row, got {len(lines)} lines")
    names = [name.strip() for name in lines.loc[0]]
    if repeated := sorted(name for name, count in Counter(names).items() if not name or count > 1):
        raise ValueError(f"{path}: expected a different name for each column, got {repeated} in {names}")
    for row, cells in lines[lines.isna().any(axis=1)].iterrows():
        raise ValueError(
            f"{path}, row {row}: expected {len(names)} cells, got {cells.count()}; is {delimiter!r} the delimiter?"
        )
    columns = dict(zip(names, lines.to_numpy()[1:].T.tolist(), strict=True))
    return _table({name: _column(cells) for name, cells in columns.items()}, columns, declared=False)


def _content(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a file, decompressed if its name ends in .gz or .zip."""
    content, suffix = read_regular(path, most), path.suffix.lower()
    try:
        if suffix == ".gz":
            content = GzipContent(content).read(most + 1)
        elif suffix == ".zip":
            content = _only_member(content, most + 1)
    except (OSError, *BROKEN_ARCHIVE) as error:
        raise ValueError(f"{path} cannot be decompressed: {error}") from None
    if len(content) > most:
        raise ValueError(f"{path} has more than {most:,} bytes when decompressed: give a smaller table")
    return content


def _only_member(content: bytes, most: int) -> bytes:
    """The first ``most`` bytes of the only file in a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise ValueError(f"expected one file in the archive, got {len(names)}: unpack it, and give the file")
        with archive.open(names[0]) as file:
            return file.read(most)


def _column(cells: list[str]) -> list[float] | list[str]:
    texts = [text if (text := cell.strip()).lower() not in MISSING else "" for cell in cells]
    try:
        return [number(text) if text else math.nan for text in texts]
    except ValueError:
        return texts


def _table(
    columns: Mapping[str, list[float] | list[str]], written: Mapping[str, Sequence[str]], declared: bool
) -> pd.DataFrame:
    with extra("studies"):
        import pandas as pd
    table = pd.DataFrame({name: _series(cells) for name, cells in columns.items()})
    numerical = [name for name, cells in columns.items() if isinstance(cells[0], float)]
    pairs = {name: pair for name in numerical if (pair := rounded_pair(written[name]))}
    table.attrs.update({ROUNDED: pairs, DECLARED: declared})
    return table


def _series(cells: list[float] | list[str]) -> pd.Series:
    import pandas as pd

    return pd.Series(cells, dtype=float if isinstance(cells[0], float) else object)


def included_table(name: str) -> pd.DataFrame:
    """A table of scikit-learn, in the units of measurement, or a file of the package river, which is not imported.

    Args:
        name: ``"diabetes"``, ``"breast_cancer"``, ``"linnerud"`` or ``"wine"``; ``"yeast"`` or ``"solar_flare"`` of river.

    Raises:
        ModuleNotFoundError: the package is missing; the message contains the command that installs it.
        FileNotFoundError, ValueError: river has no such file, or another number of rows or columns.
    """
    if name in RIVER:
        return _river_table(name)
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


def _river_table(name: str) -> pd.DataFrame:
    file, expected = RIVER[name]
    table = read_csv(package_file("river", f"datasets/{file}", "data"))
    if table.shape != expected:
        raise ValueError(
            f"{name}: river {package_version('river')} has {table.shape[0]:,} rows of {table.shape[1]} columns in {file}, "
            f"expected {expected[0]:,} of {expected[1]}: pip install 'river==0.26.1'"
        )
    return table
