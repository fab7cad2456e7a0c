"""CelebA and Cityscapes at the published protocols: hyperparameters, networks, an epoch on tiny folders, and invalid files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dense_folders import NARROW, first_scene, narrow_cityscapes, save, write_city_arrays, write_city_images
from face_folders import shared_celeba, write_celeba
from paretorch.training.loop import train
from paretorch.training.model_size import parameter_counts
from paretorch.training.monitoring.training_monitor import TrainingWarning
from paretorch.training.run import Run
from paretorch.workloads.celeba import CelebA
from paretorch.workloads.cityscapes import Cityscapes
from paretorch.workloads.formats.celeba import ATTRIBUTES
from paretorch.workloads.loading.unreadable import UnreadableError
from paretorch.workloads.models.encoders import encoder


def protocol_run(name: str, protocol: Mapping[str, Any], **options: Any) -> Run:
    return Run(name, options, **protocol)


def test_celeba_defaults_are_the_protocol() -> None:
    made = CelebA()
    run = protocol_run("celeba", CelebA.protocol)
    assert (made.encoder, made.width, made.size) == ("resnet18", 1.0, 64)
    assert (run.optimizer, run.optimizer_options, run.batch_size) == ("Adam", {"lr": 5e-4}, 256)
    assert (run.epochs, run.schedule) == (100, "step(0.85, 10)")
    later = protocol_run("celeba", CelebA.later_protocol)
    assert (later.optimizer_options, later.epochs, later.batch_size, later.schedule) == (
        {"lr": 3e-4}, 15, 256, "constant",
    )  # fmt: skip
    assert {metric.name for metric in made.metrics()["Smiling"]} == {"error", "F1"}


def test_celeba_network_of_the_paper_has_2048_features() -> None:
    model = CelebA(encoder="resnet18_cifar", stride=8, points=2).model()
    assert model.encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 2048)  # type: ignore[operator]
    counts = parameter_counts(model)
    assert {counts[f"head {task}"] for task in ATTRIBUTES} == {2049}
    # torchvision's ResNet-18 without its classifier, with 3 x 3 instead of 7 x 7 weights in the first convolution
    assert counts["encoder"] == 11_176_512 - 64 * 3 * (49 - 9)


@pytest.mark.parametrize("stride", [32, 16, 8, 4, 2])
def test_resnet18_cifar_has_any_stride_and_no_pooling_as_published(stride: int) -> None:
    made = encoder("resnet18_cifar", 0.125, stride)
    assert made(torch.zeros(2, 3, 64, 64)).shape == (2, made.channels, 64 // stride, 64 // stride)
    pooling = [module for module in made.modules() if isinstance(module, nn.MaxPool2d)]
    assert len(pooling) == (1 if stride == 32 else 0)


def test_celeba_head_with_a_sigmoid_equals_two_scores_with_a_softmax() -> None:
    scores, targets = torch.randn(9, 2, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 2
    published = nn.functional.nll_loss(scores.log_softmax(dim=1), targets)
    ours = CelebA().losses({"Smiling": scores[:, 1] - scores[:, 0]}, {"Smiling": targets.float()})["Smiling"]
    torch.testing.assert_close(ours, published)


def test_cityscapes_defaults_are_the_protocol() -> None:
    made, run = Cityscapes(), protocol_run("cityscapes", Cityscapes.protocol)
    assert (run.optimizer, run.optimizer_options, run.batch_size) == ("Adam", {"lr": 1e-4}, 8)
    assert (run.epochs, run.schedule) == (200, "step(0.5, 100)")
    assert (made.form, made.classes_of, made.architecture, made.augmentation) == ("arrays", 7, "mtan", "zoom")
    names = {task: tuple(metric.name for metric in metrics) for task, metrics in made.metrics().items()}
    assert names == {
        "segmentation": ("mean IoU", "pixel accuracy"), "depth": ("absolute error", "relative error"),
    }  # fmt: skip
    three = Cityscapes(form="images", classes_of=19, architecture="dilated_resnet50")
    assert three.tasks == ("segmentation", "instance", "depth")
    assert three.height == 256


def one_epoch(run: Run, folder: Path, samples: int) -> None:
    """Trains a run for one epoch; every task has finite losses and a test score."""
    result = train(run, folder, progress=None)
    (epoch,) = result.to_json()["history"]
    assert epoch["samples"] == samples
    assert set(epoch["losses"]) == set(result.tasks)
    for scores in (epoch["losses"], epoch["validation"]["losses"], result.to_json()["test"]["losses"]):
        assert all(isinstance(value, float) and 0 < value < 100 for value in scores.values())


@pytest.mark.long
@pytest.mark.parametrize("name", ["protocol", "later_protocol", "network"])
def test_celeba_at_the_published_settings_trains_an_epoch(tmp_path: Path, name: str) -> None:
    protocol = dict(getattr(CelebA, "later_protocol" if name == "later_protocol" else "protocol"))
    paper: dict[str, Any] = (
        {"encoder": "resnet18_cifar", "stride": 8, "points": 2, "train": 16} if name == "network" else {}
    )
    run = protocol_run("celeba", {**protocol, "epochs": 1}, root=shared_celeba(), workers=0, **paper)
    one_epoch(run, tmp_path / "run", samples=paper.get("train", 80))


@pytest.mark.long
def test_cityscapes_arrays_at_the_published_settings_train_an_epoch(tmp_path: Path) -> None:
    write_city_arrays(tmp_path, train=9, val=2)
    run = protocol_run("cityscapes", {**Cityscapes.protocol, "epochs": 1}, root=str(tmp_path), workers=0)
    one_epoch(run, tmp_path / "run", samples=8)


@pytest.mark.long
def test_cityscapes_images_with_three_tasks_train_an_epoch(tmp_path: Path) -> None:
    write_city_images(tmp_path, train=9, val=2)
    options = {"form": "images", "classes_of": 19, "height": 64, "architecture": "dilated_resnet50"}
    protocol = {**Cityscapes.protocol, "epochs": 1}
    run = protocol_run("cityscapes", protocol, root=str(tmp_path), workers=0, augmentation="rotate", **options)
    one_epoch(run, tmp_path / "run", samples=8)


def test_celeba_attributes_with_missing_rows_name_a_face(tmp_path: Path) -> None:
    path = write_celeba(tmp_path) / "Anno/list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:7] + lines[9:]) + "\n")
    with pytest.raises(ValueError, match=r"list_attr_celeba.txt declares 21 faces and lists 19: unpack it again"):
        CelebA(root=str(tmp_path)).data()
    path.write_text("\n".join(["19", *lines[1:7], *lines[9:]]) + "\n")
    missing = (
        r"lists 21 faces and list_attr_celeba.txt 19, such as 000006.jpg in one of them only: unpack Anno and Eval"
    )
    with pytest.raises(ValueError, match=missing):
        CelebA(root=str(tmp_path)).data()
    path.write_text("\n".join([*lines[:5], lines[5].rsplit(maxsplit=1)[0], *lines[6:]]) + "\n")
    with pytest.raises(ValueError, match="line 6: expected a file name and forty of 1 or -1"):
        CelebA(root=str(tmp_path)).data()


def test_celeba_with_an_empty_split_names_the_list(tmp_path: Path) -> None:
    path = write_celeba(tmp_path) / "Eval/list_eval_partition.txt"
    path.write_text(path.read_text().replace(" 1\n", " 0\n"))
    with pytest.raises(ValueError, match=r"has no faces for validation: expected lines that end in 1 in Eval"):
        CelebA(root=str(tmp_path)).data()


@pytest.mark.parametrize("form", ["arrays", "images"])
def test_cityscapes_with_an_empty_split_names_the_folder(tmp_path: Path, form: str) -> None:
    place = (write_city_arrays if form == "arrays" else write_city_images)(tmp_path, train=2, val=1)
    for path in place.rglob("*.*"):
        if "val" in path.parts and path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match=r"val has no (arrays: expected NUMBER.npy in image|scenes: expected CITY/)"):
        Cityscapes(root=str(tmp_path), form=form, height=32, **NARROW).data()


@pytest.mark.parametrize("value", [7, 250, 255, 3.5])
def test_cityscapes_array_classes_outside_the_palette_are_unreadable(tmp_path: Path, value: float) -> None:
    place = write_city_arrays(tmp_path, train=2, val=1)
    path = place / "val/label/0.npy"
    label = np.load(path)
    label[5, 6] = value
    save(path, label)
    expected = f"label/0.npy: expected classes 0 to 6, and below 0 for pixels without label, got {value:g}"
    with pytest.raises(UnreadableError, match=expected):
        first_scene(Cityscapes(root=str(tmp_path), **NARROW))
    (report,) = Cityscapes(root=str(tmp_path), **NARROW).check_data()
    assert expected in report.problems[0]


def test_cityscapes_label_numbers_outside_the_palette_are_unreadable(tmp_path: Path) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    path = next((place / "gtFine/val/aachen").glob("*_labelIds.png"))
    numbers = np.array(Image.open(path))
    numbers[8:24, 8:24] = 34
    Image.fromarray(numbers).save(path)
    with pytest.raises(UnreadableError, match=r"labelIds.png: expected labels 0 to 33, got 34"):
        first_scene(narrow_cityscapes(tmp_path))


@pytest.mark.parametrize("folder", ["label", "depth"])
def test_cityscapes_arrays_of_unlike_size_are_unreadable(tmp_path: Path, folder: str) -> None:
    place = write_city_arrays(tmp_path, train=2, val=1)
    path = place / "val" / folder / "0.npy"
    save(path, np.load(path)[:, :60])
    with pytest.raises(
        UnreadableError, match=rf"{folder}/0.npy: expected an array of 32 x 64, as the others are, got 32 x 60"
    ):
        first_scene(Cityscapes(root=str(tmp_path), **NARROW))


def zero_depth(root: Path) -> None:
    write_city_arrays(root, train=4, val=1)
    for path in root.rglob("depth/*.npy"):
        save(path, np.zeros_like(np.load(path)))


def test_data_check_reports_depth_of_zeros(tmp_path: Path) -> None:
    zero_depth(tmp_path)
    (report,) = Cityscapes(root=str(tmp_path), **NARROW).check_data()
    assert report.problems == [
        f"cityscapes/{part}: no pixel of the {count} scenes has a label of the task depth: expected other values than 0. Copy "
        "these files again, or omit the task"
        for part, count in (("train", 4), ("val", 1))
    ]


def test_training_on_depth_of_zeros_warns_that_the_task_has_no_label(tmp_path: Path) -> None:
    zero_depth(tmp_path)
    run = Run("cityscapes", {"root": str(tmp_path), "architecture": "segnet", **NARROW}, batch_size=3)
    with pytest.warns(
        TrainingWarning, match="no sample of the first epoch had a label of 'depth', so it was not trained"
    ):
        result = train(run, tmp_path / "run", progress=None)
    assert set(result.to_json()["history"][0]["losses"]) == {"segmentation"}
