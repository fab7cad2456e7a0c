"""Rendered scenes: every label is compared with another way to compute it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from paretorch.workloads.generated.scene_labels import ATTRIBUTES, image_labels
from paretorch.workloads.generated.scene_layout import CLASSES, KINDS, Scenes, sample_scenes
from paretorch.workloads.generated.scene_rendering import RenderedScenes, _camera, rays, render
from paretorch.workloads.scenes import BoxOverlap, NormalError, SceneImages

EDGE = 48
FLAT = ("wall", "floor", "disc", "board")


@pytest.fixture
def _doubles() -> Iterator[None]:
    """float64 as the default dtype, so that differences of neighbouring pixels are accurate."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scenes(count: int = 12, seed: int = 3) -> tuple[Scenes, RenderedScenes]:
    layout = sample_scenes(count, 5, 0.1, seed)
    return layout, render(layout, EDGE)


def inside(name: str, point: Tensor) -> Tensor:
    """Whether local points (..., 3) are inside a solid of one kind."""
    x, y, z = point.unbind(dim=-1)
    return {
        "sphere": x**2 + y**2 + z**2 <= 1,
        "cube": (x.abs() <= 1) & (y.abs() <= 1) & (z.abs() <= 1),
        "cylinder": (x**2 + z**2 <= 1) & (y.abs() <= 1),
        "cone": ((x**2 + z**2).sqrt() <= (1 - y) / 2) & (y.abs() <= 1),
    }[name]


def covers(name: str, point: Tensor) -> Tensor:
    """Whether local points (..., 3) of the plane z = 0 belong to a flat object of one kind."""
    x, y, _ = point.unbind(dim=-1)
    return {"disc": x**2 + y**2 <= 1, "board": (x.abs() <= 1) & (y.abs() <= 1)}.get(name, torch.ones_like(x) > 0)


def met(name: str, frame: Tensor, center: Tensor, ray: Tensor, far: float) -> bool:
    """Whether a ray intersects an object before ``far``, by evaluation at many points."""
    points = (torch.linspace(0.0, far, 4001)[:, None] * ray - center) @ frame.T
    if name not in FLAT:
        return bool(inside(name, points).any())
    z = points[:, 2]
    crossed = z[:-1].sign() != z[1:].sign()
    between = points[:-1] + (z[:-1] / (z[:-1] - z[1:]))[:, None] * (points[1:] - points[:-1])
    return bool((crossed & covers(name, between)).any())


@pytest.mark.usefixtures("_doubles")
def test_rendered_surface_is_the_first_one_along_the_ray() -> None:
    layout, found = scenes(24)
    directions = _camera(layout.pitch) @ rays(EDGE)
    generator = torch.Generator().manual_seed(0)
    for kind in range(len(CLASSES)):
        pixels = (found.segmentation.flatten(1) == kind).nonzero()
        for scene, pixel in pixels[torch.randperm(len(pixels), generator=generator)[:40]].tolist():
            depth = float(found.depth[scene].flatten()[pixel])
            for thing in range(layout.kinds.shape[1]):
                name = CLASSES[int(layout.kinds[scene, thing])]
                place = layout.frames[scene, thing], layout.centers[scene, thing], directions[scene, :, pixel]
                assert not met(name, *place, depth * (1 - 1e-6))
                if thing == int(found.instances[scene].flatten()[pixel]):
                    assert kind == int(layout.kinds[scene, thing])
                    assert met(name, *place, depth * (1 + 1e-3))


@pytest.mark.usefixtures("_doubles")
def test_rendered_normals_of_planes_are_finite_differences_of_depth() -> None:
    """On a plane 1/depth is linear in the pixel: its slopes give the normal."""
    _, found = scenes()
    inverse, step = 1 / found.depth, 1 / EDGE
    right, down = rays(EDGE)[:2].unflatten(1, (EDGE, EDGE))
    across = (inverse[:, 1:-1, 2:] - inverse[:, 1:-1, :-2]) / (2 * step)
    along = (inverse[:, 2:, 1:-1] - inverse[:, :-2, 1:-1]) / (2 * step)
    middle = inverse[:, 1:-1, 1:-1]
    ahead = middle - right[1:-1, 1:-1] * across - down[1:-1, 1:-1] * along
    expected = -torch.stack([across, along, ahead], dim=1)
    expected /= expected.norm(dim=1, keepdim=True)
    same = torch.ones_like(middle, dtype=torch.bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        shifted = found.instances[:, rows : rows + EDGE - 2, columns : columns + EDGE - 2]
        same &= shifted == found.instances[:, 1:-1, 1:-1]
    for name in FLAT:
        here = same & (found.segmentation[:, 1:-1, 1:-1] == CLASSES.index(name))
        assert int(here.sum()) > 50
        got = found.normals[:, :, 1:-1, 1:-1]
        assert float((got - expected).norm(dim=1)[here].max()) < 1e-9


@pytest.mark.usefixtures("_doubles")
def test_rendered_normals_of_solids_are_orthogonal_to_their_surface() -> None:
    """A point a little along the normal is outside, a little against it inside: for round and for edged solids."""
    layout, found = scenes()
    points = rays(EDGE) * found.depth.flatten(1)[:, None]
    camera = _camera(layout.pitch)
    for scene in range(len(layout.kinds)):
        for thing in range(2, layout.kinds.shape[1]):
            name = CLASSES[int(layout.kinds[scene, thing])]
            here = found.instances[scene].flatten() == thing
            if name in FLAT or not bool(here.any()):
                continue
            normal = (camera[scene] @ found.normals[scene].flatten(1)[:, here]).T
            surface = (camera[scene] @ points[scene][:, here]).T - layout.centers[scene, thing]
            frame = layout.frames[scene, thing]
            for sign, expected in ((1e-5, False), (-1e-5, True)):
                assert bool((inside(name, (surface + sign * normal) @ frame.T) == expected).all())
            # along the surface the function that is zero on it changes least: two steps aside stay close to zero
            local = surface @ frame.T
            if name == "sphere":
                torch.testing.assert_close(local.norm(dim=1), torch.ones(len(local)))
                slope = (local @ frame) / (local @ frame).norm(dim=1, keepdim=True)
                torch.testing.assert_close(slope, normal)


def test_rendered_normals_have_length_one_and_face_the_camera() -> None:
    _, found = scenes(40)
    normals = found.normals.flatten(2)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(40, EDGE**2))
    assert float((normals * rays(EDGE)).sum(dim=1).max()) <= 0


def test_rendered_depth_is_along_the_axis_and_positive() -> None:
    """The floor in the camera's frame: every point of it has the same height below the camera."""
    layout, found = scenes(40)
    points = found.depth.flatten(1)[:, None] * rays(EDGE)
    level = (_camera(layout.pitch) @ points)[:, 1]
    for scene in range(40):
        floor = found.segmentation[scene].flatten() == CLASSES.index("floor")
        assert bool(floor.any())
        height = layout.centers[scene, 1, 1]
        torch.testing.assert_close(level[scene, floor], height.expand(int(floor.sum())), rtol=1e-4, atol=1e-4)
    assert 0 < float(found.depth.min()) < float(found.depth.max()) < 100


def test_image_labels_are_derived_from_pixels() -> None:
    layout, found = scenes(60)
    labels = image_labels(found)
    for scene in range(60):
        counts = {thing: int((found.instances[scene] == thing).sum()) for thing in range(2, layout.kinds.shape[1])}
        largest = max(counts, key=lambda thing: counts[thing])
        assert KINDS[int(labels.classification[scene])] == CLASSES[int(layout.kinds[scene, largest])]
        rows, columns = (found.instances[scene] == largest).nonzero().T
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert (labels.detection[scene] * EDGE).round().tolist() == box
        names = [CLASSES[number] for number in found.segmentation[scene].flatten().tolist()]
        for question, answer in zip(ATTRIBUTES, labels.attributes[scene].tolist(), strict=True):
            if question.startswith("much "):
                assert answer == (names.count(question.removeprefix("much ")) > 0.05 * EDGE**2)
            elif question.endswith(" above left"):
                corner = found.segmentation[scene, : EDGE // 2, : EDGE // 2]
                assert answer == bool((corner == CLASSES.index(question.split()[0])).any())
            elif question.endswith(" below right"):
                corner = found.segmentation[scene, EDGE // 2 :, EDGE // 2 :]
                assert answer == bool((corner == CLASSES.index(question.split()[0])).any())
            elif question == "largest object left of the middle":
                assert answer == (box[0] + box[2] < EDGE)
            elif question == "largest object above the middle":
                assert answer == (box[1] + box[3] < EDGE)


def test_rendered_segmentation_is_the_kind_of_the_instance() -> None:
    layout, found = scenes(20)
    kinds = layout.kinds.gather(1, found.instances.flatten(1).long()).view_as(found.instances)
    assert torch.equal(kinds.to(torch.uint8), found.segmentation)


def test_scenes_have_every_class_frequently() -> None:
    workload = SceneImages(size=32, train=400, validation=1, test=1)
    targets = workload.data().train[0].targets  # type: ignore[attr-defined]
    assert torch.bincount(targets["classification"], minlength=6).min() >= 30
    assert torch.bincount(targets["segmentation"].flatten().long(), minlength=8).min() >= 0.01 * 400 * 32**2
    assert len(ATTRIBUTES) == 40


def images(workload: SceneImages, split: str) -> Tensor:
    stream = getattr(workload.data(), split)[0]
    inputs: Tensor = stream.inputs
    return inputs


def test_scenes_splits_are_disjoint_and_depend_on_the_seed_alone() -> None:
    workload = SceneImages(size=16, train=300, validation=300, test=300)
    all_images = [
        image.numpy().tobytes() for split in ("train", "validation", "test") for image in images(workload, split)
    ]
    assert len(set(all_images)) == 900
    again = SceneImages(size=16, train=300, validation=300, test=300, data_seed=0, depth=False)
    assert torch.equal(images(again, "test"), images(workload, "test"))
    other = SceneImages(size=16, train=300, validation=300, test=300, data_seed=1)
    assert not {image.numpy().tobytes() for image in images(other, "train")} & set(all_images)


def test_scenes_fewer_images_are_the_first_of_more() -> None:
    few, many = (sample_scenes(count, 4, 0.1, 5) for count in (10, 600))
    assert all(torch.equal(a, b[:10]) for a, b in zip(few, many, strict=True))


def test_scenes_colours_predict_the_kind_according_to_hue_spread() -> None:
    def spread(hue_spread: float) -> Tensor:
        layout = sample_scenes(200, 4, hue_spread, 0)
        spheres = layout.colors[layout.kinds == CLASSES.index("sphere")]
        return spheres.argmax(dim=1).bincount(minlength=3) / len(spheres)

    assert float(spread(0.0)[0]) == 1.0  # red
    assert float(spread(10.0).min()) > 0.2


def test_scenes_tasks_are_those_of_the_options() -> None:
    assert SceneImages().tasks == ("classification", "segmentation", "depth", "normals", "detection")
    assert SceneImages(depth=False, detection=False, attributes=2).tasks == (
        "classification", "segmentation", "normals", "attribute-01", "attribute-02",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size is at least 16, got 8"),
        ({"train": 0}, "train is at least 1"),
        ({"attributes": 41}, "attributes are 0 to 40, got 41"),
        ({"noise": -1.0}, "noise is 0 or more"),
        ({"hue_spread": float("nan")}, "hue_spread is 0 or more"),
    ],
)
def test_scenes_options_out_of_range_are_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneImages(**options)  # type: ignore[arg-type]


def test_normal_error_is_in_degrees() -> None:
    metric = NormalError()
    true = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 1)
    turned = torch.tensor([[0.0, 0.0, -2.0], [0.5, 0.0, -0.5]]).T.view(1, 3, 2, 1)
    metric.update(turned, true.half())
    assert metric.compute() == pytest.approx(22.5, rel=1e-5)


def test_box_overlap_equals_intersection_over_union() -> None:
    metric = BoxOverlap()
    target = torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 3)
    metric.update(torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.6, 0.6, 0.9, 0.9]]), target)
    assert metric.compute() == pytest.approx((1 + 1 / 3 + 0) / 3)
