"""Progress of a study on a console, and the estimate of the remaining time."""

from __future__ import annotations

import heapq
import io
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from paretorch.studies.job import Job
from paretorch.studies.progress import ConsoleProgress, duration
from paretorch.studies.remaining_time import RemainingTime
from paretorch.training.run import Plain, Run
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
    assert estimate.seconds == pytest.approx((5 * 2.0 + 8 * 4.0 + 10 * 3.0) / 2)
    estimate.finish(c)
    assert estimate.seconds == pytest.approx(8 * 4.0)  # of b, which no second worker shortens


def unlike_jobs(root: Path, rng: random.Random) -> list[tuple[Job, float]]:
    """The jobs of a tuned study with their true seconds per epoch: trials first, of the single tasks before all others."""
    workloads = [
        (f"w{place}", rng.uniform(0.02, 4.0), rng.choice((3, 4)), rng.choice((4, 15, 25))) for place in range(4)
    ]
    found = []
    for trial in range(6):  # three trials, then three seeds
        for kind in ("single", "features", "parameters"):
            for name, seconds, count, epochs in workloads:
                tasks = [f"t{place}" for place in range(count)]
                base = Run(name, epochs=epochs, seed=trial)
                if kind == "single":
                    runs = [(replace(base, tasks=(task,)), 1.0) for task in tasks]
                else:
                    factor = 1.0 if kind == "features" else (1 + 2 * count) / 3
                    methods = ("MGDA()", "UPGrad()", "PCGrad()", "CAGrad()", "IMTLG()")
                    draw = random.Random(f"{name}{kind}{count}")
                    made = [replace(base, method=method, surface=kind) for method in methods]
                    runs = [(run, factor * draw.uniform(0.8, 1.6)) for run in made]
                for run, cost in runs:
                    label = "single task" if run.tasks else f"{run.method} {kind}"
                    job = Job(label, run, root / run.key, trial=trial + 1 if trial < 3 else None)
                    found.append((job, cost * seconds))
    first = [pair for pair in found if pair[0].trial and pair[0].label == "single task"]
    return [*first, *(pair for pair in found if pair not in first)]


def simulated_ratios(jobs: list[tuple[Job, float]], workers: int, rng: random.Random) -> list[tuple[float, float]]:
    """The share of the time that has passed and the estimate relative to the time left, whenever a run has ended."""
    estimate = RemainingTime([job for job, _ in jobs], workers)
    queue, now = list(jobs), 0.0
    records: list[tuple[float, float | None]] = []
    pending: list[tuple[float, int, Job, float, int, float]] = []
    order = itertools.count()

    def start() -> None:
        if queue:
            job, rate = queue.pop(0)
            setup = 0.3 + rng.random()
            heapq.heappush(pending, (now + setup, next(order), job, rate, 0, setup))

    for _ in range(workers):
        start()
    while pending:
        now, _, job, rate, done, passed = heapq.heappop(pending)
        if done > job.run.epochs:
            estimate.finish(job, passed)
            records.append((now, estimate.seconds))
            start()
            continue
        estimate.advance(job, done, passed)
        step = 0.2 + 0.2 * rng.random() if done == job.run.epochs else rate * rng.uniform(0.8, 1.3)
        heapq.heappush(pending, (now + step, next(order), job, rate, done + 1, step))
    return [(at / now, seconds / (now - at)) for at, seconds in records if seconds is not None and at < now]


@pytest.mark.parametrize("seed", range(8))
def test_remaining_time_of_runs_of_unlike_cost_is_within_a_factor_of_two(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    ratios = simulated_ratios(unlike_jobs(tmp_path, rng), 2, rng)
    assert len(ratios) > 100
    later = [ratio for share, ratio in ratios if 0.1 <= share <= 0.98]
    assert min(later) > 0.5
    assert max(later) < 2


def test_progress_of_several_workloads_names_the_workload(tmp_path: Path) -> None:
    text = io.StringIO()
    display = ConsoleProgress(Console(file=text, width=80))
    tables: list[dict[str, Plain]] = [{"table": "iris", "header": True}, {"table": "wine", "header": True}]
    runs = [Run("scenes"), *(Run("tabular", options) for options in tables)]
    jobs = [Job("sum", run, tmp_path / run.key) for run in runs]
    display.start(jobs, 3, 1)
    for job in jobs:
        display.finish(job, None)
    assert text.getvalue().splitlines()[1:] == [
        "[1/3] scenes: sum, seed 0",
        "[2/3] tabular(table='iris'): sum, seed 0",
        "[3/3] tabular(table='wine'): sum, seed 0",
    ]


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
    assert "expected time: 3 min 0 s" in text.getvalue()


def test_duration_has_its_two_largest_units() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 60, 3661)] == ["0 s", "59 s", "1 min 0 s", "1 h 1 min"]
