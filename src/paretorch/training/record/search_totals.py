"""Totals of a line search over the steps of an epoch."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from paretorch.linesearch import Step


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
        self.steps = 0
        self.outcomes: Counter[str] = Counter()
        self.logarithms: list[float] = []  # of the accepted steps
        self.trials = self.first = self.fallbacks = self.verified = self.raised = 0
        self.bound = math.nan
        self.predicted: dict[str, list[float]] = {}
        self.actual: dict[str, list[float]] = {}
        self.lowered: list[dict[str, Any]] = []
        self.refused = ""

    def add(self, step: Step) -> None:
        """Adds one step."""
        self.steps += 1
        self.outcomes[step.outcome.value] += 1
        self.trials += step.trials
        self.first += step.first
        self.fallbacks += bool(step.fallback)
        self.bound = step.bound
        self.refused = self.refused or step.reason
        if step.step > 0:
            self.logarithms.append(math.log(step.step))
        if step.lowered:
            self.add_lowered(step.lowered)
        if step.actual:
            self.verified += 1
            self.raised += any(step.actual[task] > float(step.losses[task]) for task in step.actual)
            for task, loss in step.actual.items():
                self.actual.setdefault(task, []).append(loss)
                self.predicted.setdefault(task, []).append(step.predicted[task])

    def add_lowered(self, reason: str) -> None:
        """Records that the bound was lowered after the latest step."""
        self.lowered.append({"step": self.steps, "reason": reason})

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
        if not self.steps:
            return {}
        accepted = self.logarithms
        numbers: dict[str, Any] = {
            "outcomes": dict(self.outcomes),
            "step": math.exp(math.fsum(accepted) / len(accepted)) if accepted else math.nan,
            "bound": self.bound,
            "trials": self.trials / self.steps,
            "first": self.first,
            "fallbacks": self.fallbacks,
            "verified": self.verified,
            "raised": self.raised,
        }
        optional = {
            "predicted": _means(self.predicted),
            "actual": _means(self.actual),
            "lowered": list(self.lowered),
            "refused": self.refused,
        }
        return numbers | {name: value for name, value in optional.items() if value}


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {task: math.fsum(losses) / len(losses) for task, losses in values.items()}
