"""The boxes of COCO's objects as a third task of ``imagenet_coco``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from image_folders import SMALL, shared_root, write_both, write_coco, write_imagenet
from paretorch.training.loop import train
from paretorch.training.run import Run
from paretorch.workloads.formats.coco import find_coco
from paretorch.workloads.formats.voc_masks import CLASSES
from paretorch.workloads.imagenet_coco import ImagenetCoco
from paretorch.workloads.loading.image_crops import (
    CropWindow,
    boxes_within,
    check_augmentation,
    cut,
    random_window,
    square_window,
)
from paretorch.workloads.loading.image_source import SelectedImage

OPTIONS: dict[str, Any] = {**SMALL, "train": 24, "encoder": "resnet18", "width": 0.125, "detection": True}


def bounding_box(mask: Tensor) -> list[float]:
    """Left, upper, right and lower edge of the pixels of a mask, relative to it."""
    rows, columns = mask.nonzero().T
    height, width = mask.shape
    return [
        int(columns.min()) / width, int(rows.min()) / height, (int(columns.max()) + 1) / width,
        (int(rows.max()) + 1) / height,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["crop", "zoom", "none"])
def test_boxes_are_cropped_and_mirrored_as_the_mask(kind: str) -> None:
    """The box of a rectangle's pixels after the crop is the crop of its box, up to a pixel."""
    edge, size, kept = 72, 64, 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        top, left = random.integers(0, 50, 2).tolist()
        height, width = random.integers(8, 22, 2).tolist()
        mask = torch.zeros(edge, edge, dtype=torch.uint8)
        mask[top : top + height, left : left + width] = 1
        window = random_window(edge, size, check_augmentation(kind), torch.Generator().manual_seed(seed))
        _, part = cut(torch.zeros(3, edge, edge, dtype=torch.uint8), mask, window, size)
        assert part is not None
        objects = torch.tensor([[4, *bounding_box(mask)]])
        (found,) = boxes_within(objects, window, edge, edge).tolist()
        if found[0] < 0:
            assert int(part.sum()) < 0.35 * height * width * size**2 / (window.height * window.width)
            continue
        kept += 1
        assert found[0] == 4
        assert found[1:] == pytest.approx(bounding_box(part), abs=1.6 / size)
    assert kept > 20


def test_boxes_outside_a_window_are_left_out() -> None:
    objects = torch.tensor([[0, 0.0, 0.0, 0.4, 0.4], [1, 0.4, 0.4, 1.0, 1.0], [-1, 0.5, 0.5, 0.9, 0.9]])
    found = boxes_within(objects, CropWindow(32, 32, 32, 32), 64, 64)
    assert found[:, 0].tolist() == [-1, 1, -1]
    torch.testing.assert_close(found[1, 1:], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert square_window(40, 64) == (0, 12, 40, 40, False)


def test_coco_boxes_are_those_of_the_annotations_in_the_central_square(tmp_path: Path) -> None:
    coco = find_coco(write_coco(tmp_path).parent)
    items = [SelectedImage(f"train2017/{1000 + index:012d}.jpg") for index in range(5)]
    found = coco.boxes(items)
    # image 0: 48 x 64, square of 48 from column 8 on: a person; a tie is not one of the classes
    assert [each[:, 0].tolist() for each in found] == [
        [CLASSES.index("person") - 1], [CLASSES.index(name) - 1 for name in ("person", "cat")],
        [CLASSES.index(name) - 1 for name in ("car", "person")], [CLASSES.index("dog") - 1], [],
    ]  # fmt: skip
    torch.testing.assert_close(found[0][0, 1:], torch.tensor([2 / 48, 5 / 48, 32 / 48, 40 / 48]))
    # image 3: 51 x 64, whose people are a crowd, and a dog of rows 40 to 46 and columns 20 to 40
    torch.testing.assert_close(found[3][0, 1:], torch.tensor([14 / 51, 40 / 51, 34 / 51, 46 / 51]))


def test_imagenet_coco_detection_is_a_task_of_the_coco_images() -> None:
    made = ImagenetCoco(root=shared_root(), **OPTIONS)
    assert made.tasks == ("classification", "segmentation", "detection")
    classes, masks = (next(stream.batches(8, 1)) for stream in made.data().train)
    assert set(classes.targets) == {"classification"}
    assert set(masks.targets) == {"segmentation", "detection"}
    objects = masks.targets["detection"]
    assert objects.shape[2] == 5
    present = objects[objects[..., 0] >= 0]
    assert len(present) >= 3
    assert float(present[:, 1:].min()) >= 0
    assert float(present[:, 1:].max()) <= 1
    assert bool((present[:, 3:] > present[:, 1:3]).all())
    for image in range(8):
        for kind, left, top, right, bottom in objects[image].tolist():
            if kind >= 0:  # pixels of the class are inside the box
                rows, columns = (
                    slice(int(top * 32), round(bottom * 32) + 1),
                    slice(int(left * 32), round(right * 32) + 1),
                )
                assert bool((masks.targets["segmentation"][image, rows, columns] == kind + 1).any())
    output = made.model()(masks.inputs)["detection"]
    assert output.shape[:2] == (8, 20 + 4)
    without = ImagenetCoco(root=shared_root(), **{**OPTIONS, "detection": False})
    assert "detection" not in without.model().heads  # type: ignore[operator]
    assert set(next(without.data().train[1].batches(4, 1)).targets) == {"segmentation"}


def test_imagenet_coco_detection_run_is_the_same_from_a_pack(tmp_path: Path) -> None:
    root = write_both(tmp_path / "data", train=20)

    def history(folder: str, **options: Any) -> Any:
        run = Run("imagenet_coco", {"root": str(root), **OPTIONS, **options}, epochs=1, batch_size=8)
        result = train(run, tmp_path / folder, progress=None).to_json()
        assert set(result["test"]["metrics"]["detection"]) == {"mAP", "AP50"}
        return [{name: epoch[name] for name in ("losses", "validation")} for epoch in result["history"]]

    files = history("files")
    assert set(files[0]["losses"]) == {"classification", "segmentation", "detection"}
    ImagenetCoco(root=str(root), **OPTIONS).packed(root / "packed")
    assert history("pack", source="pack") == files


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1.0, 2.0, 0.0, 4.0], [1, 2, "wide", 4], "box"])
def test_imagenet_coco_detection_errors_name_an_annotation_without_box(tmp_path: Path, box: object) -> None:
    write_imagenet(tmp_path)
    path = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    broken = next(each for each in content["annotations"] if each["category_id"] == 1 and not each["iscrowd"])
    broken.pop("bbox")
    if box is not None:
        broken["bbox"] = box
    path.write_text(json.dumps(content))
    options = {**OPTIONS, "train": 27, "test": 9}
    with pytest.raises(
        ValueError, match=rf"annotation {broken['id']} of 0.* has no bbox of four numbers .*or omit detection"
    ):
        ImagenetCoco(root=str(tmp_path), **options).data()
    ImagenetCoco(root=str(tmp_path), **{**options, "detection": False}).data()
