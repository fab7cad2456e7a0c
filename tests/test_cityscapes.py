"""Both forms of Cityscapes on tiny folders with the published layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import call
from dense_folders import (
    first_scene,
    narrow_cityscapes,
    write_city_arrays,
    write_city_images,
)
from paretorch.workloads.cityscapes import Cityscapes
from paretorch.workloads.dense.labels import LabelKind
from paretorch.workloads.formats.cityscapes import classes_by_number, offsets_to_means
from paretorch.workloads.loading.unreadable import UnreadableError

SMALL: dict[str, Any] = {"width": 0.125, "workers": 0, "augmentation": "none"}


def test_cityscapes_classes_are_the_evaluated_labels() -> None:
    nineteen, seven = classes_by_number(19), classes_by_number(7)
    assert nineteen.unique().tolist() == list(range(-1, 19))
    assert [int(nineteen[number]) for number in (7, 8, 11, 17, 23, 24, 26, 33)] == [0, 1, 2, 5, 10, 11, 13, 18]
    assert [int(seven[number]) for number in (7, 12, 17, 21, 23, 25, 31)] == [0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(nineteen < 0, seven < 0)
    with pytest.raises(ValueError, match="19 classes in 7 categories"):
        classes_by_number(20)


def test_cityscapes_offsets_point_to_the_mean_of_the_instance() -> None:
    instances = torch.full((6, 8), 7)
    instances[1:4, 2:7] = 26001
    instances[5, 0] = 24000
    offsets = offsets_to_means(instances)
    assert bool((offsets.isnan().any(dim=0) == (instances < 1000)).all())
    for row, column in (instances == 26001).nonzero().tolist():
        assert offsets[:, row, column].tolist() == pytest.approx([4 - column, 2 - row])
    assert offsets[:, 5, 0].tolist() == [0, 0]


def test_cityscapes_arrays_are_read_as_stored(tmp_path: Path) -> None:
    write_city_arrays(tmp_path, train=4, val=2)
    workload = Cityscapes(root=str(tmp_path), **SMALL)
    assert dict(workload.kinds) == {"segmentation": LabelKind.CLASSES, "depth": LabelKind.INVERSE_DISTANCE}
    (samples,) = workload.data().test[0].batches(2, order=None)
    for place in range(2):
        for task, folder in (("segmentation", "label"), ("depth", "depth")):
            stored = np.load(tmp_path / "cityscapes" / "val" / folder / f"{place}.npy")
            np.testing.assert_allclose(samples.targets[task][place], stored.reshape(32, 64), atol=1e-6)


def test_cityscapes_images_give_three_tasks_at_the_network_resolution(tmp_path: Path) -> None:
    place = write_city_images(tmp_path, train=4, val=2)
    workload = Cityscapes(root=str(place), form="images", classes_of=19, height=32, **SMALL)
    splits = workload.data()
    assert splits.facts["pixels"] == "32 x 64"
    (samples,) = splits.test[0].batches(2, order=None)
    assert samples.inputs.shape == (2, 3, 32, 64)
    assert 0 <= float(samples.inputs.min()) < float(samples.inputs.max()) <= 1
    stem = "val/aachen/aachen_000000_000019_"
    labels = np.array(Image.open(place / "gtFine" / f"{stem}gtFine_labelIds.png"))
    found = samples.targets["segmentation"][0]
    # the nearest pixel of a 2 x 2 block is one of its pixels
    blocks = (
        classes_by_number(19)[torch.from_numpy(labels.astype(np.int64))]
        .reshape(32, 2, 64, 2)
        .permute(0, 2, 1, 3)
        .flatten(2)
    )
    assert bool((blocks == found[..., None]).any(dim=-1).all())
    stored = np.array(Image.open(place / "disparity" / f"{stem}disparity.png")).astype(np.float64)
    depth = samples.targets["depth"][0]
    assert bool((depth[:, :4] == 0).all())
    rows = torch.from_numpy((stored[::2, -1] - 1) / 256), torch.from_numpy((stored[1::2, -1] - 1) / 256)
    assert bool(((depth[:, -1] - rows[0]).abs().minimum((depth[:, -1] - rows[1]).abs()) < 1e-5).all())
    instance = samples.targets["instance"]
    assert bool((~instance[0].isnan().any(dim=0)).any())
    assert float(instance[~instance.isnan()].abs().max()) <= 8  # cars of 16 x 16 pixels, at half the resolution


def test_cityscapes_scenes_can_be_rotated(tmp_path: Path) -> None:
    write_city_images(tmp_path, train=4, val=2)
    options = {**SMALL, "augmentation": "rotate"}
    stream = Cityscapes(root=str(tmp_path), form="images", height=32, **options).data().train[0]
    first, second = (next(stream.batches(3, order)).inputs for order in (1, 2))
    assert first.shape == second.shape == (3, 3, 32, 64)
    assert not torch.equal(first.sum(), second.sum())


def test_cityscapes_data_check_reports_missing_files(tmp_path: Path) -> None:
    code, printed = call("data", "check", "cityscapes(form='images')", "--root", str(tmp_path))
    assert code == 1
    assert "cityscapes-dataset.com" in printed
    place = write_city_images(tmp_path, train=4, val=2)
    code, printed = call("data", "check", "cityscapes(form='images')", "--root", str(tmp_path))
    assert code == 0
    assert "train: 4 scenes of 2 cities" in printed
    broken = place / "disparity" / "val" / "aachen" / "aachen_000000_000019_disparity.png"
    broken.write_bytes(b"not a picture")
    (place / "gtFine" / "train" / "bonn" / "bonn_000001_000019_gtFine_labelIds.png").unlink()
    code, printed = call("data", "check", "cityscapes(form='images')", "--root", str(tmp_path))
    assert code == 1
    assert "there is no gtFine/train/bonn/bonn_000001_000019_gtFine_labelIds.png" in printed
    assert "disparity/val/aachen/aachen_000000_000019_disparity.png: it is not an image" in printed
    code, printed = call("data", "check", "cityscapes", "--root", str(tmp_path))
    assert code == 1
    assert "cityscapes/{train,val}/depth/0.npy" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "video"}, "form is one of arrays, images, got 'video'"),
        ({"classes_of": 8}, "classes_of is 7 or 19, got 8"),
        ({"height": 100}, "height is at least 32 and a multiple of 8, got 100"),
    ],
)
def test_cityscapes_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cityscapes(**options)


ENDINGS = {
    "leftImg8bit": "leftImg8bit/{}_leftImg8bit.png",
    "label": "gtFine/{}_gtFine_labelIds.png",
    "instance": "gtFine/{}_gtFine_instanceIds.png",
    "disparity": "disparity/{}_disparity.png",
}


@pytest.mark.parametrize("kind", ["label", "instance", "disparity"])
@pytest.mark.parametrize(("rows", "columns"), [(32, 128), (64, 120)])
def test_cityscapes_files_of_another_shape_are_unreadable(tmp_path: Path, kind: str, rows: int, columns: int) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    path = place / ENDINGS[kind].format("val/aachen/aachen_000000_000019")
    Image.fromarray(np.array(Image.open(path))[:rows, :columns]).save(path)
    expected = f"{path.name}: expected 128 x 64 pixels, as the photograph has, .*got {columns} x {rows}"
    with pytest.raises(UnreadableError, match=expected):
        first_scene(narrow_cityscapes(tmp_path))
    (report,) = narrow_cityscapes(tmp_path).check_data()
    assert re.search(expected, report.problems[0])


@pytest.mark.parametrize("kind", ["instance", "disparity"])
def test_cityscapes_files_of_fewer_bits_are_unreadable(tmp_path: Path, kind: str) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    path = place / ENDINGS[kind].format("val/aachen/aachen_000000_000019")
    Image.fromarray((np.array(Image.open(path)) // 256).astype(np.uint8)).save(path)
    with pytest.raises(UnreadableError, match=f"{path.name}: expected numbers of 16 bits, got 8"):
        first_scene(narrow_cityscapes(tmp_path))


def test_cityscapes_labels_at_another_scale_are_resized(tmp_path: Path) -> None:
    place = write_city_images(tmp_path, train=2, val=1)
    before = first_scene(narrow_cityscapes(tmp_path))
    path = place / ENDINGS["label"].format("val/aachen/aachen_000000_000019")
    large = np.array(Image.open(path)).repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(large).save(path)
    after = first_scene(narrow_cityscapes(tmp_path))
    assert torch.equal(after.labels["segmentation"], before.labels["segmentation"])


def test_cityscapes_offsets_of_a_large_object_are_exact() -> None:
    instances = torch.full((512, 1024), 7)
    instances[128:, 256:] = 26001
    right, down = offsets_to_means(instances)[:, -1, -1].tolist()
    assert (right, down) == ((256 + 1023) / 2 - 1023, (128 + 511) / 2 - 511)
