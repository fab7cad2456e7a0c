"""The trackers with the real packages: what they wrote is read back. Each test needs its package."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from paretorch.training.loop import train
from paretorch.training.record.result import Result
from paretorch.training.run import Run
from paretorch.training.tracking.contract import Tracking, TrackingWarning
from training_runs import TINY, stop_after

# warnings of these packages about their own dependencies are no errors of a test
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error::paretorch.training.tracking.contract.TrackingWarning"),
]
RUN = Run(TINY, method="IMTLG()", epochs=3, batch_size=20, optimizer_options={"lr": 0.03})


@pytest.fixture(autouse=True)
def without_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, server or configuration of whoever runs the tests."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def interrupted_and_resumed(folder: Path, tracking: Tracking) -> Result:
    """Trains a run that is interrupted after its second epoch, which has no checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        train(RUN, folder, progress=stop_after(2, of=RUN.epochs), checkpoint_every=3, tracking=tracking)
    return train(RUN, folder, progress=None, tracking=tracking)


def test_tensorboard_reads_every_epoch_and_step_of_a_resumed_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = interrupted_and_resumed(tmp_path / "run", Tracking(("tensorboard",)))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    losses = events.Scalars("epoch/losses/sign")
    assert [point.step for point in losses] == [1, 2, 3]
    assert [point.value for point in losses] == pytest.approx([epoch.losses["sign"] for epoch in result.history])
    assert events.Scalars("epoch/test/losses/size")[0].value == pytest.approx(result.test.losses["size"])
    steps = [point.step for point in events.Scalars("step/weights/sign")]
    assert steps == sorted(set(steps))
    assert len(steps) == 9
    assert "optimizer_options/lr" in str(events.Tensors("run/text_summary")[0].tensor_proto.string_val)


def test_mlflow_reads_parameters_and_every_epoch_of_a_resumed_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient

    tracking = Tracking(("mlflow",), folder=str(tmp_path), group="mine")
    result = interrupted_and_resumed(tmp_path / "a run", tracking)
    train(Run.from_json(RUN.to_json() | {"seed": 8}), tmp_path / "another", progress=None, tracking=tracking)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"a run", "another"}
    run = runs["a run"]
    assert (run.info.status, run.data.params["optimizer_options/lr"]) == ("FINISHED", "0.03")
    losses = client.get_metric_history(run.info.run_id, "epoch/losses/size")
    assert [(point.step, point.value) for point in losses] == [
        (epoch.epoch, epoch.losses["size"]) for epoch in result.history
    ]
    assert len(client.get_metric_history(run.info.run_id, "step/weights/sign")) == 9


def test_mlflow_server_that_cannot_be_reached_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(TrackingWarning, match="the tracker mlflow failed"):
        result = train(RUN, tmp_path, progress=None, tracking=Tracking(("mlflow",)))
    assert result.history[-1].epoch == RUN.epochs


def test_wandb_without_a_key_writes_offline_runs_of_one_identifier(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    interrupted_and_resumed(tmp_path / "run", Tracking(("wandb",)))
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    identifier = json.loads((tmp_path / "run" / "tracking.json").read_text())["trackers"]["wandb"]["identifier"]
    assert len(folders) == 2
    for folder in folders:
        (file,) = folder.glob("*.wandb")
        assert file.name == f"run-{identifier}.wandb"
        for _ in range(300):  # the package's own process writes
            if file.stat().st_size > 500:
                break
            time.sleep(0.1)
        assert file.stat().st_size > 500
