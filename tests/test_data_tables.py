"""Tables in ARFF files, compressed files and the package river, and binary labels."""

from __future__ import annotations

import gzip
import math
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from paretorch.training.run import Run
from paretorch.workloads.formats import package_files, table
from paretorch.workloads.formats.arff import read_cells
from paretorch.workloads.formats.table import read_table
from paretorch.workloads.tabular import Tabular
from table_files import LABELS, shared_labels, write_genes_arff, write_river
from training_runs import check_resumed_run

ARFF = """\
% a comment
@RELATION 'some table'
@ATTRIBUTE 'the size' NUMERIC
@attribute kind {red, 'dark blue', "it's"}
@attribute\tnote string
@attribute day date "yyyy-MM-dd"

@DATA
1.5,red,'a, b',2020-01-01
% another
-2e3,'dark blue',"c",?
?,"it's",d,2020-01-02
"""


def read_arff(text: str, where: str) -> dict[str, list[float] | list[str]]:
    return {attribute.name: attribute.values_of(cells) for attribute, cells in read_cells(text, where)}


def test_arff_columns_have_numbers_and_text() -> None:
    found = read_arff(ARFF, "text")
    assert list(found) == ["the size", "kind", "note", "day"]
    size = found["the size"]
    assert size[:2] == [1.5, -2000.0]
    assert isinstance(size[2], float)
    assert math.isnan(size[2])
    assert found["kind"] == ["red", "dark blue", "it's"]
    assert found["note"] == ["a, b", "c", "d"]
    assert found["day"] == ["2020-01-01", "", "2020-01-02"]


def test_arff_sparse_rows_have_defaults() -> None:
    text = "@attribute a real\n@attribute b {no,yes}\n@attribute c numeric\n@data\n{0 4, 2 1.5}\n{}\n{1 yes}\n{2 ?}\n"
    found = read_arff(text, "text")
    assert found["a"] == [4.0, 0.0, 0.0, 0.0]
    assert found["b"] == ["no", "no", "yes", "no"]
    assert str(found["c"]) == "[1.5, 0.0, 0.0, nan]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.5,red", "red", r"text, line 9: expected 4 values, one for each attribute, got 3"),
        ("1.5,red", "x,red", r"text, line 9: 'the size' is a number, got 'x'"),
        ("1.5,red", "1.5,green", r"text, line 9: 'kind' is one of red, dark blue, it's, got 'green'"),
        ("note string", "note relational", r"text, line 5: expected a name and numeric, real, .*note relational'"),
        ("note string", "kind string", r"expected a different name for each attribute, got \['kind'\] more than once"),
        ("{red, 'dark blue', \"it's\"}", "{}", r"text, line 4: attribute 'kind' has no values"),
        ("'a, b'", "'a, b", r"text, line 9: expected a closing quotation mark"),
        ("1.5,red,'a, b',2020-01-01", "{4 1}", r"text, line 9: expected an index from 0 to 3 and a value, got '4 1'"),
        ("1.5,red,'a, b',2020-01-01", "{0 1", r"text, line 9: expected a closing brace"),
        ("1.5,red", "1_5,red", r"text, line 9: 'the size' is a number, got '1_5'"),
        ("1.5,red,'a, b',2020-01-01", "{0 1, 0 5}", r"text, line 9: expected each index once, got 0 again"),
        ("1.5,red,'a, b',2020-01-01", "{\u0660 7}", r"text, line 9: expected an index from 0 to 3 and a value"),
        ("1.5,red,'a, b',2020-01-01", "{" + "9" * 5000 + " 7}", r"text, line 9: expected an index from 0 to 3 and a value"),
        ("{red, 'dark blue', \"it's\"}", "{" + "'\\" * 100_000 + "}", r"text, line 4: expected a closing quotation mark"),
        ("@DATA", "@DATE", r"text, line 8: expected @relation, @attribute or @data, got '@DATE'"),
        (ARFF[ARFF.index("1.5,red") :], "", r"at least one row; got 4 and 0"),
    ],
)  # fmt: skip
def test_arff_errors_name_the_line(old: str, new: str, message: str) -> None:
    assert old in ARFF
    with pytest.raises(ValueError, match=message):
        read_arff(ARFF.replace(old, new, 1), "text")


def test_arff_sparse_rows_of_too_many_values_are_refused_before_they_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("paretorch.workloads.formats.arff.MOST_CELLS", 10_000)
    names = "".join(f"@attribute a{place} real\n" for place in range(1000))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"text has more than 10,000 values in rows of 1,000"):
        read_arff(f"{names}@data\n" + "{}\n" * 20_000, "text")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000 * 1000 * 8 / 4  # a quarter of the whole table


def test_tables_compressed_or_not_are_equal(tmp_path: Path) -> None:
    path = write_genes_arff(tmp_path / "genes.arff", 30)
    (tmp_path / "genes.ARFF.gz").write_bytes(gzip.compress(path.read_bytes()))
    csv = tmp_path / "a.csv"
    csv.write_text("a,b\n1,x\n2,y\n")
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.write(csv, "inner/a.csv")
    assert read_table(path).equals(read_table(tmp_path / "genes.ARFF.gz"))
    assert read_table(csv).equals(read_table(tmp_path / "a.csv.zip"))
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.write(csv, "a.csv")
        archive.write(csv, "b.csv")
    with pytest.raises(ValueError, match=r"expected one file in the archive, got 2: unpack it"):
        read_table(tmp_path / "two.csv.zip")
    for name in ("bad.csv.gz", "bad.csv.zip"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(ValueError, match=rf"{name} cannot be decompressed"):
            read_table(tmp_path / name)


def test_tables_larger_than_the_limit_after_decompression_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 50_000))
    with pytest.raises(ValueError, match=r"has more than 10,000 bytes when decompressed"):
        table._content(tmp_path / "a.csv.gz", 10_000)


def test_binary_labels_have_one_score_an_error_and_f1() -> None:
    made = Tabular(path=shared_labels(), targets=",".join(LABELS), binary=",".join(LABELS))
    assert len(made.tasks) == 14
    (samples,) = made.data().train[0].batches(84, order=None)
    assert samples.inputs.shape == (84, 103)
    outputs = {task: torch.randn(84, generator=torch.Generator().manual_seed(0)) for task in made.tasks}
    losses = made.losses(outputs, samples.targets)
    target, scores = samples.targets["Class3"].double(), outputs["Class3"].double()
    expected = -(target * scores.sigmoid().log() + (1 - target) * (1 - scores.sigmoid()).log()).mean()
    assert losses["Class3"].item() == pytest.approx(expected.item(), rel=1e-5)
    error, f1 = made.metrics()["Class3"]
    for metric in (error, f1):
        metric.update(outputs["Class3"], samples.targets["Class3"])
    predicted = scores > 0
    assert error.compute() == pytest.approx(100 * (predicted != (target == 1)).double().mean().item())
    hits = (predicted & (target == 1)).sum().item()
    assert f1.compute() == pytest.approx(2 * hits / (predicted.sum().item() + target.sum().item()))
    assert made.model()(samples.inputs)["Class3"].shape == (84,)


def test_binary_labels_may_be_missing(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{('no', 'yes', '')[i % 3]},{i}\n" for i in range(60))
    (tmp_path / "a.csv").write_text("x,sold,price\n" + rows)
    made = Tabular(path=str(tmp_path / "a.csv"), targets="sold,price", binary="sold")
    (samples,) = made.data().train[0].batches(42, order=None)
    known = samples.targets["sold"] >= 0
    assert 0 < int(known.sum()) < 42
    outputs = {"sold": torch.ones(42)}
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.ones(42)[known], samples.targets["sold"][known].float()
    )
    assert made.losses(outputs, samples.targets)["sold"].item() == pytest.approx(expected.item())
    error, f1 = made.metrics()["sold"]
    for metric in (error, f1):
        metric.update(outputs["sold"], samples.targets["sold"])
    positive = (samples.targets["sold"] == 1).sum().item() / known.sum().item()
    assert error.compute() == pytest.approx(100 * (1 - positive))
    assert f1.compute() == pytest.approx(2 * positive / (1 + positive))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binary": "price"}, r"binary are targets \('kind', 'size'\), got \['price'\]"),
        ({"binary": "kind", "classes": "kind"}, r"a target is in classes or in binary, got \['kind'\] in both"),
        ({"binary": "kind"}, r"column 'kind' is in binary and has 3 values: expected two, got a, b, c"),
    ],
)
def test_binary_labels_errors(options: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,kind,size\n" + "".join(f"{i},{'abc'[i % 3]},{i}\n" for i in range(30)))
    with pytest.raises(ValueError, match=message):
        Tabular(path=str(tmp_path / "a.csv"), targets="kind,size", **options).data()  # type: ignore[arg-type]


@pytest.fixture
def river(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setitem(table.RIVER, "yeast", (table.RIVER["yeast"][0], (120, 117)))
    monkeypatch.setitem(table.RIVER, "solar_flare", (table.RIVER["solar_flare"][0], (40, 13)))
    return write_river(tmp_path / "packages")


def test_river_tables_are_read_without_importing_the_package(river: Path) -> None:
    del river
    genes = Tabular("yeast", data_seed=5)  # a seed of its own: other tests may have read the installed package
    assert genes.tasks == genes.labels == LABELS
    assert genes.data().facts["rows"] == 120
    assert genes.model()(torch.zeros(2, 103))["Class14"].shape == (2,)
    some = Tabular("yeast", targets="Class2,Class9", ignore=LABELS[:1], data_seed=5)
    assert some.labels == ("Class2", "Class9")
    flares = Tabular("solar_flare", data_seed=5)
    (samples,) = flares.data().train[0].batches(28, order=None)
    assert set(samples.targets) == {"c-class-flares", "m-class-flares", "x-class-flares"}
    assert samples.inputs.shape == (28, 3 + 1 + 2 + 7)


def test_river_of_another_version_is_an_error(river: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.RIVER, "yeast", ("yeast.csv.gz", (2_417, 117)))
    with pytest.raises(
        ValueError, match=r"has 120 rows of 117 columns in yeast.csv.gz, expected 2,417 of 117: pip install"
    ):
        Tabular("yeast", data_seed=6).require()
    (river / "yeast.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no file datasets/yeast\.csv\.gz"):
        Tabular("yeast", data_seed=6).require()


def test_river_missing_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^river is not installed: pip install 'paretorch\[data\]'$"):
        Tabular("solar_flare", data_seed=7).require()


@pytest.mark.long
def test_binary_labels_run_resumes_exactly(tmp_path: Path) -> None:
    options = {
        "path": shared_labels(),
        "targets": "Class1,Class2",
        "binary": "Class1,Class2",
        "ignore": ",".join(LABELS[2:]),
    }
    check_resumed_run(Run("tabular", options, method="MGDA()", epochs=3, batch_size=20), tmp_path, 1)


@pytest.mark.long
def test_river_package_has_the_published_tables() -> None:
    pytest.importorskip("river")
    genes, flares = Tabular("yeast"), Tabular("solar_flare")
    assert genes.data().facts["rows"] == 2_417
    assert genes.data().facts["input columns"] == 103
    assert flares.data().facts["rows"] == 1_066
