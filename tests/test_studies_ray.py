"""Ray tasks: results of a study are those of local processes, also where a worker is killed. The tests need Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from interrupts import restore_interrupts
from paretorch.studies.folder import open_folder
from paretorch.studies.job import Job
from paretorch.studies.launching.ray_cluster import RETRIES, RayCluster
from paretorch.studies.runner import train_jobs, train_study
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs
from studies_ray_training import PROCESSES, last_process
from studies_tuned import study as tuned_study
from training_runs import TINY

HERE = Path(__file__).parent
TRAIN = "studies_ray_training:train"

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of two CPUs in this process; a running one where RAY_ADDRESS names it."""
    os.environ[PROCESSES] = str(tmp_path_factory.mktemp("processes"))
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path} | {name: os.environ[name] for name in ("XDG_CONFIG_HOME", PROCESSES)}
    options: dict[str, Any] = {"runtime_env": {"env_vars": variables}, "log_to_driver": False, "logging_level": "ERROR"}
    if "RAY_ADDRESS" not in os.environ:
        options |= {"address": "local", "num_cpus": 2, "include_dashboard": False, "object_store_memory": 100_000_000}
    ray.init(**options)
    yield
    ray.shutdown()


def train(
    root: Path, jobs: Sequence[Job], launcher: RayCluster, train: str = FAKE_TRAIN, workers: int | None = 2
) -> RecordedProgress:
    progress = RecordedProgress()
    train_jobs(jobs, progress, workers=workers, logs=root / "logs", train=train, launcher=launcher)
    return progress


def results(root: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted(root.glob("*/result.json"))}


def test_ray_results_equal_those_of_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    train_jobs(
        fake_jobs(tmp_path / "local"), RecordedProgress(), workers=1, logs=tmp_path / "local/logs", train=FAKE_TRAIN
    )
    progress = train(tmp_path / "ray", fake_jobs(tmp_path / "ray"), RayCluster(), workers=None)
    assert progress.started == (3, 3, 2)
    assert [step for step in progress.steps if step[0] == "C"] == [("C", 0), ("C", 1), ("C", 2), ("C", 3)]
    assert progress.closed
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(results(tmp_path / "ray")) == 3


class KillingProgress(RecordedProgress):
    """Kills the process that trains when some epochs of all runs have been trained."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left, self.killed = after, 0

    def advance(self, job: Job, epochs: int, seconds: float) -> None:
        super().advance(job, epochs, seconds)
        self.left -= 1
        if self.left == 0:
            self.killed = last_process(job.folder)
            os.kill(self.killed, signal.SIGKILL)


def tiny_jobs(root: Path, number: int) -> list[Job]:
    methods = ("Equal()", "IMTLG()")
    runs = [Run(TINY, method=methods[seed % 2], epochs=6, batch_size=20, seed=seed) for seed in range(number)]
    return [Job(run.method, run, root / f"run-{run.seed}") for run in runs]


def numbers(job: Job) -> tuple[Any, ...]:
    """Everything that a run computed."""
    result = Result.load(job.folder)
    return result.test, [(epoch.losses, epoch.validation, epoch.weights) for epoch in result.history]


@pytest.mark.parametrize("shared", [True, False], ids=["shared-folder", "storage"])
def test_ray_study_that_loses_a_worker_has_the_results_of_local_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    number = 20 if shared else 4
    local, remote = tiny_jobs(tmp_path / "local", number), tiny_jobs(tmp_path / "ray", number)
    train_jobs(local, RecordedProgress(), workers=2, logs=tmp_path / "local" / "logs", train=TRAIN)
    progress = KillingProgress(after=9 if shared else 10)
    launcher = RayCluster(storage="" if shared else f"file://{tmp_path / 'storage'}")
    failed = train_jobs(remote, progress, workers=2, logs=tmp_path / "ray" / "logs", train=TRAIN, launcher=launcher)
    assert failed == []
    assert progress.killed
    assert len(progress.notes) == 1
    assert "its worker was lost, and the run continues on another one" in progress.notes[0]
    assert [numbers(job) for job in remote] == [numbers(job) for job in local]
    if not shared:
        assert len(list((tmp_path / "storage").glob("run-*.zip"))) == number


def test_ray_run_that_always_kills_its_worker_fails_after_retries(tmp_path: Path) -> None:
    progress = train(tmp_path, fake_jobs(tmp_path, ("Die", "A")), RayCluster())
    assert progress.errors == {"Die": f"its worker was lost {RETRIES + 1} times", "A": None}
    assert len((tmp_path / "Die" / "started.txt").read_text().split()) == RETRIES + 1
    assert json.loads((tmp_path / "Die" / "failed.json").read_text())["run"]["method"] == "Die"


def test_ray_run_that_raises_is_recorded_and_others_are_trained(tmp_path: Path) -> None:
    progress = train(
        tmp_path, fake_jobs(tmp_path, ("Raise", "A")), RayCluster(storage=f"file://{tmp_path / 'storage'}")
    )
    assert progress.errors == {"Raise": "ValueError: the loss of task 'a' is nan", "A": None}
    assert "_interfere" in json.loads((tmp_path / "Raise" / "failed.json").read_text())["traceback"]
    assert set(results(tmp_path)) == {"A"}


def test_ray_tuned_study_has_the_trials_of_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    study = tuned_study(methods=("Equal()",))
    for name, options in (("local", {}), ("ray", {"launcher": RayCluster()})):
        folder = open_folder(tmp_path / name, study, "smoke", 1, resume=False, tune=2)
        train_study(folder, RecordedProgress(), workers=2, train="studies_tuned:train", **options)  # type: ignore[arg-type]
    tunings = [json.loads((tmp_path / name / "tuning.json").read_text()) for name in ("local", "ray")]
    assert tunings[0] == tunings[1]


def test_ray_refuses_a_study_for_which_no_node_has_the_resources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no node of the Ray cluster has the 64 CPU of a run: add such a node"):
        train(tmp_path, fake_jobs(tmp_path), RayCluster(cpus=64))
    jobs = [Job("gpu", Run("fake", device="cuda"), tmp_path / "gpu")]
    with pytest.raises(ValueError, match=r"has the 1 CPU and 0\.5 GPU of a run"):
        train(tmp_path, jobs, RayCluster(gpus=0.5))


def test_ray_reports_a_training_function_that_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"could not start A, seed 0; every node needs(.*\n)+.*no_such_module"):
        train(tmp_path, fake_jobs(tmp_path, ("A",)), RayCluster(), train="no_such_module:train")


INTERRUPTED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import ray
from studies_progress import FAKE_TRAIN, RecordedProgress, fake_jobs
from paretorch.studies.launching.ray_cluster import RayCluster
from paretorch.studies.runner import train_jobs
ray.init({address!r}, runtime_env={{"env_vars": {{"PYTHONPATH": {path!r}}}}}, log_to_driver=False)
jobs = fake_jobs(Path({root!r}), ("Slow", "A"), 20)
train_jobs(jobs, RecordedProgress(), workers=2, logs=Path({root!r}) / "logs", train=FAKE_TRAIN, launcher=RayCluster())
"""


def test_ray_study_stops_on_ctrl_c_and_resumes(tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    script = INTERRUPTED.format(here=str(HERE), root=str(tmp_path / "cut"), address=address, path=path)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, preexec_fn=restore_interrupts
    )
    checkpoint, deadline = tmp_path / "cut" / "Slow" / "checkpoint.json", time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert errors.strip().endswith("KeyboardInterrupt")
    pid = int((tmp_path / "cut" / "Slow" / "started.txt").read_text())
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "the task continues"
    assert "Slow" not in results(tmp_path / "cut")
    progress = train(tmp_path / "cut", fake_jobs(tmp_path / "cut", ("Slow", "A"), 20), RayCluster())
    assert ("Slow", 0) not in progress.steps, "the interrupted run was restarted"
    assert set(results(tmp_path / "cut")) == {"Slow", "A"}
