"""The runner: every run is trained once, for any number of workers, with failures, crashes and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from interrupts import restore_interrupts
from paretorch.studies.runner import train_jobs
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs

HERE = Path(__file__).parent


pytestmark = pytest.mark.usefixtures("tests_on_worker_path")


def results(root: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted(root.glob("*/result.json"))}


def train_fake(
    root: Path, methods: Sequence[str] = ("A", "B", "C"), workers: int = 1, epochs: int = 3
) -> RecordedProgress:
    progress = RecordedProgress()
    train_jobs(fake_jobs(root, methods, epochs), progress, workers=workers, logs=root / "logs", train=FAKE_TRAIN)
    assert not progress.added, "only a tuned study adds jobs"
    return progress


def test_runner_results_are_independent_of_the_number_of_workers(tmp_path: Path) -> None:
    one = train_fake(tmp_path / "one", workers=1)
    two = train_fake(tmp_path / "two", workers=2)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert len(results(tmp_path / "one")) == 3
    assert json.loads(results(tmp_path / "two")["A"])["threads"] == 1
    assert (one.started, two.started) == ((3, 3, 1), (3, 3, 2))
    assert [step for step in two.steps if step[0] == "C"] == [("C", 0), ("C", 1), ("C", 2), ("C", 3)]
    assert one.closed
    assert not (tmp_path / "one" / "logs").exists(), "an empty log remains"
    assert len({(tmp_path / "one" / name / "started.txt").read_text() for name in "ABC"}) == 1, "more than one process"


def test_runner_skips_finished_runs(tmp_path: Path) -> None:
    train_fake(tmp_path, methods=("A",))
    progress = train_fake(tmp_path, methods=("A", "B"))
    assert progress.started == (1, 2, 1)
    assert len((tmp_path / "A" / "started.txt").read_text().split()) == 1, "the finished run was trained again"
    assert train_fake(tmp_path, methods=("A", "B")).started == (0, 2, 1)


def test_runner_records_a_run_that_raises_and_trains_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = train_fake(tmp_path, methods=("Raise", "A"))
    assert progress.errors == {"Raise": "ValueError: the loss of task 'a' is nan", "A": None}
    record = json.loads((tmp_path / "Raise" / "failed.json").read_text())
    assert record["run"]["method"] == "Raise"
    assert "_interfere" in record["traceback"]
    assert set(results(tmp_path)) == {"A"}
    monkeypatch.setenv("FAKE_CURED", "1")
    assert train_fake(tmp_path, methods=("Raise", "A")).errors == {"Raise": None}
    assert not (tmp_path / "Raise" / "failed.json").exists(), "a run that succeeded still counts as failed"


def test_runner_loses_one_run_per_crash_and_ignores_printed_events(tmp_path: Path) -> None:
    progress = train_fake(tmp_path, methods=("Die", "Print"), workers=1)
    assert progress.errors == {"Die": "its process ended with code 9", "Print": None}
    assert json.loads((tmp_path / "Die" / "failed.json").read_text())["run"]["method"] == "Die"
    assert progress.steps[-1] == ("Print", 3)
    assert '{"event": "finished"}' in (tmp_path / "logs" / "worker-1.txt").read_text()


def test_runner_reports_why_a_worker_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"could not start.*(\n.*)+no_such_module"):
        train_jobs(
            fake_jobs(tmp_path), RecordedProgress(), workers=2, logs=tmp_path / "logs", train="no_such_module:train"
        )


def test_runner_refuses_zero_workers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 job at a time, got 0"):
        train_fake(tmp_path, workers=0)


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs
from paretorch.studies.runner import train_jobs
jobs = fake_jobs(Path({root!r}), ("Slow", "A"), 8)
train_jobs(jobs, RecordedProgress(), workers=2, logs=Path({root!r}) / "logs", train=FAKE_TRAIN)
"""


def test_worker_imports_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "torch", "numpy", "typing", "paretorch", "sitecustomize", "safetensors"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(here)
    progress = train_fake(tmp_path / "study", workers=2)
    assert not (tmp_path / "imported").exists()
    assert progress.errors == {"A": None, "B": None, "C": None}
    assert set(results(tmp_path / "study")) == {"A", "B", "C"}


def test_runner_stops_workers_on_ctrl_c_and_leaves_complete_files(tmp_path: Path) -> None:
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
    progress = train_fake(tmp_path / "cut", methods=("Slow", "A"), epochs=8)
    assert ("Slow", 0) not in progress.steps, "the interrupted run was restarted"
    train_fake(tmp_path / "whole", methods=("Slow", "A"), epochs=8)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_worker_ends_when_the_runner_is_killed(tmp_path: Path) -> None:
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
