"""Augmentation of images and labels, and losses and metrics over all labelled pixels, compared with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from paretorch.metrics import (
    AbsoluteError,
    MeanAngle,
    MedianAngle,
    PixelAccuracy,
    RelativeError,
    angles,
    direction_metrics,
)
from paretorch.workloads.dense.labels import ZOOMS, LabelKind, LabelledScene, augmented, flipped, rotated, zoomed
from paretorch.workloads.dense.losses import dense_losses, direction_loss, distance_loss, labelled_count, offset_loss

KINDS = {
    "segmentation": LabelKind.CLASSES, "depth": LabelKind.DISTANCE, "disparity": LabelKind.INVERSE_DISTANCE,
    "normals": LabelKind.DIRECTIONS,
    "instance": LabelKind.OFFSETS,
}  # fmt: skip


def scene(height: int = 12, width: int = 18, without: tuple[str, ...] = ()) -> LabelledScene:
    """A scene whose labels and colours encode the position of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = (rows * width + columns).float()
    vectors = torch.nn.functional.normalize(torch.stack([rows + 1.0, columns - 4.0, -place - 1]), dim=0)
    labels = {
        "segmentation": rows * width + columns, "depth": place + 1, "disparity": 1 / (place + 1), "normals": vectors,
        "instance": torch.stack([6.0 - columns, 5.0 - rows]),
    }  # fmt: skip
    labels = {task: label for task, label in labels.items() if task not in without}
    return LabelledScene(torch.stack([rows / height, columns / width, place / place.max()]), labels, KINDS)


def test_flipped_scene_mirrors_labels_directions_and_offsets() -> None:
    before, after = scene(), flipped(scene())
    assert torch.equal(after.image, before.image.flip(-1))
    for task in ("segmentation", "depth", "disparity"):
        assert torch.equal(after.labels[task], before.labels[task].flip(-1))
    for task in ("normals", "instance"):
        mirrored = before.labels[task].flip(-1)
        assert torch.equal(after.labels[task][0], -mirrored[0])
        assert torch.equal(after.labels[task][1:], mirrored[1:])
    twice = flipped(after)
    assert all(torch.equal(twice.labels[task], label) for task, label in before.labels.items())
    assert torch.equal(before.labels["normals"], scene().labels["normals"])  # the argument is unchanged


@pytest.mark.parametrize("zoom", ZOOMS)
@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.5, 0.3), (0.99, 0.99)])
def test_zoomed_scene_crops_image_and_labels_equally(zoom: float, down: float, right: float) -> None:
    before = scene()
    after = zoomed(before, zoom, down, right)
    source = after.labels["segmentation"]  # the index of the pixel from which each label was taken
    assert source.dtype == torch.int64
    assert after.image.shape == before.image.shape
    rows, columns = int(12 / zoom), int(18 / zoom)
    assert len((source // 18).unique()) == rows
    assert len((source % 18).unique()) == columns
    flat = {
        task: label.reshape(-1, 12 * 18)[:, source.flatten()].reshape(label.shape)
        for task, label in before.labels.items()
    }
    torch.testing.assert_close(after.labels["depth"], flat["depth"] / zoom)
    torch.testing.assert_close(after.labels["disparity"], flat["disparity"] * zoom)
    torch.testing.assert_close(after.labels["instance"], flat["instance"] * zoom)
    assert torch.equal(after.labels["normals"], flat["normals"])
    nearest = before.image.reshape(3, -1)[:, source.flatten()].reshape(3, 12, 18)
    for colour, edge in enumerate((12, 18)):  # by interpolation, half a pixel down or to the right at most
        assert float((after.image - nearest)[colour].abs().max()) <= 0.5 / edge + 1e-5


def test_augmented_pixels_without_label_stay_unlabelled() -> None:
    labels = {"segmentation": torch.full((4, 6), -1), "depth": torch.zeros(4, 6), "normals": torch.zeros(3, 4, 6)}
    bare = LabelledScene(torch.zeros(3, 4, 6), labels, KINDS)
    for after in (zoomed(bare, 1.5, 0.3, 0.3), flipped(bare)):
        assert all(int(labelled_count(KINDS[task], label[None])) == 0 for task, label in after.labels.items())


def test_rotated_scene_by_90_degrees_is_exact() -> None:
    before = scene(9, 9, without=("normals",))
    after = rotated(
        LabelledScene(before.image, before.labels, {t: k for t, k in KINDS.items() if t != "normals"}), 90.0
    )
    torch.testing.assert_close(after.image, before.image.rot90(1, (1, 2)), rtol=0, atol=1e-4)
    for task in ("segmentation", "depth", "disparity"):
        torch.testing.assert_close(after.labels[task], before.labels[task].rot90())
    x, y = before.labels["instance"].rot90(1, (1, 2))
    torch.testing.assert_close(after.labels["instance"], torch.stack([y, -x]), rtol=0, atol=1e-4)


def test_rotated_scene_has_no_labels_from_outside() -> None:
    before = scene(16, 16, without=("normals",))
    after = rotated(
        LabelledScene(before.image, before.labels, {t: k for t, k in KINDS.items() if t != "normals"}), 10.0
    )
    assert int(after.labels["segmentation"][0, 0]) == -1
    assert float(after.labels["depth"][0, 0]) == 0
    assert bool(after.labels["instance"][:, 0, 0].isnan().all())
    with pytest.raises(ValueError, match="directions are not rotated"):
        rotated(scene(), 10.0)


def test_augmented_scene_depends_on_the_generator_and_has_all_zooms_and_mirrors() -> None:
    def drawn(seed: int) -> LabelledScene:
        return augmented(scene(), "zoom", torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(3).image, drawn(3).image)
    found = set()
    for seed in range(60):
        source = drawn(seed).labels["segmentation"]
        found.add((len((source // 18).unique()), bool(source[0, 0] > source[0, -1])))
    assert found == {(rows, mirrored) for rows in (12, 10, 8) for mirrored in (False, True)}
    plain = augmented(scene(), "none", torch.Generator())
    assert torch.equal(plain.image, scene().image)


def predicted_and_true(seed: int, count: int = 5, size: tuple[int, int] = (6, 7)) -> tuple[Tensor, Tensor]:
    """Predicted and true directions, every fifth pixel without one."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.nn.functional.normalize(torch.randn(count, 3, *size, generator=generator), dim=1)
    true[:, :, ::5] = 0
    return true + 0.5 * torch.randn(count, 3, *size, generator=generator), true


def test_angle_metrics_equal_the_arc_cosine_over_all_pixels() -> None:
    made = direction_metrics()
    exact: list[float] = []
    for seed in range(4):
        output, true = predicted_and_true(seed, count=seed + 1)
        for metric in made:
            metric.update(output, true)
        for one, other in zip(output.movedim(1, -1).reshape(-1, 3), true.movedim(1, -1).reshape(-1, 3), strict=True):
            if float(other.norm()) > 0:
                cosine = float(one.double() @ other.double() / one.double().norm() / other.double().norm())
                exact.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    mean, median, *within = [metric.compute() for metric in made]
    assert mean == pytest.approx(np.mean(exact), rel=1e-5)
    assert median == pytest.approx(np.median(exact), abs=0.3)  # the distance of neighbours among 300 pixels
    assert within == pytest.approx([float(np.mean(np.array(exact) < limit)) for limit in (11.25, 22.5, 30)])
    assert [metric.name for metric in made[2:]] == ["within 11.25", "within 22.5", "within 30"]
    assert [metric.higher_is_better for metric in made] == [False, False, True, True, True]


def test_median_angle_is_exact_to_a_hundredth_of_a_degree() -> None:
    tilt = torch.deg2rad(torch.linspace(1, 60, 20_001))
    output = torch.stack([tilt.sin(), torch.zeros_like(tilt), tilt.cos()]).view(1, 3, 1, -1)
    true = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(output)
    metric = MedianAngle()
    metric.update(output, true)
    assert metric.compute() == pytest.approx(30.5, abs=0.01)
    assert float(angles(true, true).max()) == 0
    assert math.isnan(MeanAngle().compute())
    assert math.isnan(MedianAngle().compute())
    metric.update(output * math.nan, true)
    assert math.isnan(metric.compute())


def test_distance_metrics_ignore_unmeasured_pixels() -> None:
    output, target = torch.tensor([[[2.0, 9.0, 3.0]]]), torch.tensor([[[1.0, 0.0, 4.0]]])
    absolute, relative = AbsoluteError(), RelativeError()
    for metric in (absolute, relative):
        metric.update(output, target)
        metric.update(output[..., 1:2], target[..., 1:2])  # without measured pixels
    assert absolute.compute() == pytest.approx(1.0)
    assert relative.compute() == pytest.approx((1.0 + 0.25) / 2)
    loss = distance_loss(output, target)
    assert loss is not None
    assert float(loss) == pytest.approx(1.0)
    accuracy = PixelAccuracy()
    accuracy.update(torch.eye(2).view(1, 2, 1, 2), torch.tensor([[[0, 0]]]))
    accuracy.update(torch.eye(2).view(1, 2, 1, 2), torch.tensor([[[-1, 1]]]))
    assert accuracy.compute() == pytest.approx(2 / 3)


def test_dense_losses_are_means_over_labelled_pixels_and_absent_without_any() -> None:
    output, true = predicted_and_true(0)
    found = direction_loss(output, true)
    assert found is not None
    cosines = [
        float(one @ other / one.norm())
        for one, other in zip(output.movedim(1, -1).reshape(-1, 3), true.movedim(1, -1).reshape(-1, 3), strict=True)
        if float(other.norm()) > 0
    ]
    assert float(found) == pytest.approx(1 - float(np.mean(cosines)), rel=1e-5)
    assert len(cosines) == int(labelled_count(LabelKind.DIRECTIONS, true))
    field = torch.tensor([[[[1.0, math.nan]], [[-2.0, math.nan]]]])
    loss = offset_loss(torch.zeros(1, 2, 1, 2), field)
    assert loss is not None
    assert float(loss) == pytest.approx(1.5)
    assert int(labelled_count(LabelKind.OFFSETS, field)) == 2
    nothing = {
        "depth": torch.zeros(1, 2, 2),
        "normals": torch.zeros(1, 3, 2, 2),
        "instance": torch.full((1, 2, 2, 2), math.nan),
    }
    assert dense_losses(KINDS, {task: torch.zeros_like(value) for task, value in nothing.items()}, nothing) == {}


@pytest.mark.parametrize(
    "tilts", [[10.0, 80.0], [0.0, 10.0, 20.0, 50.0], [5.0], [5.0, 5.0, 60.0, 60.0], [3.0, 4.0, 90.0]]
)
def test_median_angle_equals_numpy(tilts: list[float]) -> None:
    tilt = torch.tensor(tilts).deg2rad()
    output = torch.stack([tilt.sin(), torch.zeros_like(tilt), tilt.cos()]).view(1, 3, 1, -1)
    metric = MedianAngle()
    metric.update(output, torch.eye(3)[2].view(1, 3, 1, 1).expand_as(output))
    assert metric.compute() == pytest.approx(float(np.median(tilts)), abs=0.01)
