"""Masks of VOC's classes from COCO's objects, compared with masks set by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as runs

from image_folders import (
    annotation,
    packed_runs,
    rectangle,
    unpacked_runs,
    write_instances,
)
from paretorch.workloads.formats.coco import read_instances
from paretorch.workloads.formats.voc_masks import CLASSES, LABELS, run_lengths, voc_mask
from paretorch.workloads.loading.unreadable import UnreadableError

SHAPE = (20, 30)
WHOLE = rectangle(*SHAPE, 5, 10, 15, 25)


def polygon(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]


@pytest.mark.parametrize("segmentation", [unpacked_runs(WHOLE), packed_runs(WHOLE), [polygon(5, 10, 15, 25)]])
def test_masks_of_polygons_runs_and_compressed_runs_are_equal(segmentation: Any) -> None:
    assert torch.equal(voc_mask([(1, 15, False, segmentation)], SHAPE, "a"), torch.from_numpy(15 * WHOLE))


def test_masks_of_several_polygons_are_one_object() -> None:
    parts = [polygon(0, 0, 4, 4), polygon(10, 10, 14, 14)]
    mask = voc_mask([(1, 8, False, parts)], SHAPE, "a")
    assert int((mask == 8).sum()) == 32
    assert int(mask[2, 2]) == int(mask[12, 12]) == 8


@pytest.mark.parametrize("turned", [False, True])
def test_masks_have_the_smaller_object_in_front_in_any_order(turned: bool) -> None:
    large, small = (1, 13, False, [polygon(0, 0, 20, 30)]), (2, 15, False, [polygon(5, 5, 10, 10)])
    mask = voc_mask([small, large] if turned else [large, small], SHAPE, "a")
    assert int((mask == 15).sum()) == 25
    assert int((mask == 13).sum()) == 600 - 25


def test_masks_ignore_crowd_regions_except_for_single_objects() -> None:
    crowd, person = (1, 15, True, packed_runs(WHOLE)), (2, 15, False, [polygon(0, 0, 10, 30)])
    for objects in ([crowd, person], [person, crowd]):
        mask = voc_mask(objects, SHAPE, "a")
        assert bool((mask[:10] == 15).all())
        assert bool((mask[10:15, 10:25] == 255).all())
        assert int((mask == 255).sum()) == 75


def test_masks_without_objects_are_background() -> None:
    assert not voc_mask([], SHAPE, "a").any()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "expected polygons"),
        (None, "expected polygons"),
        ([[1.0, 2.0, 3.0, 4.0]], "three points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]], "three points"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, "x"]], "expected numbers as coordinates, got 'x'"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0, True]], "expected numbers as coordinates, got True"),
        ({"size": [20, 30], "counts": [300.9, 299.1]}, "expected whole numbers of pixels, got 300.9"),
        ({"size": [20, 30], "counts": "o" * 100_000}, "a number of more than 35 bits"),
        ([[0.0, 0.0, 30.0, 20.0] * 1000], "its outline has 60,000 pixels, more than 100 times the sides"),
        ({"size": [20, 31], "counts": [620]}, r"size is \[20, 31\], the image's \[20, 30\]"),
        ({"size": [20, 30], "counts": [10, 20]}, "cover 30 of 600"),
        ({"size": [20, 30], "counts": [590, 20]}, "cover 610 of 600"),
        ({"size": [20, 30], "counts": [700, -100]}, "cover 600"),
        ({"size": [20, 30], "counts": "1"}, "cover 1 of 600"),
        ({"size": [20, 30], "counts": "é"}, "ascii"),
        ({"size": [20, 30], "counts": "zz"}, "no character of compressed runs"),
        ({"size": [20, 30], "counts": "Q"}, "truncated"),
        ({"size": [20, 30]}, "counts"),
    ],
)
def test_mask_errors_name_image_and_annotation(segmentation: Any, reason: str) -> None:
    with pytest.raises(UnreadableError, match=f"00042.jpg: the segmentation of annotation 77 is malformed: .*{reason}"):
        voc_mask([(77, 15, False, segmentation)], SHAPE, "00042.jpg")


def test_run_lengths_equal_those_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    for density in (0.02, 0.5, 0.98):
        mask = (random.random((37, 61)) < density).astype(np.uint8)
        assert run_lengths(runs.encode(np.asfortranarray(mask))["counts"]) == unpacked_runs(mask)["counts"]


def test_voc_classes_have_the_ids_of_coco() -> None:
    assert len(CLASSES) == 21
    # the ids with which DeepLab and torchvision select VOC's classes from COCO, in VOC's order
    assert list(LABELS) == [5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
    assert list(LABELS.values()) == list(range(1, 21))


IMAGE = {"id": 5, "file_name": "a.jpg", "height": 20, "width": 30}


def write_one_image(folder: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    write_instances(folder / "instances.json", [IMAGE], annotations, **more)
    return folder / "instances.json"


def test_instances_have_voc_objects_and_count_the_others(tmp_path: Path) -> None:
    square = [polygon(0, 0, 4, 4)]
    path = write_one_image(
        tmp_path, [annotation(1, 5, 1, square, 1), annotation(2, 5, 32, square), annotation(3, 5, 18, square)]
    )
    found = read_instances(path)
    assert found.shapes == {"a.jpg": (20, 30)}
    assert (found.crowds, found.others) == (1, 1)
    assert json.loads(found.objects["a.jpg"]) == [[1, 15, True, square], [3, 12, False, square]]


def test_instances_are_read_again_after_a_change(tmp_path: Path) -> None:
    assert read_instances(write_one_image(tmp_path, [])).objects == {}
    assert len(read_instances(write_one_image(tmp_path, [annotation(1, 5, 1, [polygon(0, 0, 4, 4)])])).objects) == 1


def test_instances_errors_name_unknown_categories(tmp_path: Path) -> None:
    square = [polygon(0, 0, 4, 4)]
    path = write_one_image(
        tmp_path, [annotation(1, 5, 91, square), annotation(2, 5, 91, square), annotation(3, 5, 12, square)]
    )
    with pytest.raises(
        ValueError, match=r"instances.json: unknown category ids: 12 \(on 1 objects\), 91 \(on 2 objects\)"
    ):
        read_instances(path)
    renumbered = [{"id": 1, "name": "person"}, {"id": 12, "name": "parking meter"}]
    with pytest.raises(ValueError, match=r"12 \('parking meter'\).*their own ids"):
        read_instances(write_one_image(tmp_path, [], categories=renumbered))
    with pytest.raises(ValueError, match=r"category 20 is 'sheep' in COCO, got 'horse'"):
        read_instances(write_one_image(tmp_path, [], categories=[{"id": 20, "name": "horse"}]))


def test_instances_errors_name_unlisted_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not list: ids 6"):
        read_instances(write_one_image(tmp_path, [annotation(1, 6, 1, [polygon(0, 0, 4, 4)])]))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"images": []}', '{"images": 3, "annotations": []}', '{"images": [{}], "annotations": []}'],
)
def test_instances_errors_describe_the_expected_file(content: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"instances\.json is not a file of COCO instances: .*Expected"):
        read_instances(path)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([IMAGE | {"height": 0}], "image 5 has 30 x 0 pixels"),
        ([IMAGE | {"width": -3}], "image 5 has -3 x 20 pixels"),
        ([IMAGE | {"width": 1 << 40}], "image 5 has 1099511627776 x 20 pixels"),
        ([IMAGE | {"id": True}], "id is an integer, got True"),
        ([IMAGE | {"file_name": "\ud800.jpg"}], "the file_name of image 5 is"),
        ([IMAGE | {"height": 20.5}], r"height is an integer, got 20\.5"),
        ([IMAGE, IMAGE | {"file_name": "b.jpg"}], "two images with the id 5"),
        ([IMAGE, IMAGE | {"id": 6}], r"two images with the id 6 or the file_name 'a\.jpg'"),
    ],
)
def test_instances_errors_name_images_that_cannot_be(images: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    write_instances(tmp_path / "instances.json", images, [])
    with pytest.raises(ValueError, match=rf"instances\.json is not a file of COCO instances: .*{words}"):
        read_instances(tmp_path / "instances.json")


@pytest.mark.parametrize(
    ("change", "words"), [({"iscrowd": "0"}, "iscrowd is 0 or 1"), ({"image_id": 5.5}, "image_id is")]
)
def test_instances_errors_name_fields_of_another_kind(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write_one_image(tmp_path, [annotation(1, 5, 1, [polygon(0, 0, 4, 4)]) | change])
    with pytest.raises(ValueError, match=words):
        read_instances(path)


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


@pytest.mark.parametrize("content", ["[" * 200_000, '{"images": [{"id": Infinity}]}'])
def test_coco_errors_describe_malformed_instances(tmp_path: Path, content: str) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(ValueError, match=r"instances.json is not a file of COCO instances: .*Expected a JSON object"):
        read_instances(tmp_path / "instances.json")
