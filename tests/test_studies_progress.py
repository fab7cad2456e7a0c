"""Progress of a study on a console, and the estimate of the remaining time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from paretorch.studies.progress import ConsoleProgress, RemainingTime, duration
from studies_progress import fake_jobs


def test_remaining_time_is_epochs_times_seconds_per_epoch(tmp_path: Path) -> None:
    a, b, c = fake_jobs(tmp_path, epochs=10)
    estimate = RemainingTime([a, b, c], workers=2)
    assert estimate.seconds is None
    estimate.advance(a, 4, 7.0)  # resumed at 4: no epoch was timed
    assert estimate.seconds is None
    estimate.advance(a, 5, 2.0)
    assert estimate.seconds == pytest.approx((5 + 10 + 10) * 2.0 / 2)
    estimate.advance(b, 0, 1.0)
    estimate.advance(b, 2, 8.0)  # b is slower; c has no timed epoch and uses the mean
    assert estimate.seconds == pytest.approx((5 * 2.0 + 8 * 4.0 + 10 * 10 / 3) / 2)
    estimate.finish(c)
    assert estimate.seconds == pytest.approx((5 * 2.0 + 8 * 4.0) / 2)


def test_remaining_time_uses_finished_runs_of_a_resumed_study(tmp_path: Path) -> None:
    a, b = fake_jobs(tmp_path, ("A", "B"))
    a.folder.mkdir()
    history = [{"seconds": {"training": 3.5, "evaluation": 0.5, "loading": 1.0}}] * a.run.epochs
    (a.folder / "result.json").write_text(json.dumps({"history": history}))
    text = io.StringIO()
    ConsoleProgress(Console(file=text, width=60)).start([b], 2, 1, finished=[a])
    assert text.getvalue() == "2 runs, 1 of them finished before; 1 at a time; expected time: 12 s\n"


def test_console_progress_prints_lines_without_a_terminal(tmp_path: Path) -> None:
    text = io.StringIO()
    display = ConsoleProgress(Console(file=text, width=60))
    a, b = fake_jobs(tmp_path, ("A", "B"))
    display.start([a, b], 3, 1)
    display.advance(a, 0, 0.5)
    display.advance(a, 1, 2.0)
    display.finish(a, None)
    display.finish(b, "ValueError: [red]nan")
    display.close()
    assert text.getvalue().splitlines() == [
        "3 runs, 1 of them finished before; 1 at a time; the time they take is measured on the first run",
        "expected time: 10 s",
        "[1/2] A, seed 0; 6 s left",
        f"failed: B, seed 1: ValueError: [red]nan (traceback in {tmp_path / 'B' / 'failed.json'})",
    ]


def test_console_progress_shows_a_bar_per_running_run_in_a_terminal(tmp_path: Path) -> None:
    text = io.StringIO()
    display = ConsoleProgress(Console(file=text, width=100, force_terminal=True))
    a, b = fake_jobs(tmp_path, ("A", "B"))
    display.start([a, b], 2, 2)
    display.advance(a, 0, 0.0)
    display.advance(b, 0, 0.0)
    display.advance(a, 1, 60.0)
    assert display.bars is not None
    rows = [(task.description, task.completed, task.total) for task in display.bars._bars.tasks]
    assert rows == [("all runs", 0, 2), ("A, seed 0", 1, 3), ("B, seed 1", 0, 3)]
    display.finish(a, None)
    assert [task.description for task in display.bars._bars.tasks] == ["all runs", "B, seed 1"]
    display.close()
    assert "expected time: 2 min 30 s" in text.getvalue()


def test_duration_has_its_two_largest_units() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 60, 3661)] == ["0 s", "59 s", "1 min 0 s", "1 h 1 min"]
