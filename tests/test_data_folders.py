"""Folders of data sets with hidden folders, extensions in upper case, and splits that cannot be trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from dense_folders import first_scene, narrow_cityscapes, narrow_nyuv2, write_city_images, write_nyuv2
from face_folders import write_celeba
from image_folders import SMALL, write_both, write_coco
from paretorch.workloads.celeba import CelebA
from paretorch.workloads.formats.celeba import read_faces
from paretorch.workloads.formats.coco import find_coco
from paretorch.workloads.imagenet_coco import ImagenetCoco
from paretorch.workloads.loading.image_source import SelectedImage
from test_celeba import LISTS
from test_cityscapes import ENDINGS


def hide(folder: Path, like: Path) -> None:
    """A hidden copy of a file, as notebooks create it."""
    hidden = folder / ".ipynb_checkpoints" / like.name
    hidden.parent.mkdir()
    hidden.write_bytes(like.read_bytes())


def test_hidden_folders_are_ignored(tmp_path: Path) -> None:
    city, room, face = (
        write_city_images(tmp_path, train=2, val=1),
        write_nyuv2(tmp_path, train=3, val=1),
        write_celeba(tmp_path),
    )
    write_both(tmp_path)
    hide(city / "leftImg8bit" / "train", city / ENDINGS["leftImg8bit"].format("train/aachen/aachen_000000_000019"))
    hide(room / "train" / "image", room / "train" / "image" / "0.npy")
    hide(face / "Img" / "img_align_celeba", face / "Img" / "img_align_celeba" / "000001.jpg")
    for folder in ("imagenet/train", "coco/train2017"):
        hide(tmp_path / folder, next((tmp_path / folder).rglob("*.[jJ]*")))
    assert len(narrow_cityscapes(tmp_path).source().names("train")) == 2
    assert len(narrow_nyuv2(tmp_path).source().names("train")) == 3
    for report in (
        *narrow_cityscapes(tmp_path).check_data(),
        *narrow_nyuv2(tmp_path).check_data(),
        *CelebA(root=str(tmp_path)).check_data(),
    ):
        assert report.problems == []
    made = ImagenetCoco(root=str(tmp_path), **{**SMALL, "train": 12, "validation": 3, "test": 3})
    assert [len(stream) for stream in made.data().train] == [12, 12]


def test_data_check_reports_errors_of_training(tmp_path: Path) -> None:
    path = write_celeba(tmp_path) / LISTS[1]
    (report,) = CelebA(root=str(tmp_path), train=13).check_data()
    assert report.problems[0].endswith(
        "12 faces for train, the options require 13: reduce train to 12, or omit it for all"
    )
    path.write_text(path.read_text().replace(" 2\n", " 0\n"))
    (report,) = CelebA(root=str(tmp_path)).check_data()
    (problem,) = report.problems
    assert "has no faces for test: expected lines that end in 2 in Eval/list_eval_partition.txt" in problem
    write_nyuv2(tmp_path, train=1, val=1)
    (report,) = narrow_nyuv2(tmp_path).check_data()
    assert report.problems == [
        "validation: expected at least two training scenes, for training and validation, got 1: add scenes"
    ]


def capitals(folder: Path) -> None:
    """Changes the extensions of all files to upper case."""
    for path in [path for path in folder.rglob("*.*") if path.is_file()]:
        path.rename(path.with_suffix(path.suffix.upper()))


def test_extensions_in_upper_case_are_found(tmp_path: Path) -> None:
    city, room, face = (
        write_city_images(tmp_path, train=2, val=1),
        write_nyuv2(tmp_path, train=2, val=1),
        write_celeba(tmp_path),
    )
    coco = write_coco(tmp_path)
    before = [first_scene(narrow_cityscapes(tmp_path)), first_scene(narrow_nyuv2(tmp_path))]
    item = [SelectedImage("train2017/000000001000.jpg")]
    image, mask = find_coco(tmp_path).reader(item, 32).read(0)
    listed = list(find_coco(tmp_path).names("train", ""))
    for folder in (city, room, coco / "train2017", face / "Img"):
        capitals(folder)
    assert list(room.rglob("*.npy")) == []
    for scene, workload in zip(before, (narrow_cityscapes(tmp_path), narrow_nyuv2(tmp_path)), strict=True):
        found = first_scene(workload)
        assert torch.equal(found.image, scene.image)
        assert all(
            torch.equal(found.labels[task].nan_to_num(), label.nan_to_num()) for task, label in scene.labels.items()
        )
    source = find_coco(tmp_path)
    assert (list(source.names("train", "")), source.missing("train")) == (listed, [])
    assert all(torch.equal(*both) for both in zip(source.reader(item, 32).read(0), (image, mask), strict=True))
    assert source.file(item[0].name).is_file()
    assert read_faces(face)["train"].image(0).shape == (3, 218, 178)
