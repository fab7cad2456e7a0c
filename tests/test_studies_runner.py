"""The runner: every run once, whatever the number of workers, through failures, crashes and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from interrupts import restore_interrupts
from paretorch.studies.job import Job
from paretorch.studies.progress import ConsoleProgress, RemainingTime, duration
from paretorch.studies.runner import train_jobs
from paretorch.training.run import Run

HERE = Path(__file__).parent
FAKE = "studies_fake_training:train"


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


class Silent:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.started: tuple[int, int, int] = (0, 0, 0)
        self.steps: list[tuple[str, int]] = []
        self.ends: dict[str, str | None] = {}
        self.closed = False

    def start(
        self,
        jobs: Sequence[Job],
        planned: int,
        workers: int,
        placeholders: Sequence[Job] = (),
        finished: Sequence[Job] = (),
    ) -> None:
        self.started = (len(jobs), planned, workers)

    def add_jobs(self, jobs: Sequence[Job], placeholders: Sequence[Job]) -> None:
        assert not jobs, "only a tuned study finds runs as it goes"

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        assert seconds >= 0
        self.steps.append((job.label, epochs))

    def finish(self, job: Job, error: str | None) -> None:
        self.ends[job.label] = error

    def close(self) -> None:
        self.closed = True


def jobs(root: Path, methods: Sequence[str] = ("A", "B", "C"), epochs: int = 3) -> list[Job]:
    runs = [Run("fake", method=method, epochs=epochs, seed=place) for place, method in enumerate(methods)]
    return [Job(run.method, run, root / run.method) for run in runs]


def results(root: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted(root.glob("*/result.json"))}


def work(root: Path, methods: Sequence[str] = ("A", "B", "C"), workers: int = 1, epochs: int = 3) -> Silent:
    watch = Silent()
    train_jobs(jobs(root, methods, epochs), watch, workers=workers, logs=root / "logs", train=FAKE)
    return watch


def test_one_and_two_workers_give_identical_results(tmp_path: Path) -> None:
    one = work(tmp_path / "one", workers=1)
    two = work(tmp_path / "two", workers=2)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert len(results(tmp_path / "one")) == 3
    assert json.loads(results(tmp_path / "two")["A"])["threads"] == 1
    assert (one.started, two.started) == ((3, 3, 1), (3, 3, 2))
    assert [step for step in two.steps if step[0] == "C"] == [("C", 0), ("C", 1), ("C", 2), ("C", 3)]
    assert one.closed
    assert not (tmp_path / "one" / "logs").exists(), "an empty log is left behind"
    assert len({(tmp_path / "one" / name / "started.txt").read_text() for name in "ABC"}) == 1, (
        "not one process for all"
    )


def test_finished_runs_are_skipped(tmp_path: Path) -> None:
    work(tmp_path, methods=("A",))
    watch = work(tmp_path, methods=("A", "B"))
    assert watch.started == (1, 2, 1)
    assert len((tmp_path / "A" / "started.txt").read_text().split()) == 1, "the finished run was trained again"
    assert work(tmp_path, methods=("A", "B")).started == (0, 2, 1)


def test_a_run_that_raises_is_recorded_while_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = work(tmp_path, methods=("Raise", "A"))
    assert watch.ends == {"Raise": "ValueError: the loss of task 'a' is nan", "A": None}
    record = json.loads((tmp_path / "Raise" / "failed.json").read_text())
    assert record["run"]["method"] == "Raise"
    assert "_interfere" in record["traceback"]
    assert set(results(tmp_path)) == {"A"}
    monkeypatch.setenv("FAKE_CURED", "1")
    assert work(tmp_path, methods=("Raise", "A")).ends == {"Raise": None}
    assert not (tmp_path / "Raise" / "failed.json").exists(), "a cured run still counts as failed"


def test_a_process_that_dies_costs_its_run_only_and_what_is_printed_is_no_event(tmp_path: Path) -> None:
    watch = work(tmp_path, methods=("Die", "Print"), workers=1)
    assert watch.ends == {"Die": "its process ended with code 9", "Print": None}
    assert json.loads((tmp_path / "Die" / "failed.json").read_text())["run"]["method"] == "Die"
    assert watch.steps[-1] == ("Print", 3)
    assert '{"event": "finished"}' in (tmp_path / "logs" / "worker-1.txt").read_text()


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"could not start.*(\n.*)+no_such_module"):
        train_jobs(jobs(tmp_path), Silent(), workers=2, logs=tmp_path / "logs", train="no_such_module:train")


def test_no_worker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 job at a time, got 0"):
        work(tmp_path, workers=0)


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_studies_runner import jobs, Silent, FAKE
from paretorch.studies.runner import train_jobs
train_jobs(jobs(Path({root!r}), ("Slow", "A"), 8), Silent(), workers=2, logs=Path({root!r}) / "logs", train=FAKE)
"""


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "torch", "numpy", "typing", "paretorch", "sitecustomize", "safetensors"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(here)
    watch = work(tmp_path / "study", workers=2)
    assert not (tmp_path / "imported").exists()
    assert watch.ends == {"A": None, "B": None, "C": None}
    assert set(results(tmp_path / "study")) == {"A", "B", "C"}


def test_ctrl_c_stops_the_workers_and_leaves_no_half_written_file(tmp_path: Path) -> None:
    script = INTERRUPTED.format(here=str(HERE), root=str(tmp_path / "cut"))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, preexec_fn=restore_interrupts
    )
    checkpoint = tmp_path / "cut" / "Slow" / "checkpoint.json"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.strip().endswith("KeyboardInterrupt")
    pid = int((tmp_path / "cut" / "Slow" / "started.txt").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    for path in (tmp_path / "cut").rglob("*.json"):
        json.loads(path.read_text())
    assert "Slow" not in results(tmp_path / "cut")
    watch = work(tmp_path / "cut", methods=("Slow", "A"), epochs=8)
    assert ("Slow", 0) not in watch.steps, "the interrupted run began anew"
    work(tmp_path / "whole", methods=("Slow", "A"), epochs=8)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_workers_end_with_a_runner_that_was_killed(tmp_path: Path) -> None:
    script = INTERRUPTED.format(here=str(HERE), root=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script])
    started = tmp_path / "Slow" / "started.txt"
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    pid = int(started.read_text())
    gone = False
    while not gone and time.monotonic() < deadline:
        gone = not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        time.sleep(0.05)
    assert gone


def test_estimate_is_epochs_to_go_times_seconds_per_epoch(tmp_path: Path) -> None:
    a, b, c = jobs(tmp_path, epochs=10)
    estimate = RemainingTime([a, b, c], workers=2)
    assert estimate.seconds is None
    estimate.advance(a, 4, 7.0)  # resumed at 4: nothing is known yet
    assert estimate.seconds is None
    estimate.advance(a, 5, 2.0)
    assert estimate.seconds == pytest.approx((5 + 10 + 10) * 2.0 / 2)
    estimate.advance(b, 0, 1.0)
    estimate.advance(b, 2, 8.0)  # b is slower; c is unknown and takes the mean of what was seen
    assert estimate.seconds == pytest.approx((5 * 2.0 + 8 * 4.0 + 10 * 10 / 3) / 2)
    estimate.finish(c)
    assert estimate.seconds == pytest.approx((5 * 2.0 + 8 * 4.0) / 2)


def test_a_resumed_study_knows_from_its_finished_runs_how_long_the_rest_takes(tmp_path: Path) -> None:
    a, b = jobs(tmp_path, ("A", "B"))
    a.folder.mkdir()
    history = [{"seconds": {"training": 3.5, "evaluation": 0.5, "loading": 1.0}}] * a.run.epochs
    (a.folder / "result.json").write_text(json.dumps({"history": history}))
    text = io.StringIO()
    ConsoleProgress(Console(file=text, width=60)).start([b], 2, 1, finished=[a])
    assert text.getvalue() == "2 runs, 1 of them finished before; 1 at a time; expected time: 12 s\n"


def test_display_gives_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    text = io.StringIO()
    display = ConsoleProgress(Console(file=text, width=60))
    a, b = jobs(tmp_path, ("A", "B"))
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


def test_display_in_a_terminal_shows_every_running_run(tmp_path: Path) -> None:
    text = io.StringIO()
    display = ConsoleProgress(Console(file=text, width=100, force_terminal=True))
    a, b = jobs(tmp_path, ("A", "B"))
    display.start([a, b], 2, 2)
    display.advance(a, 0, 0.0)
    display.advance(b, 0, 0.0)
    display.advance(a, 1, 60.0)
    assert display.bars is not None
    rows = [(task.description, task.completed, task.total) for task in display.bars.tasks]
    assert rows == [("all runs", 0, 2), ("A, seed 0", 1, 3), ("B, seed 1", 0, 3)]
    display.finish(a, None)
    assert [task.description for task in display.bars.tasks] == ["all runs", "B, seed 1"]
    display.close()
    assert "expected time: 2 min 30 s" in text.getvalue()


def test_durations_read_as_one_says_them() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 60, 3661)] == ["0 s", "59 s", "1 min 0 s", "1 h 1 min"]
