"""Options of a run that trains a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from paretorch.core.option_checks import check_choice
from paretorch.pareto.models.ensemble import EXECUTIONS
from paretorch.pareto.preferences import checked_preferences, preferences
from paretorch.training.names.constructors import check_arguments
from paretorch.training.run import Run

MOST_MODELS = 10_000


@dataclass(frozen=True)
class FrontOptions:
    """The options of a run that trains a front.

    Args:
        models: N, 2 to 10,000; None: 10, or the number of preferences.
        preferences: (N, T) rows on the simplex; None: evenly spaced.
        margin: the share, in [0, 1), of evenly spaced preferences that is distributed equally over all tasks: T times the
            ``margin`` of :func:`~paretorch.preferences`, which is the least weight of a task. Unused if ``preferences`` are
            given.
        starts: ``"common"`` or ``"independent"``.
        execution: ``"auto"`` (by a rule), ``"measured"``, ``"loop"``, ``"vmap"``, ``"vmap encoder"`` or
            ``"vmap heads"``. Without effect on
            algorithms that do not train one model per preference, so that the treatments of a study may have equal options.
        reference: (T,) reference point of the hypervolume; None: that of the workload, or the losses of an untrained model.

    Raises:
        ValueError: an option is out of its range, or the number of models and preferences differ.
    """

    models: int | None = None
    preferences: Sequence[Sequence[float]] | None = None
    margin: float = 0.1
    starts: str = "common"
    execution: str = "auto"
    reference: Sequence[float] | None = None

    def __post_init__(self) -> None:
        count = self.models if self.preferences is None else len(self.preferences)
        if count is not None and count > MOST_MODELS:
            raise ValueError(f"a front has at most {MOST_MODELS:,} models, got {count:,}")
        if count is not None and count < 2:
            raise ValueError(f"a front has at least 2 models, got {count}: `paretorch train` trains a single one")
        if self.models is not None and count != self.models:
            raise ValueError(
                f"{count} preferences are for {count} models, got models={self.models}: leave `models` out"
            )
        check_choice("starts", self.starts, ("common", "independent"))
        check_choice("execution", self.execution, EXECUTIONS)
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin is a share, 0 <= margin < 1, got {self.margin}")

    def rows(self, tasks: tuple[str, ...]) -> Tensor:
        """(N, T) preferences."""
        if self.preferences is not None:
            return checked_preferences([list(row) for row in self.preferences], tasks)
        return preferences(len(tasks), self.models or 10, margin=self.margin / len(tasks))


def options_of(run: Run) -> FrontOptions:
    """The options of the front that a run trains.

    Raises:
        ValueError: one is not known or out of its range.
    """
    found = FrontOptions(**check_arguments("a front", FrontOptions, (), run.front_options))
    if found.execution == "measured" and run.deterministic:
        raise ValueError(
            "execution 'measured' depends on times, and the run is deterministic: give 'auto', which chooses by a rule"
        )
    return found
