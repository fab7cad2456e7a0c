"""Tables in the form of published ones, written from a seed: labels of genes as ARFF and as in the package river."""

from __future__ import annotations

import atexit
import gzip
import io
import shutil
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

LABELS = tuple(f"Class{number}" for number in range(1, 15))


def gene_rows(rows: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """103 features and 14 labels, each a function of a few features."""
    random = np.random.default_rng(seed)
    features = random.normal(0, 0.1, (rows, 103)).round(6)
    labels = [(features[:, place] + features[:, place + 1] > 0.02 * (place % 5)).astype(int) for place in range(14)]
    names = [*(f"Att{number}" for number in range(1, 104)), *LABELS]
    cells = [[*map(str, row), *(str(label[index]) for label in labels)] for index, row in enumerate(features)]
    return names, cells


def write_genes_arff(path: Path, rows: int = 120) -> Path:
    """A dense ARFF file as the multi-label library MULAN publishes it."""
    names, cells = gene_rows(rows)
    kinds = ["{0,1}" if name in LABELS else "numeric" for name in names]
    attributes = [f"@attribute {name} {kind}" for name, kind in zip(names, kinds, strict=True)]
    path.write_text(
        "\n".join(["@relation genes", "", *attributes, "", "@data", *(",".join(row) for row in cells)]) + "\n"
    )
    return path


def write_river(folder: Path, genes: int = 120, regions: int = 40) -> Path:
    """A package river with both tables; its code fails if it is imported."""
    data = folder / "river" / "datasets"
    data.mkdir(parents=True)
    for place in (data.parent, data):
        (place / "__init__.py").write_text("raise AssertionError('imported')\n")
    names, cells = gene_rows(genes)
    text = "\n".join(",".join(row) for row in [names, *cells]) + "\n"
    (data / "yeast.csv.gz").write_bytes(gzip.compress(text.encode()))
    header = (
        "zurich-class,largest-spot-size,spot-distribution,activity,evolution,previous-24h-flare-activity,hist-complex,"
        "hist-complex-this-pass,area,largest-spot-area,c-class-flares,m-class-flares,x-class-flares"
    )
    rows = [
        f"{'HDC'[i % 3]},A,{'XO'[i % 2]},1,{i % 3 + 1},1,{i % 2 + 1},1,1,1,{i % 4},{i % 3},{i % 2}"
        for i in range(regions)
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("solar-flare.csv.zip", "\n".join([header, *rows]) + "\n")  # named like this in river
    (data / "solar-flare.csv.zip").write_bytes(buffer.getvalue())
    return data


@lru_cache(maxsize=1)
def shared_labels() -> str:
    """An ARFF file for the whole test run that no test changes."""
    folder = tempfile.mkdtemp(prefix="paretorch-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_genes_arff(Path(folder) / "genes.arff"))
