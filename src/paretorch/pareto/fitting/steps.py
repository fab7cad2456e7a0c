"""The update of a front's members: gradients, optimizer, transfer, divergence, adaptation of preferences."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import to_host
from paretorch.loop.step_statistics import StepStatistics
from paretorch.pareto.algorithms.contract import FrontAlgorithm, FrontEvidence
from paretorch.pareto.evaluation_history import GRADIENTS, TRANSFERS
from paretorch.pareto.fitting.adapt import PreferenceAdapter
from paretorch.pareto.fitting.exchange import Exchange
from paretorch.pareto.fitting.skipped_steps import DivergedWarning, broken_tasks, warn_skipped
from paretorch.pareto.models.ensemble import Ensemble
from paretorch.pareto.models.members import fill
from paretorch.pareto.models.rank_partition import RankPartition
from paretorch.pareto.objective_range import RangeTracker
from paretorch.pareto.plan import FrontPlan
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import combined_seed

PATIENCE = 3  # failed steps in a row after which a member counts as diverged
EXPLODED = 1e6  # relative to the size of the first losses


@dataclass
class MemberUpdate:
    """The step of all members of a front, and the state that it changes.

    Args:
        algorithm: computes the weights of the task gradients.
        ensemble: the members of this rank.
        optimizer: over the stacked parameters.
        preferences: (N, T); replaced in each step if the algorithm adapts them.
        plan: the arguments of :func:`~paretorch.fit_front`.
        steps: number of steps of the whole training.
        partition: of the N members over ranks.
        adapter: updates the preferences; None: they are constant.
        diverged: (N,) mask of the members that have diverged.
    """

    algorithm: FrontAlgorithm
    ensemble: Ensemble
    optimizer: torch.optim.Optimizer
    preferences: Tensor
    plan: FrontPlan
    steps: int
    partition: RankPartition
    adapter: PreferenceAdapter | None = None
    tasks: tuple[str, ...] = field(init=False)
    reference: Tensor | None = field(init=False)
    diverged: Tensor = field(init=False)
    exchange: Exchange | None = field(init=False)
    tracker: RangeTracker | None = field(init=False)
    _failed: Tensor = field(init=False)
    _last: Tensor = field(init=False)
    _limit: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        count = self.partition.count
        self.tasks, point = self.plan.workload.tasks, self.plan.reference
        self.reference = None if point is None else torch.tensor(point, dtype=torch.float64)
        sharing = self.algorithm.sharing()
        trained, kept = self.ensemble.trained, self.ensemble.kept
        self.exchange = None if sharing is None else Exchange(sharing, trained, kept, self.partition)
        self.diverged = torch.zeros(count, dtype=torch.bool)
        self.tracker = RangeTracker(count, len(self.tasks)) if self.algorithm.normalizes else None
        self._failed = torch.zeros(count, dtype=torch.long)
        self._last = torch.full((count, len(self.tasks)), torch.nan, dtype=torch.float64)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._has_skipped = False  # whether a step was skipped, of which the user was warned

    def step(self, number: int, batch: Batch) -> StepStatistics:
        """One step of all members.

        Args:
            number: index of the step in the training.
            batch: one part per stream.

        Returns:
            Gradient evaluations, which are N, or N T if the algorithm needs the Gramian, and the share of members to which
            parameters were transferred.
        """
        progress = number / self.steps
        factor, seed = self.plan.factor(progress), combined_seed(self.plan.seed, 1, number)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        needs_gramian = self.algorithm.needs_gramian
        statistics = [(value, value.clone()) for value in self.ensemble.statistics]
        found = self.ensemble.gradients(batch, seed, self._weights(progress), needs_gramian)
        losses, weights = map(self.partition.gathered, to_host(found))
        active = self._check_divergence(losses)
        refused = ~self.partition.own(active)
        if bool(refused.any()):
            for value, before in statistics:
                value[refused] = before[refused]
            if not self._has_skipped:
                self._warn_if_not_finite(number, batch, seed, self.partition.own(losses), refused)
        all_tasks = torch.ones(len(self.tasks), dtype=torch.bool)
        span = None if self.tracker is None else self.tracker.range(losses, ~self.diverged, all_tasks)
        if self.exchange is not None:
            self.exchange.update_trust(losses, self.preferences, span)
        transfers = self._update(active, progress, factor)
        self._last = torch.where(losses.isfinite() & active[:, None], losses, self._last)
        if self.tracker is not None:
            self.tracker.add(losses, active)
        if self.adapter is not None:
            ranges = None if span is None else span.nadir - span.ideal
            self.preferences = self.adapter.update(self.preferences, losses, weights, ranges, progress, active)
        evaluations = self.partition.count * (len(self.tasks) if needs_gramian else 1)
        return StepStatistics({GRADIENTS: evaluations}, {TRANSFERS: transfers})

    def state(self) -> dict[str, Any]:
        """All values that determine the following steps, for :meth:`load`."""
        exchange, adapter, tracker = self.exchange, self.adapter, self.tracker
        return {
            "trained": dict(self.ensemble.trained),
            "kept": dict(self.ensemble.kept),
            "execution": (self.ensemble.execution, self.ensemble.why),
            "optimizer": self.optimizer.state_dict(),
            "preferences": self.preferences,
            "health": (self.diverged, self._failed, self._last, self._limit),
            "exchange": None if exchange is None else exchange.state(),
            "adaption": None if adapter is None else (adapter.losses, adapter.shares, adapter.steps),
            "extent": None if tracker is None else (tracker.means, tracker.ideal, tracker.least),
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Restores a state, on the current devices."""
        for values, stored in ((self.ensemble.trained, state["trained"]), (self.ensemble.kept, state["kept"])):
            for name, value in values.items():
                value.copy_(stored[name])
        self.ensemble.execution, self.ensemble.why = state["execution"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.preferences = state["preferences"]
        self.diverged, self._failed, self._last, self._limit = state["health"]
        if self.exchange is not None:
            self.exchange.load(state["exchange"])
        if self.adapter is not None:
            self.adapter.losses, self.adapter.shares, self.adapter.steps = state["adaption"]
        if self.tracker is not None:
            self.tracker.means, self.tracker.ideal, self.tracker.least = state["extent"]

    def _weights(self, progress: float) -> Callable[[tuple[int, ...], Tensor, Tensor | None], Tensor]:
        def weigh(rows: tuple[int, ...], losses: Tensor, gramian: Tensor | None) -> Tensor:
            present = torch.tensor(self.ensemble.losses.present)
            index = torch.tensor(rows)
            preferences = self.preferences[:, present]
            preferences = preferences / preferences.sum(dim=1, keepdim=True).clamp_min(1e-300)
            own = losses.cpu().double()
            previous = torch.where(self._last.isfinite(), self._last, torch.inf)
            span = None if self.tracker is None else self.tracker.range(own, ~self.diverged, present)
            evidence = FrontEvidence(
                rows, own, preferences[index], gramian, previous, preferences, progress, self.reference, span, present
            )
            return self.algorithm.weights(evidence)

        return weigh

    def _check_divergence(self, losses: Tensor) -> Tensor:
        """(N,) mask of the members that this step updates: finite and not diverged; warns of new divergence."""
        present = torch.tensor(self.ensemble.losses.present)
        own = losses[:, present]
        good = own.isfinite().all(dim=1) & self.partition.gathered(_finite(self.ensemble.parameters))
        size = own.abs().amax(dim=1) if own.shape[1] else torch.zeros(len(good), dtype=torch.float64)
        if self._limit is None and bool(present.all()):
            finite = size[size.isfinite()]
            self._limit = EXPLODED * (1 + (finite.median() if len(finite) else torch.tensor(0.0)))
        if self._limit is not None:
            good &= size <= self._limit
        self._failed = torch.where(good, 0, self._failed + 1)
        new = (self._failed >= PATIENCE) & ~self.diverged
        for member in new.nonzero()[:, 0].tolist():
            warnings.warn(
                f"model {member} of the front, preference {[round(w, 4) for w in self.preferences[member].tolist()]}, has "
                f"diverged: losses {dict(zip(self.tasks, losses[member].tolist(), strict=True))}. It is excluded, also from "
                "transfer. Use a smaller learning rate",
                DivergedWarning,
                stacklevel=3,
            )
        self.diverged |= new
        return good & ~self.diverged

    def _warn_if_not_finite(self, number: int, batch: Batch, seed: int, losses: Tensor, refused: Tensor) -> None:
        """Warns of the first step in which a loss or a gradient of a model is not finite; (n, T) losses of this rank's models.

        A model whose losses are large is warned of when it has diverged.
        """
        present = torch.tensor(self.ensemble.losses.present)
        size = losses[:, present].abs().amax(dim=1)
        large = torch.zeros_like(refused) if self._limit is None else size.isfinite() & (size > self._limit)
        members = refused & ~large & ~self.partition.own(self.diverged)
        if not bool(members.any()):
            return
        self._has_skipped = True
        broken = ~losses[members].isfinite().all(dim=0) & present
        tasks = [task for task, bad in zip(self.tasks, broken.tolist(), strict=True) if bad]
        if not tasks:
            model = copy.deepcopy(self.ensemble.losses.model)
            fill(model, self.ensemble.trained, self.ensemble.kept, int(members.nonzero()[0]))
            tasks = broken_tasks(self.plan.workload, model, batch, seed)
        warn_skipped(number, tasks, [self.partition.rows[member] for member in members.nonzero()[:, 0].tolist()])

    @torch.no_grad()
    def _update(self, active: Tensor, progress: float, factor: float) -> list[float]:
        """Updates the parameters of the active members; returns the share of them that accepted a transfer; empty without one."""
        if not bool(active.any()):
            return []
        own = self.partition.own(active)
        frozen = [] if bool(own.all()) else [(value, value.detach()[~own].clone()) for value in self._stacked()]
        if frozen:
            for value in self.ensemble.parameters:
                if value.grad is not None:
                    value.grad[~own] = 0.0
        if self.exchange is None or int(active.sum()) < 2:
            self.optimizer.step()
            transfers = []
        else:
            # adapted preferences may converge while their losses do not: neighbours are those of the initial ones
            fixed = self.preferences if self.adapter is None else self.adapter.initial
            share = self.exchange.step(self.optimizer, fixed, active, progress, factor)
            transfers = [float((share > 0)[active].double().mean())]
        for value, before in frozen:
            value[~own] = before
        return transfers

    def _stacked(self) -> list[Tensor]:
        """The parameters, and what the optimizer stores for each of their numbers, such as moments."""
        found: list[Tensor] = []
        for value in self.ensemble.parameters:
            stored = self.optimizer.state.get(value, {}).values()
            found += [value, *(each for each in stored if isinstance(each, Tensor) and each.shape == value.shape)]
        return found


def _finite(parameters: Sequence[Tensor]) -> Tensor:
    """(n,) mask of the members whose parameters and gradients are finite; on the host."""
    tensors = [tensor for value in parameters for tensor in (value.detach(), value.grad) if tensor is not None]
    # a sum needs one pass; if it is not finite, finite values may have overflowed: then every element is checked
    flat = [each.unsqueeze(1) if each.ndim == 1 else each for each in tensors]
    sums = torch.stack([each.sum(dim=tuple(range(1, each.ndim)), dtype=torch.float32) for each in flat]).cpu()
    if bool(sums.isfinite().all()):
        return torch.ones(sums.shape[1], dtype=torch.bool)
    return torch.stack([each.isfinite().flatten(1).all(dim=1) for each in flat]).all(dim=0).cpu()
