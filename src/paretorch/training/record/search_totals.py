"""Totals of a line search over the steps of an epoch."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from paretorch.linesearch import Step
from paretorch.loop.step_statistics import StatisticsTotals, StepStatistics


class SearchTotals:
    """Outcomes, accepted steps, trials, verified losses and lowered bounds; all numbers are on the host.

    Example:
        >>> from paretorch.linesearch import SearchOutcome
        >>> totals = SearchTotals()
        >>> for step, trials in ((1.0, 1), (0.25, 3)):
        ...     totals.add(Step(SearchOutcome.ACCEPTED, step, 1.0, trials, trials == 1, {}))
        >>> numbers = totals.read()
        >>> numbers["outcomes"], numbers["step"], numbers["trials"], numbers["first"]
        ({'accepted': 2}, 0.5, 2.0, 1)
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.statistics = StatisticsTotals()
        self.predicted = StatisticsTotals()  # losses by task
        self.actual = StatisticsTotals()
        self.bound = math.nan
        self.lowered: list[dict[str, Any]] = []
        self.refused = ""

    def add(self, step: Step) -> None:
        """Adds one step."""
        self.outcomes[step.outcome.value] += 1
        self.bound = step.bound
        self.refused = self.refused or step.reason
        if step.lowered:
            self.add_lowered(step.lowered)
        counts = {
            "trials": step.trials,
            "first": int(step.first),
            "fallbacks": int(bool(step.fallback)),
            "verified": int(bool(step.actual)),
            "raised": int(any(loss > float(step.losses[task]) for task, loss in step.actual.items())),
        }
        self.statistics.add(StepStatistics(counts, {"logarithm": [math.log(step.step)] if step.step > 0 else []}))
        self.predicted.add(StepStatistics(values={task: [step.predicted[task]] for task in step.actual}))
        self.actual.add(StepStatistics(values={task: [loss] for task, loss in step.actual.items()}))

    def add_lowered(self, reason: str) -> None:
        """Records that the bound was lowered after the latest step."""
        self.lowered.append({"step": self.outcomes.total(), "reason": reason})

    def read(self) -> dict[str, Any]:
        """The totals of the epoch; empty without a line search.

        Returns:
            ``outcomes``: steps by :class:`~paretorch.linesearch.SearchOutcome`; ``step``: the geometric mean of the accepted
            ones; ``bound``: the upper bound of the last step; ``trials``: mean per step; ``first``: steps accepted
            at the first trial; ``fallbacks``: steps along the common descent direction instead of the requested one;
            ``lowered``: after which step of the epoch, from 1, the bound was lowered, and the reason; ``refused``: the
            reason of the first step that did not move the parameters. Of the ``verified`` steps: how many ``raised`` a task's
            loss on their own batch, and the mean ``predicted`` and ``actual`` losses by task.
        """
        if not self.outcomes:
            return {}
        counts = self.statistics.counts
        numbers: dict[str, Any] = {
            "outcomes": dict(self.outcomes),
            "step": math.exp(self.statistics.means().get("logarithm", math.nan)),
            "bound": self.bound,
            "trials": counts["trials"] / self.outcomes.total(),
            **{name: counts[name] for name in ("first", "fallbacks", "verified", "raised")},
        }
        optional = {
            "predicted": self.predicted.means(),
            "actual": self.actual.means(),
            "lowered": list(self.lowered),
            "refused": self.refused,
        }
        return numbers | {name: value for name, value in optional.items() if value}
