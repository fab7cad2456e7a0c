"""Runs in MLflow: at ``MLFLOW_TRACKING_URI``, else in the database ``mlflow/mlflow.db`` below the folder of the run or study."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from paretorch.extras import extra
from paretorch.training.tracking.contract import TrackedRun

MOST = 100  # parameters or metrics in one request
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # the run waits meanwhile


class MLflowTracker:
    """A :class:`~paretorch.training.tracking.contract.Tracker`; the experiment is the study, or the workload."""

    def __init__(self, run: TrackedRun) -> None:
        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
        with extra("tracking"):
            from filelock import FileLock
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        self.metric = Metric
        store = (run.store / "mlflow").absolute()
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / ".lock", timeout=60):  # the runs of a study create the database and the experiment once
            self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store / 'mlflow.db'}")
            found = self.client.get_experiment_by_name(run.group)
            artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (store / "artifacts").as_uri()
            experiment = found.experiment_id if found else self.client.create_experiment(run.group, artifacts)
        if run.earlier is not None:
            self.identifier: str = run.earlier
            self.client.update_run(run.earlier, "RUNNING")
            return
        self.identifier = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(_valid(name), str(value)) for name, value in run.parameters.items()]
        for begin in range(0, len(params), MOST):
            self.client.log_batch(self.identifier, params=params[begin : begin + MOST])

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        """Adds a point to the curve of each number."""
        now = time.time_ns() // 1_000_000
        metrics = [self.metric(_valid(f"{axis}/{name}"), value, now, position) for name, value in numbers.items()]
        for begin in range(0, len(metrics), MOST):
            self.client.log_batch(self.identifier, metrics=metrics[begin : begin + MOST])

    def close(self, finished: bool) -> None:
        """Marks the run as finished, or as stopped."""
        self.client.set_terminated(self.identifier, "FINISHED" if finished else "KILLED")


def _valid(name: str) -> str:
    """The name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)
