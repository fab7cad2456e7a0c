"""The Pareto stationarity residual of a trained model: in the result, on a part of the data, and in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from paretorch.pareto import residual
from paretorch.reports.analysis.summary import summarize
from paretorch.reports.reading.load import load
from paretorch.reports.tables.all_tables import all_tables
from paretorch.studies.folder import open_folder
from paretorch.studies.study import Study, Treatment, single_task
from paretorch.training import load_model
from paretorch.training.loop import train
from paretorch.training.record.result import STATIONARITY
from paretorch.training.run import Run
from paretorch.workloads.forward import outputs_of
from paretorch.workloads.synthetic import Synthetic
from training_runs import TINY
from training_workload import Tiny

TINY_RUN = Run(TINY, epochs=2, batch_size=12, stationarity=24)


def shortest(one: torch.Tensor, two: torch.Tensor) -> float:
    """The norm of the shortest point of the segment between two vectors, by its closed form."""
    share = ((two - one) @ two / (one - two).square().sum()).clamp(0, 1)
    return float((share * one + (1 - share) * two).norm())


def test_residual_of_a_trained_model_is_on_the_first_samples(tmp_path: Path) -> None:
    found = train(TINY_RUN, tmp_path, progress=None).facts[STATIONARITY]
    model = load_model(tmp_path).eval()
    samples = next(Tiny().data().train[0].batches(24, order=None))
    outputs, targets = outputs_of(model, (samples,))
    sign = functional.cross_entropy(outputs["sign"], targets["sign"])
    size = functional.mse_loss(outputs["size"].squeeze(1), targets["size"])
    rows = [
        torch.cat(
            [
                part.flatten()
                for part in torch.autograd.grad(
                    loss, list(model.parameters()), retain_graph=True, materialize_grads=True
                )
            ]
        )
        for loss in (sign, size)
    ]
    assert found == pytest.approx(shortest(*rows), rel=1e-4)


def test_residual_rounds_the_samples_up_to_whole_batches() -> None:
    workload = Tiny()
    model = workload.model().eval()
    streams = workload.data().train
    half = Tiny(samples=30).data().train  # not a prefix of the same data
    assert residual(workload, model, streams, 20, samples=21) == residual(workload, model, streams, 20, samples=40)
    assert residual(workload, model, streams, 20, samples=60) == residual(workload, model, streams, 20)
    assert residual(workload, model, streams, 20, samples=20) != residual(workload, model, half, 20)


def test_residual_is_zero_where_mgda_has_converged_and_not_before(tmp_path: Path) -> None:
    run = Run(
        "synthetic", {"problem": "vlmop2"}, method="MGDA()", surface="parameters", optimizer="SGD", stationarity=1
    )
    long = replace(run, optimizer_options={"lr": 0.5}, epochs=200)
    short = replace(run, optimizer_options={"lr": 1e-6}, epochs=1)
    assert train(long, tmp_path / "long", progress=None).facts[STATIONARITY] <= 1e-3
    start = train(short, tmp_path / "short", progress=None).facts[STATIONARITY]
    model = load_model(tmp_path / "short")
    assert start == pytest.approx(residual(Synthetic("vlmop2"), model, Synthetic("vlmop2").data().train), rel=1e-6)
    assert start > 1e-2


def test_table_has_the_residuals_of_single_models(tmp_path: Path) -> None:
    treatments = (single_task("single", TINY_RUN, Tiny().tasks), Treatment("sum", (TINY_RUN,)))
    folder = open_folder(tmp_path, Study("mine", "Which?", treatments, "sum", "single"), "smoke", 3, resume=False)
    found = [
        train(job.run, job.folder, progress=None).facts[STATIONARITY] for job in folder.jobs() if job.label == "sum"
    ]
    for job in folder.jobs():
        train(job.run, job.folder, progress=None)
    table = all_tables(summarize(load(tmp_path)))["stationarity"]
    assert [row[0] for row in table.rows] == ["sum"]
    assert [float(cell) for cell in table.rows[0][2:]] == pytest.approx([min(found), max(found)], rel=1e-3)
    assert float(table.rows[0][1].split()[0]) == pytest.approx(sum(found) / 3, rel=2e-2)


def test_run_without_test_scores_has_no_residual(tmp_path: Path) -> None:
    assert STATIONARITY not in train(replace(TINY_RUN, test=False), tmp_path, progress=None).facts


def test_residual_does_not_change_the_training(tmp_path: Path) -> None:
    one = train(TINY_RUN, tmp_path / "one", progress=None)
    other = train(replace(TINY_RUN, stationarity=0), tmp_path / "other", progress=None)
    assert one.test == other.test
    assert STATIONARITY not in other.facts


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"stationarity": -1}, "at least 0"), ({"stationarity": 8, "front": "MT2O()"}, "Front.residuals")],
)
def test_run_refuses_a_residual_that_it_cannot_compute(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(TINY_RUN, **changes)  # type: ignore[arg-type]
