"""The table of advice: conditions on a measurement, and what follows from each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from paretorch.balance.static_weights import UNLIKE
from paretorch.core.arrays import Mask
from paretorch.core.method.default import DEFAULT_NAME
from paretorch.diagnosis.numbers import short
from paretorch.diagnosis.results import Advice, Measurement, Trials

RECOMMENDED = DEFAULT_NAME  # the name of a method in paretorch.balance, with its defaults

CONFLICT = -0.2  # cosine below which the whole interval must be for a conflict
RAISED = 0.1  # share of steps along the sum that increase a loss from which on a method is recommended
MANY_TASKS = 20
ALIKE_WEIGHTS = 0.9  # cosine between the updates of two sets of weights from which on the cheaper set suffices

NO_CONFLICT = "no conflict worth treating: use the sum"


@dataclass(frozen=True)
class Findings:
    """What the conditions of the table use.

    Args:
        tasks: (T,) names.
        measured: after the warm-up.
        trials: trial steps after the warm-up.
        weights: by task, at which gradient norms agree.
        own_inputs: whether no two tasks have a sample in common.
        missing: tasks with a loss in every batch, whose gradient is zero in some.
    """

    tasks: tuple[str, ...]
    measured: Measurement
    trials: Trials
    weights: Mapping[str, float]
    own_inputs: bool
    missing: tuple[str, ...]

    @property
    def unlike(self) -> bool:
        """Whether gradient norms differ so much that the plain sum trains the largest alone."""
        return self.measured.ratio >= UNLIKE

    @property
    def conflicts(self) -> list[tuple[int, int]]:
        """Pairs of tasks whose cosine is below the limit, its whole interval included."""
        below: Mask = np.triu(self.measured.cosines.high < CONFLICT, 1)
        return [(int(one), int(other)) for one, other in np.argwhere(below)]

    @property
    def conflict(self) -> bool:
        """Whether a pair of tasks conflicts."""
        return bool(self.conflicts)

    @property
    def raised(self) -> bool:
        """Whether steps along the sum often increase the loss of a task."""
        return self.trials.sum.any_task >= RAISED

    @property
    def features_known(self) -> bool:
        """Whether gradients on the features were measured."""
        return self.measured.feature_cosines is not None

    def pairs(self) -> str:
        """The conflicting pairs, the lowest cosine first, with intervals."""
        cosines = self.measured.cosines
        ordered = sorted(self.conflicts, key=lambda pair: cosines.mean[pair])
        named = [
            f"{self.tasks[one]} and {self.tasks[other]} {cosines.mean[one, other]:+.2f} "
            f"[{cosines.low[one, other]:+.2f}, {cosines.high[one, other]:+.2f}]"
            for one, other in ordered[:3]
        ]
        more = f" and {len(ordered) - 3} more pairs" if len(ordered) > 3 else ""
        return ", ".join(named) + more

    def norms(self) -> str:
        """The tasks with the largest and the smallest gradient norm."""
        norms = self.measured.norms
        positive = np.where(norms > 0, norms, np.inf)
        large, small = int(norms.argmax()), int(positive.argmin())
        return (
            f"the gradient of {self.tasks[large]} is {short(self.measured.ratio)} times as long as that of {self.tasks[small]} "
            "on the shared parameters"
        )


@dataclass(frozen=True)
class Row:
    """A row of the table: when it applies, and its three texts."""

    applies: Callable[[Findings], bool]
    condition: str
    recommendation: Callable[[Findings], str]
    reason: Callable[[Findings], str]
    cost: Callable[[Findings], str]


def _weights(found: Findings) -> str:
    return ", ".join(f"{task} {short(weight)}" for task, weight in found.weights.items())


def _raised(found: Findings) -> str:
    trials = found.trials
    return (
        f"a step along the sum increased the loss of a task in {100 * trials.sum.any_task:.0f} % of {trials.steps} trial steps, "
        f"along the sum of scaled losses in {100 * trials.scaled.any_task:.0f} %, and the optimizer's step along that sum in "
        f"{100 * trials.training.any_task:.0f} %"
    )


def _surface(found: Findings) -> str:
    if found.own_inputs or not found.features_known:
        return "Balancer"
    return "Fork"


def _cost(found: Findings) -> str:
    if _surface(found) == "Balancer":
        return f"Balancer: {len(found.tasks)} backwards of the encoder per step"
    return f"Fork: one backward of the encoder per step, as the sum; Balancer: {len(found.tasks)}"


def _use(method: str, found: Findings) -> str:
    tasks = f", tasks={found.tasks!r}" if len(found.tasks) <= 6 else ", tasks=tasks"
    call = f"pt.Fork(pt.{method}(){tasks})" if _surface(found) == "Fork" else f"pt.Balancer(pt.{method}())"
    return f"use {method}: {call}"


def _disagreement(found: Findings) -> float:
    """The lowest cosine between the updates of weights on features and on parameters; nan where it was not measured."""
    cosines = [each.cosine for each in found.measured.predictions.values() if math.isfinite(each.cosine)]
    return min(cosines, default=math.nan)


# The first row that applies is the verdict.
TABLE = (
    Row(
        lambda found: found.unlike and found.conflict,
        "losses of unlike scale, and conflict",
        lambda found: f"scales and directions both matter: {_use(RECOMMENDED, found)}, which is invariant to scale",
        lambda found: f"{found.norms()}; cosines {found.pairs()}; {_raised(found)}",
        _cost,
    ),
    Row(
        lambda found: found.conflict and found.raised,
        "losses of like scale, and conflict",
        lambda found: (
            f"the tasks conflict: {_use(RECOMMENDED, found)}, whose step has the same projection on every task's gradient"
        ),
        lambda found: f"cosines {found.pairs()}; {_raised(found)}",
        _cost,
    ),
    Row(
        lambda found: found.conflict,
        "losses of like scale, and a conflict that the sum does not turn against a task",
        lambda found: (
            "the tasks conflict, yet the sum decreases all losses: use the sum, and `paretorch front` (pt.fit_front) to choose "
            f"the trade-off; {RECOMMENDED} advances every task alike, should one fall behind"
        ),
        lambda found: (
            f"cosines {found.pairs()}; {_raised(found)}. The sum of two gradients of equal length decreases both losses, "
            "whatever their angle"
        ),
        _cost,
    ),
    Row(
        lambda found: found.unlike,
        "losses of unlike scale, no conflict",
        lambda found: f"{NO_CONFLICT}, scale the losses",
        lambda found: f"{found.norms()}; {_raised(found)}",
        lambda found: "none",
    ),
    Row(
        lambda found: True,
        "losses of like scale, no conflict",
        lambda found: NO_CONFLICT,
        lambda found: f"gradient norms differ by a factor of {short(found.measured.ratio)}; {_raised(found)}",
        lambda found: "none",
    ),
)
FURTHER = (
    Row(
        lambda found: found.unlike,
        "losses of unlike scale",
        lambda found: (
            f"multiply the losses by {_weights(found)}; or {_use(RECOMMENDED, found)}, which scales in every step"
        ),
        lambda found: (
            "at these weights the gradient norms on the shared parameters agree, now; they change during training"
        ),
        lambda found: f"constant weights: none. {_cost(found)}",
    ),
    Row(
        lambda found: found.own_inputs,
        "tasks with inputs of their own",
        lambda found: "compare gradients on the parameters: pt.Balancer, not pt.Fork",
        lambda found: "gradients on the features of different samples have no inner product",
        lambda found: f"{len(found.tasks)} backwards of the encoder per step",
    ),
    Row(
        lambda found: len(found.tasks) > MANY_TASKS and not found.own_inputs,
        f"more than {MANY_TASKS} tasks",
        lambda found: "compare gradients on the features: pt.Fork at the encoder's output",
        lambda found: f"a Balancer takes {len(found.tasks)} backwards of the encoder per step",
        lambda found: "one backward of the encoder per step",
    ),
    Row(
        lambda found: bool(found.missing),
        "missing labels",
        lambda found: "leave a task out of the dict of losses in batches without its labels, or give None",
        lambda found: (
            f"{', '.join(found.missing)} had a loss without a gradient in some batches; a zero that depends on the model counts "
            "as a loss"
        ),
        lambda found: "none",
    ),
    Row(
        lambda found: _disagreement(found) < ALIKE_WEIGHTS and not found.own_inputs and len(found.tasks) <= MANY_TASKS,
        "weights on features differ from those on parameters",
        lambda found: "if a method is used, compare a run of pt.Balancer with one of pt.Fork",
        lambda found: f"the updates with both weights have a cosine of {_disagreement(found):.2f}",
        lambda found: f"Balancer: {len(found.tasks)} backwards of the encoder per step",
    ),
)


def advise(found: Findings) -> tuple[Advice, ...]:
    """The rows that apply: the verdict, then further advice."""
    verdict = next(row for row in TABLE if row.applies(found))
    return tuple(
        Advice(row.condition, row.recommendation(found), row.reason(found), row.cost(found))
        for row in (verdict, *(row for row in FURTHER if row.applies(found)))
    )
