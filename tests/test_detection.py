"""Detection of objects by their centres: maps, losses and average precision against closed forms and COCO's own program."""

from __future__ import annotations

import contextlib
import io
import math

import pytest
import torch
from torch import Tensor

from paretorch.training.evaluation import evaluate
from paretorch.workloads.detection.average_precision import AveragePrecision
from paretorch.workloads.detection.boxes import Detections, center_targets, detections, overlaps
from paretorch.workloads.detection.losses import center_loss, object_count
from paretorch.workloads.generated.scene_labels import VISIBLE, image_labels
from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, sample_scenes
from paretorch.workloads.generated.scene_rendering import render
from paretorch.workloads.models.center_head import CenterHead
from paretorch.workloads.scenes import SceneImages
from paretorch.workloads.streams import training_batches

NONE = [-1.0, 0.0, 0.0, 0.0, 0.0]


def random_objects(images: int, most: int, classes: int, seed: int) -> Tensor:
    """(images, most, 5) boxes of different sizes; a third of the rows is unused."""
    generator = torch.Generator().manual_seed(seed)
    centers = 0.2 + 0.6 * torch.rand(images, most, 2, generator=generator)
    halves = 0.05 + 0.15 * torch.rand(images, most, 2, generator=generator)
    kinds = torch.randint(classes, (images, most, 1), generator=generator).float()
    objects = torch.cat([kinds, centers - halves, centers + halves], dim=2)
    objects[torch.rand(images, most, generator=generator) < 0.33] = torch.tensor(NONE)
    return objects


def perfect_maps(objects: Tensor, classes: int, edge: int) -> Tensor:
    """Maps that have the targets at the centres."""
    targets = center_targets(objects, classes, edge, edge)
    maps = torch.full((len(objects), classes + 4, edge**2), -12.0)
    maps[:, classes:] = 0
    for image, row in targets.present.nonzero().tolist():
        point = int(targets.points[image, row])
        maps[image, int(objects[image, row, 0]), point] = 12.0
        maps[image, classes:, point] = targets.boxes[image, row]
    return maps.reshape(len(objects), -1, edge, edge)


def test_maps_with_the_targets_give_back_the_boxes() -> None:
    objects = torch.tensor([[[2, 0.1, 0.2, 0.5, 0.9], NONE], [[0, 0.6, 0.0, 1.0, 0.3], [1, 0.05, 0.5, 0.3, 0.75]]])
    found = detections(perfect_maps(objects, 3, 16), most=2)
    assert found.classes[0, 0] == 2
    torch.testing.assert_close(found.boxes[0, 0], objects[0, 0, 1:])
    assert float(found.scores[0, 1]) < 0.01 < 0.99 < float(found.scores[1].min())
    for box, kind in zip(found.boxes[1], found.classes[1], strict=True):
        (row,) = (objects[1, :, 0] == kind).nonzero()[0]
        torch.testing.assert_close(box, objects[1, row, 1:])


def test_center_heat_is_a_gaussian_of_a_radius_that_keeps_the_overlap() -> None:
    objects = torch.tensor([[[0, 0.25, 0.25, 0.75, 0.75]]])
    targets = center_targets(objects, 1, 64, 64)
    heat = targets.heat[0, 0]
    assert float(heat.max()) == float(heat[32, 32]) == 1.0
    spread = math.sqrt(-0.5 / math.log(float(heat[32, 33])))
    radius = math.floor(round((6 * spread - 1) / 2, 3))
    torch.testing.assert_close(heat[30, 35], torch.tensor(math.exp(-(9 + 4) / (2 * spread**2))))
    moved = objects[0, :, 1:] + radius / 64
    assert float(overlaps(objects[0, :, 1:], moved)) > 0.7
    further = objects[0, :, 1:] + (2 * radius + 3) / 64
    assert float(overlaps(objects[0, :, 1:], further)) < 0.7


def test_center_loss_equals_the_formula_of_the_paper() -> None:
    """A plain loop over the points, and over the objects."""
    objects = random_objects(3, 4, 2, seed=5)
    maps = torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(6))
    targets = center_targets(objects, 2, 8, 8)
    total, count = 0.0, int(object_count(objects))
    for image in range(3):
        for kind in range(2):
            for y, likely in zip(
                targets.heat[image, kind].flatten().tolist(),
                maps[image, kind].sigmoid().flatten().tolist(),
                strict=True,
            ):
                total -= (
                    (1 - likely) ** 2 * math.log(likely) if y == 1 else (1 - y) ** 4 * likely**2 * math.log(1 - likely)
                )
        for row in targets.present[image].nonzero()[:, 0].tolist():
            point = int(targets.points[image, row])
            off = (maps[image, 2:].flatten(1)[:, point] - targets.boxes[image, row]).abs().tolist()
            total += 0.1 * (off[0] + off[1]) + off[2] + off[3]
    loss = center_loss(maps, objects)
    assert loss is not None
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_center_loss_is_least_at_the_targets_and_none_without_objects() -> None:
    objects = random_objects(2, 3, 2, seed=8)
    perfect = perfect_maps(objects, 2, 16)
    best, worse = center_loss(perfect, objects), center_loss(torch.zeros_like(perfect), objects)
    assert best is not None
    assert worse is not None
    assert float(best) < 1e-3 < float(worse)
    assert center_loss(perfect, torch.tensor(NONE).expand(2, 3, 5)) is None
    extreme = torch.full_like(perfect, 400.0).requires_grad_()
    loss = center_loss(extreme, objects)
    assert loss is not None
    loss.backward()
    assert bool(loss.isfinite())
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


def test_average_precision_equals_a_closed_form() -> None:
    """Of four detections the first and third are correct, of three objects: precision 1 up to recall 1/3, then 2/3 up to 2/3."""
    objects = torch.tensor([[0, 0.0, 0.0, 0.2, 0.2], [0, 0.4, 0.4, 0.6, 0.6], [0, 0.8, 0.8, 1.0, 1.0]])
    boxes = torch.stack([objects[0, 1:], torch.tensor([0.0, 0.8, 0.1, 1.0]), objects[1, 1:], objects[1, 1:]])
    metric = AveragePrecision((0.5,))
    metric.add(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.zeros(4, dtype=torch.long), objects)
    assert metric.compute() == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert AveragePrecision((0.5,)).name == "AP50"


def test_average_precision_without_objects_is_nan_and_without_detections_zero() -> None:
    metric = AveragePrecision()
    empty = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    metric.add(*empty, torch.zeros(0, 5))
    assert math.isnan(metric.compute())
    metric.add(*empty, torch.tensor([[0, 0.0, 0.0, 1.0, 1.0]]))
    assert metric.compute() == 0.0


def random_detections(objects: Tensor, classes: int, seed: int) -> Detections:
    """Objects that are shifted, some repeated, some of another class, and boxes anywhere; scores decrease."""
    generator = torch.Generator().manual_seed(seed)
    count = 2 * objects.shape[1] + 3
    rows = torch.randint(objects.shape[1], (len(objects), count), generator=generator)
    picked = objects.gather(1, rows[..., None].expand(-1, -1, 5))
    boxes = picked[..., 1:] + 0.03 * torch.randn(*picked.shape[:2], 4, generator=generator)
    boxes = torch.cat([boxes[..., :2], torch.maximum(boxes[..., 2:], boxes[..., :2] + 0.02)], dim=2)
    other = torch.randint(classes, rows.shape, generator=generator)
    kinds = torch.where(
        (picked[..., 0] < 0) | (torch.rand(rows.shape, generator=generator) < 0.2), other, picked[..., 0].long()
    )
    scores = torch.rand(rows.shape, generator=generator).sort(dim=1, descending=True).values
    return Detections(boxes, scores, kinds)


@pytest.mark.parametrize("seed", [0, 3])
def test_average_precision_equals_that_of_the_reference_program(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    objects = random_objects(12, 5, 3, seed)
    found = random_detections(objects, 3, seed + 1)
    whole, half = AveragePrecision(), AveragePrecision((0.5,))
    truths: list[dict[str, object]] = []
    guesses: list[dict[str, object]] = []
    for image, (boxes, scores, kinds, own) in enumerate(zip(*found, objects, strict=True)):
        own = own[own[:, 0] >= 0]
        for metric in (whole, half):
            metric.add(boxes, scores, kinds, own)
        for kind, left, top, right, bottom in own.double().tolist():
            sides = [100 * left, 100 * top, 100 * (right - left), 100 * (bottom - top)]
            truths.append(
                {"id": len(truths) + 1, "image_id": image, "category_id": int(kind), "bbox": sides, "iscrowd": 0}
                | {"area": sides[2] * sides[3]}
            )
        for (left, top, right, bottom), score, kind in zip(
            boxes.double().tolist(), scores.double().tolist(), kinds.tolist(), strict=True
        ):
            sides = [100 * left, 100 * top, 100 * (right - left), 100 * (bottom - top)]
            guesses.append({"image_id": image, "category_id": kind, "bbox": sides, "score": score})
    reference = coco.COCO()
    reference.dataset = {
        "images": [{"id": image} for image in range(12)], "annotations": truths,
        "categories": [{"id": kind} for kind in range(3)],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        program = evaluation.COCOeval(reference, reference.loadRes(guesses), "bbox")
        program.evaluate()
        program.accumulate()
        program.summarize()
    assert 0.05 < whole.compute() < half.compute() < 0.95
    assert whole.compute() == pytest.approx(float(program.stats[0]), abs=1e-6)
    assert half.compute() == pytest.approx(float(program.stats[1]), abs=1e-6)


def test_scene_objects_are_the_visible_ones() -> None:
    scenes = sample_scenes(30, 5, 0.1, 4)
    rendered = render(scenes, 48)
    objects = image_labels(rendered).objects
    assert objects.shape == (30, 5, 5)
    hidden = 0
    for scene in range(30):
        for thing in range(5):
            rows, columns = (rendered.instances[scene] == thing + 2).nonzero().T
            kind, *box = objects[scene, thing].tolist()
            if len(rows) < VISIBLE * 48**2:
                hidden += 1
                assert kind == -1
                continue
            assert KINDS[int(kind)] == CLASSES[int(scenes.kinds[scene, thing + 2])]
            expected = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            assert (torch.tensor(box) * 48).round().tolist() == expected
    assert hidden > 0


def test_center_head_has_stride_four_and_a_small_prior() -> None:
    for stride in (32, 16, 8, 4):
        maps = CenterHead(8, 6, stride, width=0.25)(torch.zeros(2, 8, 64 // stride, 64 // stride))
        assert maps.shape == (2, 10, 16, 16)
    with torch.no_grad():
        maps = CenterHead(8, 6, 16).eval()(torch.zeros(1, 8, 4, 4))
    assert float(maps[:, :6].sigmoid().mean()) < 0.2


def test_scenes_detector_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="detector is one of box, centers, got 'center'"):
        SceneImages(detector="center")


@pytest.mark.long
def test_scenes_detection_is_learned_in_a_short_run() -> None:
    made = SceneImages(
        size=48, depth=False, normals=False, detector="centers", train=1500, validation=1, test=200, objects=3,
        encoder="convnet", width=0.5, stride=8,
    )  # fmt: skip
    torch.manual_seed(2)
    model = made.model()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    splits = made.data()
    before = evaluate(made, model, splits.test, ("detection",), 100, "float32").metrics["detection"]
    for epoch in range(6):
        model.train()
        for (batch,) in training_batches(splits.train, 32, 0, epoch):
            output = {"detection": model.heads["detection"](model.encoder(batch.inputs))}  # type: ignore[index, operator]
            optimizer.zero_grad()
            made.losses(output, batch.targets)["detection"].backward()
            optimizer.step()
    after = evaluate(made, model, splits.test, ("detection",), 100, "float32").metrics["detection"]
    assert after["AP50"] > 0.15 > 0.02 > before["AP50"]
    assert after["mAP"] > 0.05
