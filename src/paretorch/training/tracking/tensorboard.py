"""Runs in TensorBoard: event files in the folder ``tensorboard`` of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from paretorch.extras import extra
from paretorch.training.tracking.contract import TrackedRun


class TensorBoardTracker:
    """A :class:`~paretorch.training.tracking.contract.Tracker`; a resumed run adds a file in the same folder."""

    def __init__(self, run: TrackedRun) -> None:
        with extra("tracking"):
            import tensorboard  # noqa: F401 - torch's error does not name the package
            from torch.utils.tensorboard import SummaryWriter
        folder = run.folder / "tensorboard"
        self.identifier = folder.name
        self.writer = SummaryWriter(str(folder))
        if run.earlier is None:
            self.writer.add_text("run", f"```\n{json.dumps(dict(run.parameters), indent=1)}\n```")

    def log(self, axis: str, position: int, numbers: Mapping[str, float]) -> None:
        """Adds a point to the curve of each number."""
        for name, value in numbers.items():
            self.writer.add_scalar(f"{axis}/{name}", value, position)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        """Closes the file."""
        del finished
        self.writer.close()
