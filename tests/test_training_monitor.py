"""Warnings of the training monitor."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from paretorch.storage.checkpoint_folder import saved_checkpoints
from paretorch.training.loop import train
from paretorch.training.monitoring.training_monitor import (
    BUFFER,
    NonFiniteParametersError,
    TrainingMonitor,
    TrainingWarning,
)
from paretorch.training.record.result import Epoch, Scores
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord
from training_runs import TINY


def epoch(number: int, seconds: float = 1.0, **losses: float) -> Epoch:
    times = {"training": seconds, "evaluation": 0.0}
    return Epoch(number, losses, Scores({}, {}), {}, {}, 10, times, {})


def monitor_of(**values: float) -> TrainingMonitor:
    return TrainingMonitor(Run(TINY, epochs=20, optimizer_options={"lr": 0.5}, **values), Path("runs/none"), ())  # type: ignore[arg-type]


def test_exploded_run_stops_and_names_task_and_step(tmp_path: Path) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-4}, epochs=4, batch_size=8)
    diverging = replace(run, optimizer_options={"lr": 1e6})
    with pytest.raises(NonFiniteParametersError) as caught:
        train(diverging, tmp_path / "diverging", progress=None)
    message = str(caught.value)
    assert "the loss of 's" in message
    assert "step " in message
    assert "Use a smaller step: lr=1e+05 or clip=1.0" in message
    assert "\n" not in message
    assert not (tmp_path / "diverging" / "result.json").exists()
    train(run, tmp_path / "tame", progress=None)


def test_exploded_run_keeps_and_names_the_last_finite_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-4}, epochs=4, batch_size=8)
    epoch_of_monitor = TrainingMonitor.epoch

    def with_nan(self: TrainingMonitor, history: list[Epoch], model: nn.Module) -> None:
        if len(history) == 3:
            with torch.no_grad():
                next(model.parameters())[0] = math.nan
        epoch_of_monitor(self, history, model)

    monkeypatch.setattr(TrainingMonitor, "epoch", with_nan)
    with pytest.raises(NonFiniteParametersError, match=r"the last finite checkpoint is .*epoch-2\."):
        train(run, tmp_path, progress=None)
    assert saved_checkpoints(tmp_path / "checkpoint")[-1].name == "epoch-2"
    monkeypatch.undo()
    assert len(train(run, tmp_path, progress=None).history) == 4


def test_nonfinite_loss_with_finite_parameters_is_a_warning(tmp_path: Path) -> None:
    monitor = monitor_of()
    monitor.steps = 2
    monitor.step(1, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.nan)}))
    with pytest.warns(TrainingWarning, match=r"the loss of 'size' was not finite in step 2 of epoch 1; .*lr=0.05"):
        monitor.epoch([epoch(1, sign=1.0, size=math.nan)], nn.Linear(1, 1))


def test_nonfinite_loss_before_the_first_update_suggests_no_smaller_step() -> None:
    monitor = monitor_of()
    monitor.step(0, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.nan)}))
    with pytest.warns(
        TrainingWarning, match=r"'size' was not finite in step 1 of epoch 1; .*finite. No update"
    ) as warned:
        monitor.epoch([epoch(1, sign=1.0, size=math.nan)], nn.Linear(1, 1))
    monitor.step(0, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.inf)}))
    nonfinite = nn.Linear(1, 1)
    nn.init.constant_(nonfinite.weight, math.nan)
    with pytest.raises(
        NonFiniteParametersError, match=r"'size' was not finite in step 1 .*No update had been made yet"
    ) as caught:
        monitor.epoch([epoch(1, sign=1.0, size=math.inf)], nonfinite)
    for text in (str(warned[0].message), str(caught.value)):
        assert "check the inputs and targets of that batch, and the initial weights" in text
        assert "smaller step" not in text


def nan_parameters() -> nn.Module:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, math.nan)
    return model


def cause_of(losses: list[float], history: list[Epoch], gradient: tuple[int, tuple[str, ...]] | None = None) -> str:
    """The reason that the monitor gives where these losses of 'size' were followed by parameters that are not finite."""
    monitor = monitor_of()
    first = 20 * len(history)
    monitor.steps = 20
    for step, loss in enumerate(losses):
        monitor.step(first + step, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(loss)}))
    mean = sum(losses) / len(losses)
    with pytest.raises(NonFiniteParametersError) as caught:
        monitor.check_parameters(history, {"sign": 1.0, "size": mean}, nan_parameters(), gradient)
    return str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite_loss_after_losses_that_did_not_grow_is_blamed_on_the_batch(bad: float) -> None:
    for history in ([], [epoch(1, sign=1.0, size=3.0), epoch(2, sign=1.0, size=1.0)]):
        text = cause_of([3.0, 2.0, 8.0, bad, math.nan], history)
        assert f"the loss of 'size' was not finite in step 4 of epoch {len(history) + 1}, before which no loss" in text
        assert "Check the inputs and targets of that batch and of the one before; if they are finite" in text
        assert "explo" not in text


def test_nonfinite_loss_after_losses_that_grew_is_an_explosion() -> None:
    for losses, history in (
        ([3.0, 1e4, 1e9, math.inf], []),
        ([1e5, math.nan], [epoch(1, size=3.0), epoch(2, size=50.0)]),
    ):
        text = cause_of(losses, history)
        assert f"the loss of 'size' exploded in step {len(losses)} of epoch {len(history) + 1}" in text
        assert "Use a smaller step: lr=0.05 or clip=1.0" in text
    assert "the parameters exploded" in cause_of([3.0, 1e9], [])


def test_nonfinite_gradient_of_an_earlier_step_is_named_with_its_task() -> None:
    text = cause_of([3.0, 2.0, 1.0, math.nan], [], gradient=(2, ("size",)))
    assert text.startswith("the gradient of 'size' was not finite in step 3 of epoch 1, although the loss was")
    assert "smaller step" not in text
    assert "the loss of 'size' was not finite in step 3" in cause_of([3.0, 2.0, math.nan], [], gradient=(2, ("size",)))
    assert "exploded" in cause_of([3.0, 1e9, math.nan], [], gradient=(1, ("size",)))


def test_nonfinite_parameters_after_finite_losses_are_blamed_on_the_last_batch() -> None:
    text = cause_of([3.0, 2.0], [])
    assert (
        "after epoch 1, in which every loss was finite and none had grown, the model's parameters are not finite"
        in text
    )
    assert "Check the inputs and targets of its last batch" in text


@pytest.mark.parametrize("steps", [3, BUFFER + 5])
def test_first_of_several_nonfinite_losses_is_named(steps: int) -> None:
    monitor = monitor_of()
    for step in range(steps):
        bad = math.inf if step >= 2 else 1.0
        monitor.step(step, StepRecord({"sign": torch.tensor(1.0 if step < 3 else math.nan), "size": torch.tensor(bad)}))
    assert monitor.first_nonfinite() == ("size", 2)


def test_stagnating_losses_are_warned_of_once() -> None:
    monitor = monitor_of()
    first = epoch(1, sign=1.0, size=2.0)
    history = [first, *(epoch(number, sign=1 / number, size=2.0 + (number % 2)) for number in range(2, 9))]

    def eight_epochs() -> None:
        for end in range(1, 9):
            monitor.epoch(history[:end], nn.Linear(1, 1))

    with pytest.warns(
        TrainingWarning, match=r"training loss of 'size' has not decreased in 5 epochs.*lr=0.05 or clip=1.0, lr=5;"
    ) as warned:
        eight_epochs()
    assert len(warned) == 1
    assert len(monitor.warnings) == 1


def test_decreasing_losses_cause_no_warning() -> None:
    monitor = monitor_of()
    history = [epoch(number, sign=1 / number, size=-float(number)) for number in range(1, 10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for end in range(1, 10):
            monitor.epoch(history[:end], nn.Linear(1, 1))


def test_long_run_on_the_cpu_causes_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(
        TrainingWarning, match=r"19 epochs take about 5.3 h on the CPU: no GPU was found. A smaller subset"
    ):
        monitor_of().epoch([epoch(1, seconds=1000.0, sign=1.0)], nn.Linear(1, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(TrainingWarning, match="there is a GPU: device='cuda'"):
        monitor_of().epoch([epoch(1, seconds=1000.0, sign=1.0)], nn.Linear(1, 1))


def test_result_contains_the_warnings(tmp_path: Path) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-5, "maximize": True}, epochs=6)
    with pytest.warns(TrainingWarning, match="not decreased in 5 epochs"):
        result = train(run, tmp_path, progress=None)
    assert len(result.facts["troubles"]) == 1
