"""Runs in Weights & Biases: offline, in ``wandb`` below the folder of the run or study, where there is no API key."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from paretorch.extras import extra
from paretorch.training.tracking.contract import TrackedRun


class WandbTracker:
    """A :class:`~paretorch.training.tracking.contract.Tracker`; the project is the study, or the workload.

    ``wandb sync`` uploads offline runs. A resumed run has the identifier of the earlier one, to which it is then appended.
    """

    def __init__(self, run: TrackedRun) -> None:
        with extra("tracking"):
            import wandb
        store = run.store / "wandb"
        store.mkdir(parents=True, exist_ok=True)
        offline = None if "WANDB_MODE" in os.environ or wandb.api.api_key else "offline"
        self.identifier = run.earlier or uuid.uuid4().hex
        self.run = wandb.init(
            project=run.group,
            name=run.name,
            id=self.identifier,
            resume=None if offline else "allow",
            config=dict(run.parameters),
            dir=str(run.store),
            mode=offline,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, init_timeout=30),
        )
        for axis in ("step", "epoch"):
            self.run.define_metric(f"{axis}/*", step_metric=axis)

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        """Adds a point to the curve of each number."""
        self.run.log({axis: position} | {f"{axis}/{name}": value for name, value in numbers.items()})

    def close(self, finished: bool) -> None:
        """Waits until all numbers are written or uploaded."""
        self.run.finish(exit_code=0 if finished else 1)
