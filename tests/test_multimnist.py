"""Multi-MNIST from files in the published idx format."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from command_line import call
from paretorch.training.model_size import parameter_counts
from paretorch.workloads.formats.idx import MNIST, find_digits, read_digits, read_idx
from paretorch.workloads.multimnist import MultiMNIST
from published_files import COUNTS, draw_digits, idx, shared_files, write_digits
from stored_streams import only_stream


def sources(image: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """The parts of the two images that do not overlap."""
    return image[0, :offset, :28], image[0, 28:, offset : offset + 28]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_published(tmp_path: Path, packed: bool) -> None:
    place = write_digits(tmp_path, packed=packed)
    assert find_digits(tmp_path, MNIST) == place
    assert find_digits(tmp_path / "elsewhere", MNIST, str(tmp_path / "MNIST")) == place
    images, classes = read_digits(place, "train")
    expected = draw_digits(COUNTS["train"], seed=5)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), expected[0])
    assert np.array_equal(classes.numpy(), expected[1])


def test_multimnist_pmtl_shifts_the_right_image_by_eight_pixels() -> None:
    workload = MultiMNIST("pmtl", "fashion+mnist", shared_files(), train=40, validation=10, test=30)
    digits = read_digits(find_digits(Path(shared_files()), MNIST), "test")
    found = only_stream(workload, "test")
    assert found.inputs.shape == (30, 1, 36, 36)
    for image, right in zip(found.inputs, found.targets["right"], strict=True):
        _, below = sources(image, 8)
        fits = [i for i in range(len(digits[0])) if torch.equal(digits[0][i, 20:], below[:, :28])]
        assert fits
        place = fits[0]
        assert digits[1][place] == right
        covered = image[0, 8:36, 8:36]
        assert bool((covered >= digits[0][place]).all())
        assert bool((image[0, :8, 28:] == 0).all())
        assert bool((image[0, 28:, :8] == 0).all())


def test_multimnist_sener_has_each_image_once_on_the_left() -> None:
    workload = MultiMNIST("sener", root=shared_files())
    splits = workload.data()
    assert splits.facts["pairs, train"] == splits.facts["distinct images, train"] == 100
    assert splits.facts["pairs, validation"] == 20
    assert splits.facts["pairs, test"] == 24
    train = only_stream(workload, "train")
    assert train.inputs.shape == (100, 1, 28, 28)
    assert train.inputs.dtype == torch.uint8
    first, second = workload._pairs("train", 100, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert bool((first != second).all())
    assert 0 <= int(second.min()) <= int(second.max()) < 100


@pytest.mark.parametrize("variant", ["sener", "pmtl"])
def test_multimnist_images_are_in_one_split(variant: str) -> None:
    parts = MultiMNIST(variant, root=shared_files())._parts(MNIST)
    images = [set(map(bytes, part.numpy().reshape(len(part), -1))) for part, _ in parts.values()]
    assert [len(each) for each in images] == [100, 20, 24]
    assert not images[0] & images[1]
    assert not (images[0] | images[1]) & images[2]


def test_multimnist_pairs_depend_on_the_data_seed_alone() -> None:
    def first(data_seed: int, torch_seed: int) -> Tensor:
        torch.manual_seed(torch_seed)
        return only_stream(MultiMNIST("pmtl", root=shared_files(), train=50, data_seed=data_seed), "train").inputs

    assert torch.equal(first(0, 0), first(0, 1))
    assert not torch.equal(first(0, 0), first(1, 0))


@pytest.mark.parametrize(
    ("variant", "edge", "encoder", "head"),
    [("sener", 28, 10 * 26 + 20 * 251 + 321 * 50, 51 * 50 + 510), ("pmtl", 36, 10 * 82 + 20 * 251 + 501 * 50, 510)],
)
def test_multimnist_models_are_the_published_ones(variant: str, edge: int, encoder: int, head: int) -> None:
    model = MultiMNIST(variant).model()
    counts = parameter_counts(model)
    assert (counts["encoder"], counts["head left"], counts["head right"]) == (encoder, head, head)
    outputs = model.eval()(torch.full((3, 1, edge, edge), 255, dtype=torch.uint8))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {"left": (3, 10), "right": (3, 10)}
    assert any(isinstance(module, nn.Dropout2d) for module in model.modules()) == (variant == "sener")


def test_multimnist_missing_error_has_the_expected_layout(tmp_path: Path) -> None:
    write_digits(tmp_path, "FashionMNIST")
    MultiMNIST(images="fashion", root=str(tmp_path)).require()
    with pytest.raises(FileNotFoundError) as caught:
        MultiMNIST(images="fashion+mnist", root=str(tmp_path)).require()
    for words in (
        "MNIST was not found in",
        "MNIST/raw/train-images-idx3-ubyte",
        "FashionMNIST",
        "mnist='FOLDER'",
        "yann.lecun.com",
    ):
        assert words in str(caught.value)


def test_multimnist_without_one_of_four_files_is_missing(tmp_path: Path) -> None:
    place = write_digits(tmp_path)
    (place / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="MNIST was not found"):
        MultiMNIST(root=str(tmp_path)).data()
    with pytest.raises(FileNotFoundError, match="no t10k-labels-idx1-ubyte"):
        read_digits(place, "test")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with nothing"),
        (b"\x80\x04pickled", "not an idx file"),
        (
            idx(np.zeros((5, 28, 28), np.uint8))[:-1],
            "is damaged: its header declares 5 x 28 x 28 bytes, it contains 3919",
        ),
        (idx(np.zeros((5, 28, 28), np.uint8)) + b"x", "is damaged"),
    ],
)
def test_idx_errors_name_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_idx(path)


def test_idx_errors_name_truncated_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((5, 28, 28), np.uint8)))[:-9])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz cannot be decompressed"):
        read_idx(path)


def test_idx_errors_name_labels_that_do_not_match(tmp_path: Path) -> None:
    place = write_digits(tmp_path)
    (place / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(24, 11, np.uint8)))
    with pytest.raises(ValueError, match="labels are 0 to 9, got 11"):
        read_digits(place, "test")
    (place / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(23, np.uint8)))
    with pytest.raises(ValueError, match="an image for each label"):
        read_digits(place, "test")


def test_idx_errors_name_empty_files(tmp_path: Path) -> None:
    place = write_digits(tmp_path)
    (place / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    (place / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(ValueError, match=r"raw/train-images-idx3-ubyte is empty: its header declares 0 x 28 x 28"):
        MultiMNIST(root=str(tmp_path)).data()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "senner"}, "variant is one of sener, pmtl"),
        ({"images": "kmnist"}, "images is one of mnist, fashion, fashion"),
        ({"train": 0}, "train is at least 1 pair"),
    ],
)
def test_multimnist_options_out_of_range_are_errors(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiMNIST(**options)  # type: ignore[arg-type]


def test_multimnist_sener_with_more_pairs_than_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="one pair for each of the 100 train images, got train=101"):
        MultiMNIST(root=shared_files(), train=101).data()


def test_multimnist_data_check_counts_the_images(tmp_path: Path) -> None:
    write_digits(tmp_path)
    code, output = call("data", "check", "multimnist", "--root", str(tmp_path))
    assert code == 1, "these are not all of the published images"
    assert "train: 120 images with labels (published: 60,000)" in output
    assert "test has 24 images, 10,000 are published" in output
    code, output = call("data", "check", "multimnist(images='fashion')", "--root", str(tmp_path))
    assert code == 1
    assert "Fashion-MNIST was not found" in output
    assert "MNIST/raw/train-images-idx3-ubyte" in call("data", "list")[1]
