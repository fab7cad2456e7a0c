"""Fronts in reports: one reference point for all hypervolumes, losses of single models, and names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paretorch.core.arrays import Array
from paretorch.pareto import hypervolume
from paretorch.reports.analysis.formatting import mean_interval
from paretorch.reports.analysis.summary import Summary, summarize
from paretorch.reports.findings.findings import findings
from paretorch.reports.reading.load import load
from paretorch.reports.reading.standalone_runs import study_of_runs
from paretorch.reports.tables.all_tables import all_tables
from paretorch.reports.tables.settings import different_settings, equal_settings
from paretorch.studies.study import Combine, Study, Treatment
from paretorch.training.fronts.run import train_front
from paretorch.training.loop import train
from paretorch.training.run import Run
from training_runs import TINY

SEEDS = (1, 2, 3)
FRONT = Run(TINY, epochs=2, batch_size=32, front="MT2O()", front_options={"models": 3})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms on three seeds; the reference point of each seed is from its untrained model."""
    root = tmp_path_factory.mktemp("fronts")
    for front in ("MT2O()", "Sweep()"):
        for seed in SEEDS:
            train_front(replace(FRONT, front=front, seed=seed), root / f"{front[:4]}-{seed}", progress=None)
    return root


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarize(load(folder))


def stored(folder: Path, front: str, seed: int) -> dict[str, list[list[float]]]:
    found = json.loads((folder / f"{front[:4]}-{seed}" / "result.json").read_text())["facts"]["front"]
    assert isinstance(found, dict)
    return found


def largest_reference(folder: Path) -> Array:
    references = [stored(folder, front, seed)["reference"] for front in ("MT2O()", "Sweep()") for seed in SEEDS]
    point: Array = np.array(references, dtype=np.float64).max(axis=0)
    assert references[0] != point.tolist()  # else these tests show less
    return point


def volumes(sets: list[list[list[float]]], point: Array) -> list[float]:
    return [hypervolume(torch.tensor(each, dtype=torch.float64), torch.from_numpy(point)) for each in sets]


def test_hypervolumes_of_all_fronts_are_measured_from_the_largest_reference(folder: Path, summary: Summary) -> None:
    point = largest_reference(folder)
    for index, front in enumerate(("MT2O()", "Sweep()")):
        results = list(summary.results.treatments.values())[index]
        losses = [stored(folder, front, seed) for seed in SEEDS]
        assert results.test[:, 0].tolist() == pytest.approx(volumes([each["test losses"] for each in losses], point))
        assert results.validation[:, 0].tolist() == pytest.approx(volumes([each["losses"] for each in losses], point))


def test_hypervolumes_after_each_epoch_are_measured_from_the_largest_reference(folder: Path, summary: Summary) -> None:
    point = largest_reference(folder)
    results = list(summary.results.treatments.values())[1]
    for index, seed in enumerate(SEEDS):
        history = json.loads((folder / f"Swee-{seed}" / "front.json").read_text())["history"]
        expected = pytest.approx(volumes([moment["losses"] for moment in history], point))
        assert results.curves[index, :, 0].tolist() == expected
        assert results.fronts is not None
        assert results.fronts.hypervolume[index].tolist() == expected


def test_table_of_fronts_names_the_point_from_which_they_are_measured(folder: Path, summary: Summary) -> None:
    note = all_tables(summary)["fronts"].notes[0]
    named = note.removeprefix("Measured from ").split(". The ideal")[0].split(", ")
    assert [float(each.split()[-1]) for each in named] == largest_reference(folder).tolist()


def test_no_front_has_a_larger_hypervolume_than_its_ideal_point(summary: Summary) -> None:
    for results in summary.results.treatments.values():
        assert results.fronts is not None
        assert (results.fronts.ideal >= results.test[:, 0] * (1 - 1e-12)).all()


def test_table_of_fronts_has_the_test_hypervolume_next_to_single_models(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    train(Run(TINY, epochs=1, batch_size=32), copy / "single", progress=None)
    found = summarize(load(copy))
    table = all_tables(found)["fronts"]
    assert table.header[1] == "hypervolume, test"
    column = [metric.name for metric in found.results.metrics].index("hypervolume")
    for label, cell, *_ in table.rows:
        assert cell == mean_interval(found.results.treatments[label].test[:, column], found.level)


def test_hypervolumes_after_each_epoch_are_withheld_without_stored_losses(
    folder: Path, summary: Summary, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "MT2O-2" / "front.json").unlink()
    shutil.copy(copy / "Swee-1" / "front.json", copy / "Swee-3" / "front.json")  # of another run
    found = summarize(load(copy))
    for index, (lost, name) in enumerate(((1, "MT2O"), (2, "Swee"))):
        results = list(found.results.treatments.values())[index]
        whole = list(summary.results.treatments.values())[index]
        assert np.isnan(results.curves[lost]).all(), name
        assert np.isfinite(np.delete(results.curves, lost, axis=0)).all()
        assert results.test.tolist() == whole.test.tolist()
        assert results.validation.tolist() == whole.validation.tolist()
    (note,) = [note for note in found.results.plan.notes if "withheld" in note]
    assert "MT2O(), seed 2; Sweep(), seed 3" in note


def test_combined_loss_of_a_front_is_that_of_one_model(tmp_path: Path) -> None:
    base = Run("synthetic", {"problem": "vlmop2"}, optimizer="SGD", optimizer_options={"lr": 1.0}, epochs=20)
    sums = {}
    for front in ("MT2O()", "Sweep()"):
        run = replace(base, front=front, front_options={"models": 4})
        train_front(run, tmp_path / f"{front[:4]}-0", progress=None)
        points = np.array(stored(tmp_path, front, 0)["losses"])
        sums[front] = points.sum(axis=1).min()
        assert sums[front] > 1.2 * points.min(axis=0).sum()  # no model has each task's lowest loss
    summary = summarize(load(tmp_path))
    for row in all_tables(summary)["losses"].rows:
        assert summary.results.treatments[row[0]].combined_test_losses.tolist() == pytest.approx([sums[row[0]]])
        assert float(row[-1].split()[0]) == pytest.approx(sums[row[0]], rel=1e-3)  # as printed
    (found,) = [each for each in findings(summary) if each.name == "lowest combined loss"]
    label = min(sums, key=lambda each: sums[each])
    assert float(found.sentence.removeprefix(f"{label}: ").split(";")[0].split()[0]) == pytest.approx(
        sums[label], rel=1e-3
    )


def test_front_is_named_by_its_algorithm_and_its_options() -> None:
    sweep = replace(FRONT, front="Sweep()")
    runs = [FRONT, sweep, replace(sweep, front_options={"models": 5}), replace(sweep, seed=1), Run(TINY)]
    study, _ = study_of_runs("tiny", runs)
    assert [treatment.label for treatment in study.treatments] == [
        "MT2O(), epochs 2, batch_size 32, models 3",
        "Sweep(), epochs 2, batch_size 32, models 3",
        "Sweep(), epochs 2, batch_size 32, models 5",
        "Equal(), epochs 1, batch_size 256",
    ]
    assert study.reference == "Equal(), epochs 1, batch_size 256"
    alone, _ = study_of_runs("tiny", [FRONT])
    assert [treatment.label for treatment in alone.treatments] == ["MT2O()"]


def test_report_names_fronts_by_their_algorithms(summary: Summary) -> None:
    assert list(summary.rows) == ["MT2O()", "Sweep()"]
    names = {name for name, _ in equal_settings(summary.results)} | set(different_settings(summary.results).header)
    assert "front" in names
    assert not names & {"method", "surface", "door"}


def test_equal_references_leave_all_hypervolumes_as_they_are_stored(folder: Path, tmp_path: Path) -> None:
    for seed in range(2):
        run = replace(FRONT, seed=seed, front_options={"models": 3, "reference": [9.0, 9.0]})
        train_front(run, tmp_path / str(seed), progress=None)
    loaded = load(tmp_path)
    assert summarize(loaded).results is loaded


def test_member_of_a_grid_is_chosen_by_hypervolumes_from_one_point(folder: Path, summary: Summary) -> None:
    loaded = load(folder)
    means = {label: results.validation[:, 0].mean() for label, results in summary.results.treatments.items()}
    best, worst = sorted(means, key=lambda label: -means[label])
    runs = {treatment.label: treatment.runs for treatment in loaded.plan.study.treatments}
    grid = Treatment("grid", (*runs[worst], *runs[best]), Combine.CHOOSE)
    members = (loaded.treatments[worst], loaded.treatments[best])
    first = replace(members[0], label="grid", grid=members)  # chosen by the stored hypervolumes
    study = Study("grid", "?", (Treatment(best, runs[best]), grid), reference=best, baseline=best)
    plan = replace(loaded.plan, study=study)
    found = summarize(replace(loaded, plan=plan, treatments={best: loaded.treatments[best], "grid": first}))
    results = found.results.treatments["grid"]
    assert results.chosen == grid.runs[1]
    assert results.validation[:, 0].mean() == means[best]
