"""The steps of a front: gradients, the optimizer over all members, transfer, members that diverge, preferences that move."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from paretorch.pareto.algorithms.algorithm import FrontAlgorithm
from paretorch.pareto.fitting.adapt import Adaption
from paretorch.pareto.fitting.plan import Plan
from paretorch.pareto.models.ensemble import Ensemble, View
from paretorch.pareto.models.rank_partition import Spread
from paretorch.pareto.objective_range import Tracker
from paretorch.pareto.transfer.exchange import Exchange
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import combined_seed

PATIENCE = 3  # failed steps in a row after which a member counts as diverged
EXPLODED = 1e6  # times its first losses' size


class DivergedWarning(UserWarning):
    """A model of a front has diverged."""


@dataclass
class Training:
    """What a front looks like while it is trained.

    Args:
        algorithm: how members are weighed.
        ensemble: their parameters.
        optimizer: over the stacked parameters.
        preferences: (N, T); moves where the algorithm moves it.
        plan: the arguments of :func:`~paretorch.fit_front`.
        steps: of the whole training.
        spread: of the N members over ranks; the ensemble holds this rank's.
        adaption: what moves the preferences.
        gradients: gradient evaluations so far, all members together: N per step, N T where the algorithm looks at gradients.
        listened: shares of members that took something over, by step, where there is transfer.
        diverged: (N,) which members have.
    """

    algorithm: FrontAlgorithm
    ensemble: Ensemble
    optimizer: torch.optim.Optimizer
    preferences: Tensor
    plan: Plan
    steps: int
    spread: Spread
    adaption: Adaption | None = None
    gradients: int = 0
    listened: list[float] = field(default_factory=list)
    tasks: tuple[str, ...] = field(init=False)
    reference: Tensor | None = field(init=False)
    diverged: Tensor = field(init=False)
    exchange: Exchange | None = field(init=False)
    tracker: Tracker | None = field(init=False)
    _failed: Tensor = field(init=False)
    _last: Tensor = field(init=False)
    _limit: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        count = self.spread.count
        self.tasks, point = self.plan.workload.tasks, self.plan.reference
        self.reference = None if point is None else torch.tensor(point, dtype=torch.float64)
        sharing = self.algorithm.sharing()
        held = self.ensemble.trained, self.ensemble.kept
        self.exchange = None if sharing is None else Exchange(sharing, *held, self.spread)
        self.diverged = torch.zeros(count, dtype=torch.bool)
        self.tracker = Tracker(count, len(self.tasks)) if self.algorithm.normalizes else None
        self._failed = torch.zeros(count, dtype=torch.long)
        self._last = torch.full((count, len(self.tasks)), torch.nan, dtype=torch.float64)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, number: int, batch: Batch) -> Tensor:
        """One step of all members.

        Args:
            number: of the step in the training.
            batch: one part per stream.

        Returns:
            (N, T) losses of the batch before the step; nan for tasks that are absent.
        """
        progress = number / self.steps
        factor, seed = self.plan.factor(progress), combined_seed(self.plan.seed, 1, number)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        looks = self.algorithm.looks_at_gradients
        found = self.ensemble.gradients(batch, seed, self._weigher(progress), looks)
        losses, weights = (self.spread.gathered(each.double().cpu()) for each in found)
        self.gradients += self.spread.count * (len(self.tasks) if looks else 1)
        alive = self._healthy(losses)
        if self.exchange is not None:
            every = torch.ones(len(self.tasks), dtype=torch.bool)
            extent = None if self.tracker is None else self.tracker.extent(losses, ~self.diverged, every)
            self.exchange.judge(losses, self.preferences, extent)
        self._update(alive, progress, factor)
        self._last = torch.where(losses.isfinite() & alive[:, None], losses, self._last)
        if self.tracker is not None:
            self.tracker.add(losses, alive)
        if self.adaption is not None:
            self.preferences = self.adaption.move(self.preferences, losses, weights, progress, alive)
        return losses

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes: all that decides the steps to come."""
        exchange, adaption, tracker = self.exchange, self.adaption, self.tracker
        return {
            "trained": dict(self.ensemble.trained),
            "kept": dict(self.ensemble.kept),
            "execution": (self.ensemble.execution, self.ensemble.why),
            "optimizer": self.optimizer.state_dict(),
            "preferences": self.preferences,
            "gradients": self.gradients,
            "listened": list(self.listened),
            "health": (self.diverged, self._failed, self._last, self._limit),
            "exchange": None if exchange is None else exchange.state(),
            "adaption": None if adaption is None else (adaption.losses, adaption.shares, adaption.steps),
            "extent": None if tracker is None else (tracker.means, tracker.ideal, tracker.least),
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, on the devices where everything is."""
        for held, found in ((self.ensemble.trained, state["trained"]), (self.ensemble.kept, state["kept"])):
            for name, value in held.items():
                value.copy_(found[name])
        self.ensemble.execution, self.ensemble.why = state["execution"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.preferences, self.gradients = state["preferences"], state["gradients"]
        self.listened = list(state["listened"])
        self.diverged, self._failed, self._last, self._limit = state["health"]
        if self.exchange is not None:
            self.exchange.load(state["exchange"])
        if self.adaption is not None:
            self.adaption.losses, self.adaption.shares, self.adaption.steps = state["adaption"]
        if self.tracker is not None:
            self.tracker.means, self.tracker.ideal, self.tracker.least = state["extent"]

    def _weigher(self, progress: float) -> Callable[[tuple[int, ...], Tensor, Tensor | None], Tensor]:
        def weigh(rows: tuple[int, ...], losses: Tensor, gramian: Tensor | None) -> Tensor:
            present = torch.tensor(self.ensemble.losses.present)
            index = torch.tensor(rows)
            preferences = self.preferences[:, present]
            preferences = preferences / preferences.sum(dim=1, keepdim=True).clamp_min(1e-300)
            seen = losses.double().cpu()
            everyone = torch.where(self._last.isfinite(), self._last, torch.inf)
            extent = None
            if self.tracker is not None:
                extent = self.tracker.extent(seen, ~self.diverged, present)
            point = self.reference
            view = View(
                rows, seen, preferences[index], gramian, everyone, preferences, progress, point, extent, present
            )
            return self.algorithm.weights(view)

        return weigh

    def _healthy(self, losses: Tensor) -> Tensor:
        """(N,) whose losses and gradients are numbers, in this step; warns of those that have diverged."""
        present = torch.tensor(self.ensemble.losses.present)
        seen = losses[:, present]
        good = seen.isfinite().all(dim=1) & self.spread.gathered(_sound(self.ensemble.parameters))
        size = seen.abs().amax(dim=1) if seen.shape[1] else torch.zeros(len(good), dtype=torch.float64)
        if self._limit is None and bool(present.all()):
            finite = size[size.isfinite()]
            self._limit = EXPLODED * (1 + (finite.median() if len(finite) else torch.tensor(0.0)))
        if self._limit is not None:
            good &= size <= self._limit
        self._failed = torch.where(good, 0, self._failed + 1)
        fallen = (self._failed >= PATIENCE) & ~self.diverged
        for member in fallen.nonzero()[:, 0].tolist():
            warnings.warn(
                f"model {member} of the front, preference {[round(w, 4) for w in self.preferences[member].tolist()]}, has "
                f"diverged: losses {dict(zip(self.tasks, losses[member].tolist(), strict=True))}. It is left out, and no other "
                "model listens to it. A smaller learning rate cures most of this",
                DivergedWarning,
                stacklevel=3,
            )
        self.diverged |= fallen
        return good & ~self.diverged

    @torch.no_grad()
    def _update(self, alive: Tensor, progress: float, factor: float) -> None:
        own = self.spread.own(alive)
        still = None if bool(own.all()) else [value.detach()[~own].clone() for value in self.ensemble.parameters]
        for value in self.ensemble.parameters:
            if still is not None and value.grad is not None:
                value.grad[~own] = 0.0
        if self.exchange is None or int(alive.sum()) < 2:
            self.optimizer.step()
        else:
            # preferences that move may come close to one another while their losses do not: neighbours are as they began
            near = self.preferences if self.adaption is None else self.adaption.home
            share = self.exchange.step(self.optimizer, near, alive, progress, factor)
            self.listened.append(float((share > 0)[alive].double().mean()))
        if still is not None:
            for value, before in zip(self.ensemble.parameters, still, strict=True):
                value[~own] = before


def _sound(parameters: Sequence[Tensor]) -> Tensor:
    """(n,) whose parameters and gradients are all numbers; on the host."""
    tensors = [tensor for value in parameters for tensor in (value.detach(), value.grad) if tensor is not None]
    # sums tell it in one pass; that of finite numbers may leave their range, and is then looked into
    flat = [each.unsqueeze(1) if each.ndim == 1 else each for each in tensors]
    sums = torch.stack([each.sum(dim=tuple(range(1, each.ndim)), dtype=torch.float32) for each in flat]).cpu()
    if bool(sums.isfinite().all()):
        return torch.ones(sums.shape[1], dtype=torch.bool)
    return torch.stack([each.isfinite().flatten(1).all(dim=1) for each in flat]).all(dim=0).cpu()
