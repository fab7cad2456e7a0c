"""The numbers of a front as ``front.json`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrontSnapshot:
    """The state of a front at an evaluation during training.

    Args:
        epoch: completed epochs.
        gradients: gradient evaluations so far, of all members; loss evaluations of an algorithm without gradients (NSGA2).
        seconds: wall-clock time of training so far.
        losses: (N, T) on validation data.
        hypervolume: relative to the front's reference point; nan without one.
    """

    epoch: int
    gradients: int
    seconds: float
    losses: tuple[tuple[float, ...], ...]
    hypervolume: float


@dataclass(frozen=True)
class StoredFront:
    """The content of ``front.json``; see :class:`~paretorch.pareto.Front`."""

    tasks: tuple[str, ...]
    preferences: tuple[tuple[float, ...], ...]
    losses: tuple[tuple[float, ...], ...]
    metrics: tuple[Mapping[str, Mapping[str, float]], ...]
    diverged: tuple[int, ...]
    reference: tuple[float, ...] | None
    history: tuple[FrontSnapshot, ...]
    facts: Mapping[str, Any]
    sha256: tuple[str, ...]  # of the file of each model

    def check(self) -> None:
        """Checks the numbers of models and tasks.

        Raises:
            ValueError: a list has another length.
        """
        models = len(self.sha256)
        if models < 1:
            raise ValueError("it has no model")
        rows = [("losses", self.losses), ("preferences", self.preferences)]
        for name, found in rows:
            if len(found) != models or any(len(row) != len(self.tasks) for row in found):
                raise ValueError(f"its {name} are not {len(self.tasks)} numbers for each of {models} models")
        if len(self.metrics) not in (0, models):
            raise ValueError(f"its metrics are not those of {models} models")
        if self.reference is not None and len(self.reference) != len(self.tasks):
            raise ValueError(f"its reference has not {len(self.tasks)} numbers")
        if not set(self.diverged) <= set(range(models)):
            raise ValueError(f"it lists the diverged models {list(self.diverged)} of {models}")
