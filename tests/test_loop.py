"""The loop over epochs, the evaluation of a split, weighted means, and totals of steps."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable

import pytest
import torch

from paretorch.loop.epochs import train_epochs
from paretorch.loop.evaluation import evaluate
from paretorch.loop.means import DeviceMeans, HostMeans
from paretorch.loop.step_statistics import StatisticsTotals, StepStatistics
from paretorch.storage.checkpoint_schedule import CheckpointSchedule
from training_workload import Tiny


class RecordedTraining:
    """Records the calls of the loop."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def start_epoch(self, epoch: int) -> Iterable[str]:
        self.calls.append(("start", epoch))
        return ("a", "b")

    def update(self, step: int, batch: str) -> None:
        self.calls.append((batch, step))

    def end_epoch(self, epoch: int) -> bool:
        self.calls.append(("end", epoch))
        return epoch != 2

    def save(self, epoch: int) -> None:
        self.calls.append(("save", epoch))

    def report(self, epoch: int) -> None:
        self.calls.append(("report", epoch))


def test_train_epochs_calls_in_order_and_saves_before_it_reports() -> None:
    training = RecordedTraining()
    train_epochs(training, 2, 2, done=0, checkpoints=CheckpointSchedule(1))
    first = [("start", 0), ("a", 0), ("b", 1), ("end", 1), ("save", 1), ("report", 1)]
    assert training.calls == [*first, ("start", 1), ("a", 2), ("b", 3), ("end", 2), ("report", 2)]


def test_train_epochs_trains_only_the_epochs_that_are_left() -> None:
    training = RecordedTraining()
    train_epochs(training, 3, 2, done=2)
    assert training.calls == [("start", 2), ("a", 4), ("b", 5), ("end", 3), ("report", 3)]


def test_checkpoint_schedule_includes_the_last_epoch() -> None:
    schedule = CheckpointSchedule(4, last=6)
    assert [epoch for epoch in range(1, 7) if schedule(epoch)] == [4, 6]


@pytest.mark.parametrize("means", [DeviceMeans, HostMeans])
def test_means_are_weighted_and_ignore_zero_counts(means: type[DeviceMeans] | type[HostMeans]) -> None:
    made = means()
    made.add("a", torch.tensor(2.0), torch.tensor(3))
    made.add("a", torch.tensor(math.nan), torch.tensor(0))
    made.add("a", torch.tensor(6.0), 1)
    made.add("b", torch.tensor(1.0), 0)
    read = made.read()
    assert read["a"] == 3.0
    assert math.isnan(read["b"])


@pytest.mark.parametrize("means", [DeviceMeans, HostMeans])
def test_evaluate_does_not_depend_on_the_batch_size_and_restores_the_mode(
    means: type[DeviceMeans] | type[HostMeans],
) -> None:
    workload = Tiny(missing=True)
    torch.manual_seed(0)
    model = workload.model().train()
    streams = workload.data().validation
    by_size = [evaluate(workload, model, streams, size, workload.metrics(), means()) for size in (5, 24)]
    assert model.training
    for task in workload.tasks:
        assert by_size[0].losses[task] == pytest.approx(by_size[1].losses[task], rel=1e-6)
        assert by_size[0].metrics[task] == pytest.approx(by_size[1].metrics[task], rel=1e-6)


def test_statistics_totals_add_counts_and_average_the_reported_values() -> None:
    totals = StatisticsTotals()
    for values in ([0.1, 0.2], [], [0.3]):
        totals.add(StepStatistics({"trials": 2}, {"step": values}))
    totals.add(StepStatistics({"trials": 0}, {"decrease": []}))
    assert totals.counts == {"trials": 6}
    assert totals.means() == {"step": math.fsum([0.1, 0.2, 0.3]) / 3}


def test_statistics_totals_continue_from_their_saved_state() -> None:
    steps = [
        StepStatistics({"trials": 1, "none": 0}, {"step": [0.5], "decrease": []}),
        StepStatistics({"trials": 4}, {"step": [2]}),
    ]
    whole, first, second = StatisticsTotals(), StatisticsTotals(), StatisticsTotals()
    for step in steps:
        whole.add(step)
    first.add(steps[0])
    state = json.loads(json.dumps(first.state()))
    second.load(state)
    second.add(steps[1])
    assert second.state() == whole.state()
    assert second.means() == whole.means() == {"step": 1.25}
    earlier = StatisticsTotals()
    earlier.load({"trials": 1, "none": 0, "step": [0.5], "decrease": []})  # as earlier versions saved
    assert earlier.state() == first.state()


def test_statistics_totals_of_many_steps_have_the_size_of_few_and_a_correctly_rounded_sum() -> None:
    draws = random.Random(0)
    values = [draws.gauss(0, 1) * 10.0 ** draws.randint(-12, 12) for _ in range(5000)]
    totals = StatisticsTotals()
    for number, value in enumerate(values, start=1):
        totals.add(StepStatistics(values={"share": [value]}))
        if number in (1, 2, 17, 4999, 5000):
            assert totals.means() == {"share": math.fsum(values[:number]) / number}
    assert len(json.dumps(totals.state())) < 300


@pytest.mark.parametrize(
    "values", [[math.inf, 1.0], [1.0, -math.inf, 2.0], [math.nan, 1.0], [math.inf, -math.inf, 0.0]]
)
def test_statistics_totals_of_values_that_are_not_finite_are_not_finite(values: list[float]) -> None:
    totals = StatisticsTotals()
    totals.add(StepStatistics(values={"share": values}))
    expected = sum(values) / len(values)
    assert totals.means()["share"] == pytest.approx(expected, nan_ok=True)
