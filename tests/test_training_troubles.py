"""TrainingMonitor are seen while training goes on, and said in one line with the cure."""

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
from paretorch.training.monitoring.training_monitor import BUFFER, ExplodedError, TrainingMonitor, TroubleWarning
from paretorch.training.record.result import Epoch, Scores
from paretorch.training.run import Run
from paretorch.training.updates import StepRecord

TINY = str(Path(__file__).parent / "training_workload.py")


def epoch(number: int, seconds: float = 1.0, **losses: float) -> Epoch:
    times = {"training": seconds, "evaluation": 0.0}
    return Epoch(number, losses, Scores({}, {}), {}, {}, 10, times, {})


def troubles(**values: float) -> TrainingMonitor:
    return TrainingMonitor(Run(TINY, epochs=20, optimizer_options={"lr": 0.5}, **values), Path("runs/none"), ())  # type: ignore[arg-type]


def test_a_run_that_explodes_stops_and_names_task_checkpoint_and_step(tmp_path: Path) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-4}, epochs=4, batch_size=8)
    wild = replace(run, optimizer_options={"lr": 1e6})
    with pytest.raises(ExplodedError) as caught:
        train(wild, tmp_path / "wild", progress=None)
    message = str(caught.value)
    assert "the loss of 's" in message
    assert "step " in message
    assert "Use a smaller step: lr=1e+05 or clip=1.0" in message
    assert "\n" not in message
    assert not (tmp_path / "wild" / "result.json").exists()
    train(run, tmp_path / "tame", progress=None)


def test_the_last_good_checkpoint_stays_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-4}, epochs=4, batch_size=8)
    look = TrainingMonitor.epoch

    def spoiled(self: TrainingMonitor, history: list[Epoch], model: nn.Module) -> None:
        if len(history) == 3:
            with torch.no_grad():
                next(model.parameters())[0] = math.nan
        look(self, history, model)

    monkeypatch.setattr(TrainingMonitor, "epoch", spoiled)
    with pytest.raises(ExplodedError, match=r"the last finite checkpoint is .*epoch-2\."):
        train(run, tmp_path, progress=None)
    (saved,) = saved_checkpoints(tmp_path / "checkpoint")
    assert saved.name == "epoch-2"
    monkeypatch.undo()
    assert len(train(run, tmp_path, progress=None).history) == 4


def test_a_loss_that_is_no_number_with_sound_parameters_is_a_word(tmp_path: Path) -> None:
    seen = troubles()
    seen.steps = 2
    seen.step(1, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.nan)}))
    with pytest.warns(TroubleWarning, match=r"the loss of 'size' was not finite in step 2 of epoch 1; .*lr=0.05"):
        seen.epoch([epoch(1, sign=1.0, size=math.nan)], nn.Linear(1, 1))


def test_before_the_first_update_no_step_is_blamed() -> None:
    seen = troubles()
    seen.step(0, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.nan)}))
    with pytest.warns(TroubleWarning, match=r"'size' was not finite in step 1 of epoch 1; .*finite. No update") as said:
        seen.epoch([epoch(1, sign=1.0, size=math.nan)], nn.Linear(1, 1))
    seen.step(0, StepRecord({"sign": torch.tensor(1.0), "size": torch.tensor(math.inf)}))
    broken = nn.Linear(1, 1)
    nn.init.constant_(broken.weight, math.nan)
    with pytest.raises(ExplodedError, match=r"'size' was not finite in step 1 .*No update had been made yet") as caught:
        seen.epoch([epoch(1, sign=1.0, size=math.inf)], broken)
    for text in (str(said[0].message), str(caught.value)):
        assert "check the inputs and targets of that batch, and the initial weights" in text
        assert "smaller step" not in text


@pytest.mark.parametrize("steps", [3, BUFFER + 5])
def test_the_first_of_several_is_named(steps: int) -> None:
    seen = troubles()
    for step in range(steps):
        bad = math.inf if step >= 2 else 1.0
        seen.step(step, StepRecord({"sign": torch.tensor(1.0 if step < 3 else math.nan), "size": torch.tensor(bad)}))
    assert seen.first_nonfinite() == ("size", 2)


def test_losses_that_stand_still_are_named_once() -> None:
    seen = troubles()
    first = epoch(1, sign=1.0, size=2.0)
    history = [first, *(epoch(number, sign=1 / number, size=2.0 + (number % 2)) for number in range(2, 9))]

    def eight_epochs() -> None:
        for end in range(1, 9):
            seen.epoch(history[:end], nn.Linear(1, 1))

    with pytest.warns(
        TroubleWarning, match=r"training loss of 'size' has not decreased in 5 epochs.*lr=0.05 or clip=1.0, lr=5;"
    ) as said:
        eight_epochs()
    assert len(said) == 1
    assert len(seen.warnings) == 1


def test_losses_that_fall_are_not_worth_a_word() -> None:
    seen = troubles()
    history = [epoch(number, sign=1 / number, size=-float(number)) for number in range(1, 10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for end in range(1, 10):
            seen.epoch(history[:end], nn.Linear(1, 1))


def test_a_long_run_on_the_cpu_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(
        TroubleWarning, match=r"19 epochs take about 5.3 h on the CPU: no GPU was found. A smaller subset"
    ):
        troubles().epoch([epoch(1, seconds=1000.0, sign=1.0)], nn.Linear(1, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(TroubleWarning, match="there is a GPU: device='cuda'"):
        troubles().epoch([epoch(1, seconds=1000.0, sign=1.0)], nn.Linear(1, 1))


def test_the_record_has_what_was_said(tmp_path: Path) -> None:
    run = Run(TINY, optimizer="SGD", optimizer_options={"lr": 1e-5, "maximize": True}, epochs=6)
    with pytest.warns(TroubleWarning, match="not decreased in 5 epochs"):
        result = train(run, tmp_path, progress=None)
    assert len(result.facts["troubles"]) == 1
