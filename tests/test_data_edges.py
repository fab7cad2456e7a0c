"""Deviations from published data sets: number types, extensions, hidden folders, damaged headers, lists and outlines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_folders import write_city_images, write_nyuv2
from face_folders import write_celeba
from image_folders import SMALL, write_both, write_coco
from paretorch.workloads.celeba import CelebA
from paretorch.workloads.cityscapes import Cityscapes
from paretorch.workloads.dense.metrics import MedianAngle
from paretorch.workloads.formats.array_files import read_array
from paretorch.workloads.formats.celeba import read_faces
from paretorch.workloads.formats.cityscapes import offsets_to_means
from paretorch.workloads.formats.coco import find_coco, read_instances
from paretorch.workloads.formats.voc_masks import voc_mask
from paretorch.workloads.imagenet_coco import TASKS, ImagenetCoco
from paretorch.workloads.loading.image_source import SelectedImage
from paretorch.workloads.loading.unreadable import UnreadableError
from paretorch.workloads.nyuv2 import NYUv2
from paretorch.workloads.packs.pack import Pack
from paretorch.workloads.tabular import Tabular

NARROW: dict[str, Any] = {"width": 0.125, "workers": 0, "augmentation": "none"}
ENDINGS = {
    "leftImg8bit": "leftImg8bit/{}_leftImg8bit.png",
    "label": "gtFine/{}_gtFine_labelIds.png",
    "instance": "gtFine/{}_gtFine_instanceIds.png",
    "disparity": "disparity/{}_disparity.png",
}


def streets(root: Path) -> Cityscapes:
    return Cityscapes(root=str(root), form="images", height=32, **NARROW)


def rooms(root: Path) -> NYUv2:
    return NYUv2(root=str(root), **NARROW)


def first_of_test(workload: NYUv2 | Cityscapes) -> Any:
    source = workload.source()
    return source.reader("val", source.names("val")).read(0)


@pytest.mark.parametrize("kind", ["label", "instance", "disparity"])
@pytest.mark.parametrize(("rows", "columns"), [(32, 128), (64, 120)])
def test_cityscapes_files_of_another_shape_are_unreadable(tmp_path: Path, kind: str, rows: int, columns: int) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    path = place / ENDINGS[kind].format("val/aachen/aachen_000000_000019")
    Image.fromarray(np.array(Image.open(path))[:rows, :columns]).save(path)
    expected = f"{path.name}: expected 128 x 64 pixels, as the photograph has, .*got {columns} x {rows}"
    with pytest.raises(UnreadableError, match=expected):
        first_of_test(streets(tmp_path))
    (report,) = streets(tmp_path).check_data()
    assert re.search(expected, report.problems[0])


def test_cityscapes_labels_at_another_scale_are_resized(tmp_path: Path) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    before = first_of_test(streets(tmp_path))
    path = place / ENDINGS["label"].format("val/aachen/aachen_000000_000019")
    large = np.array(Image.open(path)).repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(large).save(path)
    after = first_of_test(streets(tmp_path))
    assert torch.equal(after.labels["segmentation"], before.labels["segmentation"])


def test_cityscapes_offsets_of_a_large_object_are_exact() -> None:
    instances = torch.full((512, 1024), 7)
    instances[128:, 256:] = 26001
    right, down = offsets_to_means(instances)[:, -1, -1].tolist()
    assert (right, down) == ((256 + 1023) / 2 - 1023, (128 + 511) / 2 - 511)


def test_coco_polygons_far_outside_the_image_are_unreadable() -> None:
    def drawn(far: float) -> int:
        return int((voc_mask([(77, 15, False, [[-far, 0.0, far, 5.0, 10.0, far]])], (20, 30), "42.jpg") == 15).sum())

    assert drawn(300.0) > 0, "objects may lead out of a cut image"
    for far in (
        301.0,
        3e8,
        1e12,
        1e300,
    ):  # the first would need little memory, and is an error before the others are tried
        with pytest.raises(
            UnreadableError, match=r"42.jpg: the segmentation of annotation 77 .*expected points within 10"
        ):
            drawn(far)


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64", ">u2", "longdouble"])
def test_arrays_of_every_number_type_are_read(tmp_path: Path, kind: str) -> None:
    place = write_nyuv2(tmp_path, train=2, val=1)
    expected = first_of_test(rooms(tmp_path))
    for folder in ("label", "depth") if kind == "longdouble" else ("label",):
        path = place / "val" / folder / "0.npy"
        np.save(path, np.where(np.load(path) < 0, 0, np.load(path)).astype(kind))
    found = first_of_test(rooms(tmp_path))
    assert torch.equal(found.labels["segmentation"], expected.labels["segmentation"].clamp(min=0))
    assert torch.equal(found.labels["depth"], expected.labels["depth"])
    np.save(place / "val" / "label" / "0.npy", np.full((32, 64), 2**64 - 1, np.uint64))
    with pytest.raises(UnreadableError, match="expected classes 0 to 12"):
        first_of_test(rooms(tmp_path))


def test_arrays_with_any_damaged_header_byte_are_unreadable(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((2, 3), np.float32))
    whole = (tmp_path / "0.npy").read_bytes()
    reasons = []
    for place in range(128):
        for byte in (b"\x00", b"'", b"(", b"-", b"\xff"):
            (tmp_path / "1.npy").write_bytes(whole[:place] + byte + whole[place + 1 :])
            try:
                read_array(tmp_path / "1.npy", "1.npy")
            except UnreadableError as error:
                reasons.append(error.reason)
    assert len(reasons) > 250
    assert all(reasons)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello" * 30, "expected a file as np.save writes it, got one that begins with b'hello"),
        (b"", "expected a file as np.save writes it, got an empty one"),
        (b"PK\x03\x04 and so on", "got an archive"),
        (b"\x80\x04\x95 pickled", "it contains Python objects"),
    ],
)
def test_array_errors_describe_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "0.npy").write_bytes(content)
    with pytest.raises(UnreadableError, match=f"label/0.npy: .*{reason}"):
        read_array(tmp_path / "0.npy", "label/0.npy")


def test_array_headers_above_the_memory_are_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((32, 64, 1), np.float32))
    content = (tmp_path / "0.npy").read_bytes()
    absurd = b"(32, 64" + 14 * b"0" + b", 1), }"
    (tmp_path / "0.npy").write_bytes(content.replace(b"(32, 64, 1), }" + 14 * b" ", absurd))
    with pytest.raises(
        UnreadableError,
        match=r"its header cannot be used: it declares .* 819,200,000,000,000,000 bytes; at most 268,435,456",
    ):
        read_array(tmp_path / "0.npy", "0.npy")


LISTS = ("Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt")


@pytest.mark.parametrize("name", LISTS)
def test_celeba_lists_in_another_encoding_are_errors(tmp_path: Path, name: str) -> None:
    place = write_celeba(tmp_path)
    whole = read_faces(place)
    path = place / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert {split: faces.names for split, faces in read_faces(place).items()} == {
        split: faces.names for split, faces in whole.items()
    }
    path.write_bytes(path.read_bytes().replace(b"000003.jpg", b"00\xe9003.jpg"))
    line = {LISTS[0]: 5, LISTS[1]: 3}[name]
    message = f"{path.name}, line {line}: expected text in UTF-8, got the byte 0xe9"
    with pytest.raises(ValueError, match=message):
        CelebA(root=str(tmp_path)).data()
    (report,) = CelebA(root=str(tmp_path)).check_data()
    assert [message in problem for problem in report.problems] == [True]


def test_celeba_errors_name_the_line_of_a_repeated_face(tmp_path: Path) -> None:
    path = write_celeba(tmp_path) / LISTS[1]
    path.write_text(path.read_text() + "000001.jpg 2\n")
    with pytest.raises(ValueError, match=r"partition.txt, line 22: expected each face once, got 000001.jpg again"):
        CelebA(root=str(tmp_path)).data()


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
    assert len(streets(tmp_path).source().names("train")) == 2
    assert len(rooms(tmp_path).source().names("train")) == 3
    for report in (
        *streets(tmp_path).check_data(),
        *rooms(tmp_path).check_data(),
        *CelebA(root=str(tmp_path)).check_data(),
    ):
        assert report.problems == []
    made = ImagenetCoco(root=str(tmp_path), **{**SMALL, "train": 12, "validation": 3, "test": 3})
    assert [len(stream) for stream in made.data().train] == [12, 12]


def test_pack_errors_name_a_file_that_cannot_grow_and_packing_continues(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    made = ImagenetCoco(root=str(write_both(tmp_path)), **{**SMALL, "train": 24, "validation": 9, "test": 6})
    made.packed(tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"no space left to write .*rows\.u8: .*`ulimit -f` allows no larger file.* it resumes"
        ):
            made.packed(tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    made.packed(tmp_path / "cut")
    for task in TASKS:
        cut, whole = (Pack.open(made.pack_folder(task, tmp_path / name)).manifest for name in ("cut", "whole"))
        assert cut == whole


ROWS = "\n".join(f"{i},{3 * i % 7},{'1_0' if i % 2 else '10'}" for i in range(30))


def test_tabular_numbers_with_underscores_are_categorical(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a,b,kind\n{ROWS}\n")
    made = Tabular(path=str(tmp_path / "a.csv"), targets="kind", classes="kind")
    (samples,) = made.data().train[0].batches(21, None)
    assert set(samples.targets["kind"].tolist()) == {0, 1}


def test_tabular_inputs_without_training_values_are_errors(tmp_path: Path) -> None:
    last = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()[-3:]
    rows = "\n".join(f"{'red' if i in last else ''},{i}" for i in range(30))
    (tmp_path / "a.csv").write_text(f"colour,price\n{rows}\n")
    with pytest.raises(ValueError, match=r"the inputs colour have no values in the training rows: fill them in"):
        Tabular(path=str(tmp_path / "a.csv"), targets="price").data()


@pytest.mark.parametrize(
    "tilts", [[10.0, 80.0], [0.0, 10.0, 20.0, 50.0], [5.0], [5.0, 5.0, 60.0, 60.0], [3.0, 4.0, 90.0]]
)
def test_median_angle_equals_numpy(tilts: list[float]) -> None:
    tilt = torch.tensor(tilts).deg2rad()
    output = torch.stack([tilt.sin(), torch.zeros_like(tilt), tilt.cos()]).view(1, 3, 1, -1)
    metric = MedianAngle()
    metric.update(output, torch.eye(3)[2].view(1, 3, 1, 1).expand_as(output))
    assert metric.compute() == pytest.approx(float(np.median(tilts)), abs=0.01)


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
    (report,) = rooms(tmp_path).check_data()
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
    before = [first_of_test(streets(tmp_path)), first_of_test(rooms(tmp_path))]
    item = [SelectedImage("train2017/000000001000.jpg")]
    image, mask = find_coco(tmp_path).reader(item, 32).read(0)
    listed = list(find_coco(tmp_path).names("train", ""))
    for folder in (city, room, coco / "train2017", face / "Img"):
        capitals(folder)
    assert list(room.rglob("*.npy")) == []
    for scene, workload in zip(before, (streets(tmp_path), rooms(tmp_path)), strict=True):
        found = first_of_test(workload)
        assert torch.equal(found.image, scene.image)
        assert all(
            torch.equal(found.labels[task].nan_to_num(), label.nan_to_num()) for task, label in scene.labels.items()
        )
    source = find_coco(tmp_path)
    assert (list(source.names("train", "")), source.missing("train")) == (listed, [])
    assert all(torch.equal(*both) for both in zip(source.reader(item, 32).read(0), (image, mask), strict=True))
    assert source.file(item[0].name).is_file()
    assert read_faces(face)["train"].image(0).shape == (3, 218, 178)


def test_array_errors_name_the_order_of_axes(tmp_path: Path) -> None:
    place = write_nyuv2(tmp_path, train=2, val=1)
    expected = "image/0.npy: expected an image, height x width x 3, got 3 x 32 x 64"
    for path in (place / "val" / "image").iterdir():
        np.save(path, np.moveaxis(np.load(path), -1, 0))
    with pytest.raises(ValueError, match=expected):
        rooms(tmp_path).data()
    np.save(place / "train" / "image" / "0.npy", np.zeros((3, 32, 64)))
    assert rooms(tmp_path).source().size("train") == (32, 64), "the first image does not decide for the others"


@pytest.mark.parametrize("content", ["[" * 200_000, '{"images": [{"id": Infinity}]}'])
def test_coco_errors_describe_malformed_instances(tmp_path: Path, content: str) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(ValueError, match=r"instances.json is not a file of COCO instances: .*Expected a JSON object"):
        read_instances(tmp_path / "instances.json")
