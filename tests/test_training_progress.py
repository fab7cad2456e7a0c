"""Progress: plain lines, a live display, a callback."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest

from paretorch.display import ProgressBars
from paretorch.training import loop
from paretorch.training.loop import train
from paretorch.training.monitoring import progress
from paretorch.training.monitoring.progress import (
    CallbackProgress,
    LiveProgress,
    NoProgress,
    PlainProgress,
    progress_display,
)
from paretorch.training.run import Run
from training_runs import TINY, stop_after

RUN = Run(TINY, method="MGDA()", epochs=2, batch_size=8)


def test_plain_progress_prints_losses_metrics_weights_and_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(RUN, tmp_path, progress="auto")  # captured: no terminal
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2 epochs of 7 steps on cpu")
    assert [line.split(" | ")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]
    for part in ("loss sign ", "validation sign ", "weights sign ", "samples/s"):
        assert part in lines[1]


@pytest.mark.parametrize(("size", "steps", "left_out"), [(40, 1, 20), (24, 2, 12), (8, 7, 4), (60, 1, 0), (100, 1, 0)])
def test_progress_prints_how_many_samples_an_epoch_leaves_out(
    size: int, steps: int, left_out: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workload has 60 samples; there is no line for a few left out."""
    result = train(dataclasses.replace(RUN, batch_size=size, epochs=1), tmp_path, progress="plain")
    assert result.history[0].samples == 60 - left_out
    notes = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(notes) == (left_out > 6)
    if notes:
        step = f"{steps} step{'s' * (steps > 1)}"
        assert notes[0].startswith(f"Note: {step} of {size} samples per epoch; {left_out} of 60 samples are left out")


def test_plain_progress_prints_that_a_run_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, progress=stop_after(1, of=2))
    train(RUN, tmp_path, progress="plain")
    assert "resumed after epoch 1" in capsys.readouterr().out


def test_live_progress_shows_losses_weights_speed_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200)
    made: list[ProgressBars] = []

    def bars(*columns: str, **options: Any) -> ProgressBars:
        made.append(ProgressBars(*columns, console=console, **options))
        return made[-1]

    monkeypatch.setattr(LiveProgress, "REFRESH", 0.0)
    monkeypatch.setattr(progress, "ProgressBars", bars)
    train(RUN, tmp_path, progress="live")
    text = shown.getvalue()
    for part in ("epoch 1/2", "epoch 2/2", "loss sign ", "weights sign ", "samples/s", "left"):
        assert part in text
    assert [each.completed("run") for each in made] == [14]


def test_progress_display_is_chosen_by_name() -> None:
    assert isinstance(progress_display("plain"), PlainProgress)
    assert isinstance(progress_display("live"), LiveProgress)
    assert type(progress_display(None)) is NoProgress
    assert isinstance(progress_display(lambda *_: None), CallbackProgress)
    with pytest.raises(ValueError, match="progress is"):
        progress_display("loud")  # type: ignore[arg-type]


def test_progress_display_is_closed_when_training_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Failing(NoProgress):
        def start(self, run: Run, done: int, steps: int) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(loop, "progress_display", lambda _: Failing())
    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path)
    assert closed == [True]


def test_format_numbers_omits_all_but_the_first_numbers() -> None:
    assert progress.format_numbers({str(index): float(index) for index in range(8)}, most=2) == "0 0 1 1 and 6 more"
