"""The study ``optimizers``: its protocols and options, and its training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from image_folders import write_coco, write_imagenet
from paretorch.optim.presets import PRESETS
from paretorch.reports.compare import run_study
from paretorch.studies.catalog.optimizers import TASKS, study
from paretorch.studies.lookup import find_study
from paretorch.studies.study import Combine, Expected, Study
from paretorch.training.loop import train
from paretorch.training.resolved_run import resolve
from paretorch.training.run import Run
from training_runs import check_resumed_run


def first(found: Study) -> dict[str, Run]:
    return {treatment.label: treatment.runs[0] for treatment in found.treatments}


def without_optimizer(run: Run) -> Run:
    return dataclasses.replace(run, optimizer="Adam", optimizer_options={})


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_optimizers_study_has_the_eight_presets(scale: str) -> None:
    runs = first(study(scale))
    assert list(runs) == [preset.name for preset in PRESETS]
    assert len({without_optimizer(run).key for run in runs.values()}) == 1
    one = runs["Adam"]
    assert one.clip is not None
    assert one.schedule == "cosine"
    assert [run.optimizer for run in runs.values()] == [preset.optimizer for preset in PRESETS]


def test_optimizers_study_paper_has_the_published_protocols() -> None:
    hundred = study("paper", optimizers="sgd,adam,adamw,mtadamv2")
    runs = first(hundred)
    assert list(runs) == ["SGD", "Adam", "AdamW", "MTAdamV2"]
    for label, rate in {"SGD": 0.01, "Adam": 1e-3, "AdamW": 1e-3, "MTAdamV2": 3e-4}.items():
        run = runs[label]
        assert (run.workload, run.batch_size, run.epochs) == ("imagenet_coco", 32, 10)
        assert run.optimizer_options["lr"] == rate
        assert run.options["train"] == 50_000
        assert run.options["classes"] == 100
        assert "size" not in run.options  # the workload's own: 256
    assert len(hundred.expected) == 8
    assert hundred.expected[0] == Expected("SGD", "classification", "accuracy", 0.35, 0.45)
    thousand = first(study("paper", classes=1000))
    assert len(thousand) == 8
    assert {(run.batch_size, run.epochs, run.options["classes"]) for run in thousand.values()} == {(8, 5, 1000)}
    assert thousand["MTAdamV2"].optimizer_options["lr"] == 1e-3
    assert len(study("paper", classes=1000).expected) == 16
    assert study("small").expected == ()


def test_optimizers_study_accepts_numbers_names_and_options() -> None:
    runs = first(study("smoke", optimizers="8, SGD+nesterov, adamw(lr=0.01, weight_decay=0.1)"))
    assert list(runs) == ["MTAdamV2", "SGD+Nesterov", "AdamW(lr=0.01, weight_decay=0.1)"]
    options = runs["AdamW(lr=0.01, weight_decay=0.1)"].optimizer_options
    assert dict(options) == {"lr": 0.01, "weight_decay": 0.1, "betas": [0.9, 0.999]}


def test_optimizers_study_combines_methods_with_all_optimizers_but_mtadam() -> None:
    runs = first(study("smoke", optimizers="1,3,8", methods="sum, MGDA(), CAGrad(c=0.2)"))
    assert list(runs) == [
        "SGD",
        "SGD + MGDA",
        "SGD + CAGrad(c=0.2)",
        "Adam",
        "Adam + MGDA",
        "Adam + CAGrad(c=0.2)",
        "MTAdamV2",
    ]
    assert runs["Adam + CAGrad(c=0.2)"].method == "CAGrad(c=0.2)"
    assert runs["MTAdamV2"].method == "Equal()"
    for run in runs.values():
        assert resolve(run).tasks == TASKS


def test_optimizers_study_writes_loss_weights_into_runs() -> None:
    runs = first(study("smoke", optimizers="adam,mtadamv2", loss_weights="1, 0.5"))
    assert runs["Adam"].method == "Static({'classification': 1.0, 'segmentation': 0.5})"
    assert runs["MTAdamV2"].optimizer_options["weights"] == [1.0, 0.5]
    for run in runs.values():
        resolve(run)


@pytest.mark.parametrize("optimizers", ["", "sgd,adamw", "mtadamv2"])
def test_optimizers_study_baselines_are_single_tasks_and_tuned_static_weights(optimizers: str) -> None:
    found = study("smoke", optimizers=optimizers, baselines=True)
    single, static = found.treatments[-2:]
    assert (single.label, single.combine, found.baseline) == ("single task", Combine.JOIN, "single task")
    assert static.combine is Combine.CHOOSE
    assert len(static.runs) == 5
    assert "Equal()" in [run.method for run in static.runs]
    assert {run.optimizer for t in (single, static) for run in t.runs} == {
        {"": "Adam", "sgd,adamw": "SGD", "mtadamv2": "Adam"}[optimizers]
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizers": "9"}, "an optimizer's number is 1 to 8, got 9"),
        ({"optimizers": "adm"}, "did you mean 'adam'"),
        ({"optimizers": "sgd(0.1)"}, "options are given by name"),
        ({"optimizers": "adam,3"}, "labels of treatments are unique"),
        ({"classes": 10}, "classes are those of ImageNet"),
        ({"loss_weights": "1"}, "expected a number above 0 for each of classification, segmentation"),
        ({"loss_weights": "1,-1"}, "above 0"),
        ({"loss_weights": "a,b"}, "are numbers with a comma"),
        ({"loss_weights": "1,2", "methods": "sum,MGDA()"}, "go with the sum"),
        ({"methods": "MDGA()"}, "did you mean 'MGDA'"),
        ({"epochs": 3}, "unknown option of the study optimizers 'epochs'"),
    ],
)
def test_optimizers_study_refuses_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_study("optimizers", "smoke", options)


def test_optimizers_study_refuses_classes_without_a_protocol() -> None:
    with pytest.raises(ValueError, match="classes are 100 or 1000"):
        study("paper", classes=10)


def test_expected_ranges_survive_json() -> None:
    found = study("paper")
    assert Study.from_json(json.loads(json.dumps(found.to_json()))) == found
    old = found.to_json()
    del old["expected"]
    assert Study.from_json(old).expected == ()


def test_expected_ranges_are_of_treatments_and_ordered() -> None:
    found = study("smoke")
    with pytest.raises(ValueError, match="a range is expected of 'Adamm'"):
        dataclasses.replace(found, expected=(Expected("Adamm", "classification", "accuracy", 0.1, 0.2),))
    with pytest.raises(ValueError, match="low is at most high"):
        Expected("Adam", "classification", "accuracy", 0.3, 0.2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "mtadamv2"])
@pytest.mark.sampled(3)
def test_optimizers_study_resumed_run_equals_an_uninterrupted_one(optimizer: str, tmp_path: Path) -> None:
    (run,) = first(study("smoke", optimizers=optimizer)).values()
    few = {"train": 12, "validation": 4, "test": 4}
    run = dataclasses.replace(run, options={**run.options, **few}, batch_size=4, epochs=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        check_resumed_run(run, tmp_path, epochs=2)
    finally:
        torch.set_num_threads(threads)


def test_optimizers_study_names_missing_folders_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ImageNet was not found[\s\S]*Expected[\s\S]*Found"):
        run_study("optimizers", "paper", out=tmp_path / "study", progress=False, options={"root": str(tmp_path)})
    assert not (tmp_path / "study").exists()


@pytest.mark.long
def test_optimizers_study_paper_trains_on_image_folders(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    write_coco(tmp_path)
    for label, run in first(
        study("paper", optimizers="adam,mtadamv2", methods="sum,MGDA()", root=str(tmp_path))
    ).items():
        few = {"classes": 3, "train": 6, "validation": 3, "test": 3, "size": 32, "width": 0.25, "workers": 0}
        tiny = dataclasses.replace(run, options={**run.options, **few}, epochs=1, batch_size=3)
        assert train(tiny, tmp_path / label.replace(" ", ""), progress=None).history


@pytest.mark.long
def test_optimizers_study_smoke_writes_its_page(tmp_path: Path) -> None:
    found = run_study("optimizers", "smoke", seeds=1, out=tmp_path, jobs=1, progress=False)
    assert found.page.exists()
    assert {finding.name for finding in found.findings[0]} >= {
        "best classification accuracy",
        "best segmentation mean IoU",
        "best overall",
    }
