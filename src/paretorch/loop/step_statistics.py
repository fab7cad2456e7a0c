"""Statistics of training steps and their totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paretorch.loop.means import ExactMean


@dataclass(frozen=True)
class StepStatistics:
    """Numbers on the host that a step reports in addition to its losses.

    Args:
        counts: by name; they are added up over the steps.
        values: by name; they are averaged over the steps, of which each reports none, one or several.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)


class StatisticsTotals:
    """Counts and values of all steps.

    Example:
        >>> totals = StatisticsTotals()
        >>> totals.add(StepStatistics({"trials": 1}, {"step": [1.0]}))
        >>> totals.add(StepStatistics({"trials": 3}, {"step": [0.5]}))
        >>> totals.counts["trials"], totals.means()
        (4, {'step': 0.75})
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.values: dict[str, ExactMean] = {}

    def add(self, statistics: StepStatistics) -> None:
        """Adds one step."""
        for name, count in statistics.counts.items():
            self.counts[name] += count
        for name, values in statistics.values.items():
            mean = self.values.setdefault(name, ExactMean())
            for value in values:
                mean.add(value)

    def means(self) -> dict[str, float]:
        """The means by name, correctly rounded sums over numbers of values; without names that have no value."""
        return {name: mean.read() for name, mean in self.values.items() if mean.count}

    def state(self) -> dict[str, Any]:
        """The counts, and the numbers and sums of values, by name, for :meth:`load`; no count has the name of a value."""
        sums = {name: {"count": mean.count, "parts": list(mean.parts)} for name, mean in self.values.items()}
        return {**self.counts, **sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores a state. A list of all values, as earlier versions saved, is added up."""
        self.counts = Counter({name: count for name, count in state.items() if isinstance(count, int)})
        self.values = {name: _loaded(saved) for name, saved in state.items() if name not in self.counts}


def _loaded(saved: Mapping[str, Any] | Sequence[float]) -> ExactMean:
    if isinstance(saved, Mapping):
        return ExactMean(saved["count"], saved["parts"])
    mean = ExactMean()
    for value in saved:
        mean.add(value)
    return mean
