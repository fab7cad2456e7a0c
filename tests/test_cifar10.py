"""CIFAR-10 as ten binary tasks, from the published binary files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command_line import call
from paretorch.metrics import F1, BinaryAccuracy
from paretorch.training.model_size import parameter_counts
from paretorch.workloads.cifar10 import Cifar10
from paretorch.workloads.formats.cifar import CLASSES, find_cifar, read_cifar
from paretorch.workloads.streams import TensorStream
from published_files import shared_files, write_cifar


def test_cifar10_images_have_one_class_and_one_split() -> None:
    splits = Cifar10(root=shared_files()).data()
    images: list[set[bytes]] = []
    for streams in (splits.train, splits.validation, splits.test):
        (stream,) = streams
        assert isinstance(stream, TensorStream)
        truths = torch.stack([stream.targets[task] for task in CLASSES], dim=1)
        assert truths.sum(dim=1).tolist() == [1.0] * len(stream)
        rows = stream.inputs.float().mean(dim=(1, 3))
        for image, truth in zip(rows, truths, strict=True):
            assert int(image.argmax() - 1) // 3 == int(truth.argmax()), "an image's class is its brightest rows"
        images.append(set(map(bytes, stream.inputs.numpy().reshape(len(stream), -1))))
    assert [len(each) for each in images] == [108, 12, 24]
    assert not images[0] & images[1]
    assert not (images[0] | images[1]) & images[2]
    assert splits.facts == {"images, train": 108, "images, validation": 12, "images, test": 24}


def test_cifar10_colours_are_planes_of_red_green_and_blue(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    row = bytes([3]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes([30]) * 1023 + bytes([31])
    (place / "test_batch.bin").write_bytes(row)
    images, classes = read_cifar(place, "test")
    assert images.shape == (1, 3, 32, 32)
    assert images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert int(images[0, 2, 31, 31]) == 31
    assert classes.tolist() == [3]


def test_cifar10_model_is_the_published_one() -> None:
    counts = parameter_counts(Cifar10().model())
    assert counts["encoder"] == 11_176_512, "torchvision's ResNet-18 without its classifier"
    assert {counts[f"head {task}"] for task in CLASSES} == {513 * 256 + 257}


def test_cifar10_pickled_version_is_never_opened(tmp_path: Path) -> None:
    pickled = tmp_path / "cifar-10-batches-py"
    pickled.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (pickled / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(FileNotFoundError) as caught:
        Cifar10(root=str(tmp_path)).require()
    for words in (
        "CIFAR-10 was not found",
        "data_batch_1.bin",
        "pickled version, which is never opened",
        "cifar-10-binary.tar.gz",
    ):
        assert words in str(caught.value)


def test_cifar10_folder_is_found_by_name_and_by_option(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    assert find_cifar(tmp_path) == find_cifar(place) == find_cifar(tmp_path / "no", str(place)) == place
    (place / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match="CIFAR-10 was not found"):
        find_cifar(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got 0 bytes"),
        (bytes(3072), "no multiple"),
        (bytes(3073) + bytes([10]) + bytes(3072), "image 1 has the label 10"),
    ],
)
def test_cifar10_errors_name_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    place = write_cifar(tmp_path)
    (place / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_batch_2\.bin is damaged.*{words}"):
        Cifar10(root=str(tmp_path)).data()


def test_cifar10_more_images_than_available_are_an_error() -> None:
    with pytest.raises(ValueError, match="has 108 images for train, the options require 109"):
        Cifar10(root=shared_files(), train=109).data()
    with pytest.raises(ValueError, match="test is at least 1 image"):
        Cifar10(test=0)


def test_binary_metrics_equal_their_definitions() -> None:
    scores, truth = torch.tensor([1.0, -1.0, 1.0, -1.0, -2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    made = (BinaryAccuracy(), F1())
    for metric in made:
        metric.update(scores[:2], truth[:2])
        metric.update(scores[2:], truth[2:])
    assert made[0].compute() == pytest.approx(3 / 5)
    assert made[1].compute() == pytest.approx(2 / 4)
    empty = F1()
    empty.update(torch.tensor([-1.0]), torch.tensor([0.0]))
    assert empty.compute() != empty.compute()


def test_cifar10_data_check_counts_the_images(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    code, output = call("data", "check", "cifar10", "--root", str(tmp_path))
    assert code == 1, "these are not all of the published images"
    assert "train: 120 images (published: 50,000)" in output
    assert "test has 24 images, 10,000 are published" in output
    assert "cifar-10-batches-bin/test_batch.bin" in call("data", "list")[1]
