"""Tables as workloads: CSV files, categorical and missing values, missing labels, and errors."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretorch.metrics import Accuracy
from paretorch.training.loop import train
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.run import Run
from paretorch.training.updates import losses_of
from paretorch.training.workload_checks import trained_model
from paretorch.workloads.base import DataWarning
from paretorch.workloads.formats.table import read_table
from paretorch.workloads.tabular import Tabular

HEADER = "name,rooms,kind,price,sold\n"
ROWS = [
    f"house {i},{i % 5},{'flat' if i % 2 else 'villa'},{100 + 3 * i},{'yes' if i % 3 else 'no'}\n" for i in range(40)
]


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "houses.csv"
    path.write_text(text, encoding="utf-8")
    return path


def houses(path: Path, **options: Any) -> Tabular:
    return Tabular(path=str(path), **{"targets": "price,sold", "ignore": "name", **options})


def test_tabular_standardises_numbers_by_training_rows_and_encodes_classes(tmp_path: Path) -> None:
    made = houses(table(tmp_path, HEADER + "".join(ROWS)))
    splits = made.data()
    assert [len(streams[0]) for streams in (splits.train, splits.validation, splits.test)] == [28, 6, 6]
    (samples,) = splits.train[0].batches(28, order=None)
    assert samples.inputs.shape == (28, 3)  # rooms, and an indicator for each kind
    assert samples.targets["price"].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert samples.targets["price"].std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    assert set(samples.targets["sold"].tolist()) == {0, 1}


def test_tabular_error_is_in_the_unit_of_the_column(tmp_path: Path) -> None:
    made = houses(table(tmp_path, HEADER + "".join(ROWS)))
    (samples,) = made.data().test[0].batches(6, order=None)
    (metric,) = made.metrics()["price"]
    metric.update(torch.zeros(6), samples.targets["price"])  # the mean of the training rows
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    prices = 100 + 3 * order.double()
    assert metric.compute() == pytest.approx((prices[34:] - prices[:28].mean()).abs().mean().item(), rel=1e-5)


def test_tabular_missing_labels_are_ignored_and_counted(tmp_path: Path) -> None:
    rows = [row.replace(",yes", ",NA").replace(",no", ",") if i < 39 else row for i, row in enumerate(ROWS)]
    rows = [row.replace(f",{100 + 3 * i},", ",,") if i % 4 == 0 else row for i, row in enumerate(rows)]
    rows[0] = "house 0,,villa,,yes\n"
    made = houses(table(tmp_path, HEADER + "".join(rows)))
    splits = made.data()
    assert splits.facts["missing labels"] == {"price": 10, "sold": 38}
    (samples,) = splits.train[0].batches(28, order=None)
    assert samples.inputs.shape == (28, 4)  # with an indicator of missing values
    known = ~samples.targets["price"].isnan()
    assert int(made.labelled("price", samples.targets["price"], 28)) == int(known.sum()) < 28
    model = trained_model(made, made.tasks)
    found = losses_of(made, model, (samples,), "float32")
    expected = (model(samples.inputs)["price"] - samples.targets["price"])[known].square().mean()
    assert torch.equal(found["price"], expected)
    none = {"price": torch.full((2,), torch.nan), "sold": torch.tensor([-1, -1])}
    assert made.losses(model(samples.inputs[:2]), none) == {}


def test_tabular_numbers_can_be_classes(tmp_path: Path) -> None:
    made = houses(table(tmp_path, HEADER + "".join(ROWS)), targets=["rooms", "price"], classes="rooms")
    outputs = trained_model(made, made.tasks)(next(made.data().test[0].batches(6, order=None)).inputs)
    assert outputs["rooms"].shape == (6, 5)
    assert outputs["price"].shape == (6,)


def test_tabular_classes_keep_all_digits(tmp_path: Path) -> None:
    numbers = ["1000001", "1000002", "1000001.0", "-0.0", "0", "0.1"]
    rows = "".join(f"{i},{numbers[i % 6]},{i}\n" for i in range(60))
    made = Tabular(path=str(table(tmp_path, "x,id,y\n" + rows)), targets="id,y", classes="id")
    assert made._prepared().classes["id"] == ("0", "0.1", "1000001", "1000002")


def test_tabular_classes_that_may_be_rounded_are_errors(tmp_path: Path) -> None:
    rows = "".join(f"{i},{9007199254740992 + i % 2},{i}\n" for i in range(20))
    made = Tabular(path=str(table(tmp_path, "x,id,y\n" + rows)), targets="id,y", classes="id")
    with pytest.raises(ValueError, match=r"column 'id' has the class 9007199254740992, .*: prefix them with a letter"):
        made.data()


def test_tabular_constant_is_not_standardised_by_rounding(tmp_path: Path) -> None:
    held_out = torch.randperm(200, generator=torch.Generator().manual_seed(0))[-1]
    rows = "".join(f"{i},{0.2 if i == held_out else 0.1},{i},{0.2 if i == held_out else 0.1}\n" for i in range(200))
    made = Tabular(path=str(table(tmp_path, "x,k,y,u\n" + rows)), targets="y,u")
    assert made._prepared().scales["u"] == 1.0
    splits = made.data()
    (train,) = splits.train[0].batches(200, order=None)
    (test,) = splits.test[0].batches(200, order=None)
    assert bool((train.inputs[:, 1] == 0).all())
    assert bool((train.targets["u"] == 0).all())
    assert test.inputs[:, 1].max().item() == pytest.approx(0.1)


def test_tabular_small_deviation_from_a_large_mean_is_standardised(tmp_path: Path) -> None:
    rows = "".join(f"{1.7e9 + i / 1000:.3f},{i}\n" for i in range(40))
    (train,) = Tabular(path=str(table(tmp_path, "x,y\n" + rows)), targets="y").data().train[0].batches(40, order=None)
    assert train.inputs.std(correction=0).item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e300"])
@pytest.mark.parametrize("column", ["rooms", "price"])
def test_tabular_errors_name_infinite_cells(column: str, cell: str, tmp_path: Path) -> None:
    names = HEADER.strip().split(",")
    cells = [row.strip().split(",") for row in ROWS]
    cells[6][names.index(column)] = cell
    path = table(tmp_path, HEADER + "".join(",".join(row) + "\n" for row in cells))
    value = cell.replace("1e300", r"1e\+300")
    with pytest.raises(ValueError, match=rf"houses.csv, column '{column}', row 7: expected a number .*, got {value}\."):
        houses(path).require()
    others = "price" if column == "rooms" else "rooms"
    houses(path, targets=f"{others},sold", ignore=f"name,{column}").require()


def test_tabular_file_is_read_again_after_a_change(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + "".join(ROWS))
    made = houses(path)
    assert made.data().facts["rows"] == 40
    path.write_text(HEADER + "".join(ROWS[:20]))
    assert made.data().facts["rows"] == 20


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (HEADER + "".join(ROWS), {"targets": "prize"}, r"has no column 'prize'; its columns: name, rooms"),
        (HEADER + "".join(ROWS), {"targets": ""}, "name the target columns"),
        (HEADER + "".join(ROWS), {"targets": "name,rooms,kind,price,sold", "ignore": ""}, "there are no inputs"),
        (HEADER + "".join(ROWS), {"classes": "floor"}, "no column 'floor'"),
        (
            HEADER + "".join(ROWS).replace(",103,", ",1.0.3,"),
            {},
            r"column 'price', row 2: expected a number as in 39 of 40 cells",
        ),
        (HEADER + "".join(ROWS).replace(",103,", ",#N/A,"), {}, r"column 'price', row 2: .* got '#N/A'"),
        (HEADER + "".join(ROWS) + HEADER, {}, "row 41: expected a number as in 40 of 41 cells, got 'rooms'"),
        (HEADER.replace("rooms", "ro\0oms") + "".join(ROWS), {}, "has NUL characters"),
        (HEADER + "".join(ROWS), {"targets": "price,price"}, r"distinct columns, got \['price'\] more than once"),
        (HEADER + "".join(ROWS[:4]), {}, "has 4 rows: at least 10"),
        (HEADER, {}, "at least one row"),
        (HEADER + "".join(ROWS) + "one,two\n", {}, "row 41: expected 5 cells, got 2"),
        (HEADER + "".join(ROWS) + "1,2,3,4,5,6\n", {}, "Expected 5 fields in line 42, saw 6; is ',' the delimiter"),
        (HEADER + "".join(ROWS) + '"1,2,3,4,5\n', {}, "houses.csv cannot be read as CSV"),
        ("", {}, "at least one row, got 0 lines"),
        (HEADER.replace("rooms", "price") + "".join(ROWS), {}, r"a different name for each column, got \['price'\]"),
        (HEADER + "".join(row.replace(",no", ",yes") for row in ROWS), {}, "'sold' has 1 class"),
    ],
)
def test_tabular_errors_describe_invalid_tables(
    text: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = table(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        houses(path, **options).require()


def test_tabular_errors_name_missing_files_and_unknown_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a CSV file whose first line has the names of the columns"):
        houses(tmp_path / "nowhere.csv").require()
    with pytest.raises(ValueError, match="table is one of diabetes, breast_cancer, linnerud, wine"):
        Tabular("iris")


def test_tabular_numbers_in_classes_are_categories_of_an_input(tmp_path: Path) -> None:
    plain = houses(table(tmp_path, HEADER + "".join(ROWS)))
    (samples,) = plain.data().train[0].batches(28, order=None)
    rooms = len({row.split(",")[1] for row in ROWS})
    made = houses(table(tmp_path, HEADER + "".join(ROWS)), classes="rooms")
    (encoded,) = made.data().train[0].batches(28, order=None)
    assert encoded.inputs.shape == (28, samples.inputs.shape[1] - 1 + rooms)
    assert bool((encoded.inputs[:, :rooms].sum(dim=1) == 1).all())
    broken = [row.replace(f",{100 + 3 * i},", f",{100 + 3 * i}a,") if i == 5 else row for i, row in enumerate(ROWS)]
    as_classes = houses(table(tmp_path, HEADER + "".join(broken)), classes="price")
    assert isinstance(as_classes.metrics()["price"][0], Accuracy)


def seconds_to_read(folder: Path, columns: int) -> float:
    rows = [",".join(f"{(row * 7 + place) % 11}" for place in range(columns)) for row in range(12)]
    path = table(folder, ",".join(f"c{place}" for place in range(columns)) + "\n" + "\n".join(rows) + "\n")
    began = time.process_time()
    found = read_table(path)
    taken = time.process_time() - began
    np.testing.assert_array_equal(found.to_numpy()[3], [(21 + place) % 11 for place in range(columns)])
    return taken


def test_tabular_with_many_columns_is_read_in_time_that_grows_with_them(tmp_path: Path) -> None:
    few = min(seconds_to_read(tmp_path, 1_500) for _ in range(3))
    assert seconds_to_read(tmp_path, 15_000) < 40 * few  # quadratic growth: 100 times


UNDERSCORES = "\n".join(f"{i},{3 * i % 7},{'1_0' if i % 2 else '10'}" for i in range(30))


def test_tabular_numbers_with_underscores_are_categorical(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a,b,kind\n{UNDERSCORES}\n")
    made = Tabular(path=str(tmp_path / "a.csv"), targets="kind", classes="kind")
    (samples,) = made.data().train[0].batches(21, None)
    assert set(samples.targets["kind"].tolist()) == {0, 1}


def test_tabular_inputs_without_training_values_are_errors(tmp_path: Path) -> None:
    last = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()[-3:]
    rows = "\n".join(f"{'red' if i in last else ''},{i}" for i in range(30))
    (tmp_path / "a.csv").write_text(f"colour,price\n{rows}\n")
    with pytest.raises(ValueError, match=r"the inputs colour have no values in the training rows: fill them in"):
        Tabular(path=str(tmp_path / "a.csv"), targets="price").data()


def table_of(path: Path, cell: Callable[[int], str], rows: int = 60) -> Path:
    """A table of the columns x, v and y, with a quoted cell in each row of v."""
    return table(path, "x,v,y\n" + "".join(f'{i},"{cell(i)}",{i % 7}\n' for i in range(rows)))


NOTATIONS: dict[str, Callable[[int], str]] = {
    "decimal comma": lambda i: f"{i},064" if i % 3 else str(i),
    "decimal comma, exponent": lambda i: f"-{i},5e-3",
    "thousands, comma": lambda i: f"{1 + i},{100 + i}.5",
    "thousands, lakh": lambda i: f"1,{10 + i},000",
    "thousands, space": lambda i: f"{1 + i} {100 + i}",
    "thousands, narrow space": lambda i: f"{1 + i}\u202f{100 + i},25",
    "thousands, apostrophe": lambda i: f"{1 + i}'{100 + i}",
    "thousands, underscore": lambda i: f"{1 + i}_{100 + i}",
    "thousands, point": lambda i: f"{1 + i}.{100 + i},50",
    "hexadecimal": lambda i: hex(i),
    "per cent": lambda i: f"{i}%",
    "per cent, decimal comma": lambda i: f"{i},5 %",
    "currency": lambda i: f"${i}",
    "currency, negative": lambda i: f"-\u20ac {i}.50",
    "currency after": lambda i: f"{i} EUR",
    "currency, missing": lambda i: "n/a" if i % 3 else f"${1 + i}.5K",
    "unit": lambda i: f"{i}.5 kg",
    "minus sign": lambda i: f"\u2212{i}",
    "other digits": lambda i: "".join(chr(0x660 + int(digit)) for digit in str(i)),
    "half of the cells": lambda i: "unknown" if i % 5 < 2 else f"{i}%",
}


@pytest.mark.parametrize("targets", ["v,y", "y"])
@pytest.mark.parametrize("name", NOTATIONS)
def test_tabular_numbers_in_another_notation_are_errors(name: str, targets: str, tmp_path: Path) -> None:
    path = table_of(tmp_path, NOTATIONS[name])
    message = r"houses.csv, column 'v', row \d+: expected a number such as .*in this notation or a plain one\. Write.*in classes="
    decimal = name == "decimal comma"
    with pytest.raises(ValueError, match=message) as error:
        Tabular(path=str(path), targets=targets).data()
    row = int(str(error.value).split("row ")[1].split(":")[0])
    assert repr(NOTATIONS[name](row - 1)) in str(error.value)
    assert not decimal or "got '1,064'; 60 of 60 cells" in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of a class in each row
        assert "v" in Tabular(path=str(path), targets="v,y", classes="v")._prepared().classes
    assert Tabular(path=str(path), targets="y", ignore="v").data().facts["input columns"] == 1


@pytest.mark.parametrize(
    "values",
    [
        ("1-2", "3-4", "10-20"),
        ("<5", "5-10", ">10"),
        ("2021-05", "2021-06"),
        ("01.02.2021", "02.02.2021"),
        ("3/4/2021", "5/4/2021"),
        ("A1", "B2"),
        ("SW1A 1AA", "EC1 2AB"),
        ("12345-6789", "12345-6780"),
        ("1.2.3", "1.10.0"),
        ("192.168.0.1", "10.0.0.1"),
        ("10:30", "11:45"),
        ("1/2", "3/4"),
        ("1_0", "2_0"),
        ("1, 2", "2, 3"),
        ("4wd", "2wd"),
        ("36 months", "60 months"),
        ("1st", "2nd", "3rd"),
        ("3 seats", "5 seats"),
        ("555 1234", "555 4321"),
        ("$", "$$", "$$$"),
        ("5%", "unknown", "none given", "no"),
        ("3f", "1e", "beef"),
    ],
)
def test_tabular_codes_with_digits_are_categories(values: tuple[str, ...], tmp_path: Path) -> None:
    path = table_of(tmp_path, lambda i: values[i % len(values)])
    assert Tabular(path=str(path), targets="v,y")._prepared().classes["v"] == tuple(sorted(values))


def test_tabular_street_numbers_ordinals_and_many_versions_are_categories(tmp_path: Path) -> None:
    for cell in (lambda i: f"1.{i % 30}.0", lambda i: f"{i % 30}th", lambda i: f"{i % 30}{'abc'[i % 3]}"):
        assert "v" in Tabular(path=str(table_of(tmp_path, cell, 120)), targets="v,y")._prepared().classes


def test_tabular_declared_nominal_values_of_arff_are_categories(tmp_path: Path) -> None:
    rows = "".join(f"{i},'{10 * (i % 3)}%',{i % 7}\n" for i in range(30))
    head = "@relation r\n@attribute x real\n@attribute v {'0%','10%','20%'}\n@attribute y real\n@data\n"
    (tmp_path / "a.arff").write_text(head + rows)
    made = Tabular(path=str(tmp_path / "a.arff"), targets="v,y")
    assert made._prepared().classes["v"] == ("0%", "10%", "20%")


def test_tabular_target_with_a_class_in_most_rows_is_noted(tmp_path: Path) -> None:
    made = Tabular(path=str(table_of(tmp_path, lambda i: f"item {i}" if i % 3 else "other")), targets="v,y")
    with pytest.warns(DataWarning, match=r"column 'v': 40 of 60 labelled rows have a class that no other row has"):
        made.data()
    half = Tabular(path=str(table_of(tmp_path, lambda i: f"item {i}" if i % 2 else "other")), targets="v,y")
    assert half.data().facts["rows"] == 60
    few = Tabular(path=str(table_of(tmp_path, lambda i: f"item {i}", 40)), targets="v,y")
    assert few.data().facts["rows"] == 40


def test_tabular_input_with_a_value_of_its_own_in_most_rows_is_noted(tmp_path: Path) -> None:
    path = table_of(tmp_path, lambda i: f"2026-01-01 10:00:{i}" if i % 3 else "unknown")
    with pytest.warns(
        DataWarning, match=r"column 'v': 40 of 60 values occur once.*Leave the column out \(ignore='v'\)"
    ):
        Tabular(path=str(path), targets="y").data()
    assert Tabular(path=str(path), targets="y", ignore="v").data().facts["input columns"] == 1
    half = table_of(tmp_path, lambda i: f"item {i}" if i % 2 else "other")
    assert Tabular(path=str(half), targets="y").data().facts["rows"] == 60


def test_tabular_whole_numbers_that_are_rounded_are_errors_of_targets_and_noted_of_inputs(tmp_path: Path) -> None:
    path = table_of(tmp_path, lambda i: str(2**53 + i) if i else "")
    message = (
        r"column 'v': the different whole numbers 9007199254740995 \(row 4\) and 9007199254740996 \(row 5\) become the same "
        r"number.*Subtract an offset"
    )
    with pytest.raises(ValueError, match=message):
        Tabular(path=str(path), targets="v,y").require()
    with pytest.warns(DataWarning, match=message):
        Tabular(path=str(path), targets="y").data()
    assert Tabular(path=str(path), targets="y", ignore="v").data().facts["input columns"] == 1
    arff = "@relation r\n@attribute x real\n@attribute v integer\n@attribute y real\n@data\n"
    (tmp_path / "a.arff").write_text(arff + "".join(f"{i},{2**60 + i},{i % 7}\n" for i in range(30)))
    with pytest.raises(ValueError, match=r"1152921504606846976 \(row 1\) and 1152921504606846977 \(row 2\)"):
        Tabular(path=str(tmp_path / "a.arff"), targets="v,y").require()


def test_tabular_large_numbers_that_are_not_rounded_to_the_same_are_read(tmp_path: Path) -> None:
    for cell in (
        lambda i: str(2**53 + 1024 * i),
        lambda i: f"{i}.0000000000000000001",
        lambda i: f"00000000000000000{i % 9}",
    ):
        made = Tabular(path=str(table_of(tmp_path, cell)), targets="v,y")
        assert "v" in made._prepared().scales


def test_tabular_constant_numerical_targets_are_errors(tmp_path: Path) -> None:
    path = table_of(tmp_path, lambda i: "0.25" if i % 2 else "")
    with pytest.raises(
        ValueError, match=r"column 'v' has the value 0\.25 in all 30 labelled rows: expected at least two"
    ):
        Tabular(path=str(path), targets="v,y").require()
    assert Tabular(path=str(path), targets="y").data().facts["rows"] == 60
    path = table_of(tmp_path, lambda i: "3" if i == 7 else "")
    with pytest.raises(ValueError, match=r"column 'v' has the value 3\.0 in its only labelled row"):
        Tabular(path=str(path), targets="v,y").require()


def test_training_without_validation_labels_of_a_task_gives_a_note(tmp_path: Path) -> None:
    train_rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:42].tolist()
    path = table_of(tmp_path, lambda i: str(i) if i in train_rows else "")
    run = Run("tabular", {"path": str(path), "targets": "v,y"}, epochs=1, batch_size=42)
    with pytest.warns(
        TrainingWarning, match="no validation sample has a label of 'v', so its validation scores are nan"
    ):
        result = train(run, tmp_path / "run", progress=None)
    assert "no validation sample" in result.facts["troubles"][0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("name", ["a.csv", "a.arff"])
def test_tabular_files_in_another_encoding_are_errors_without_a_hint_at_the_delimiter(
    name: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(("x,größe\n" + "1,2\n" * 20).encode(encoding))
    with pytest.raises(ValueError, match=r"UTF-8: .*; save it as text in UTF-8$") as error:
        read_table(tmp_path / name)
    assert "delimiter" not in str(error.value)
