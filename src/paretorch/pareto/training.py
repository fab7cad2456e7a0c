"""The steps of a front: gradients, the optimizer over all members, transfer, members that diverge, preferences that move."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paretorch.pareto.adapt import Adaption
from paretorch.pareto.algorithm import FrontAlgorithm, Sharing
from paretorch.pareto.ensemble import Ensemble, View
from paretorch.pareto.members import Batch

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
        tasks: (T,) names.
        adaption: what moves it.
        gradients: gradient evaluations so far, all members together: N per step, N T where the algorithm looks at gradients.
        listened: shares of members that took something over, by step, where the transfer is gated.
        diverged: (N,) which members have.
    """

    algorithm: FrontAlgorithm
    ensemble: Ensemble
    optimizer: torch.optim.Optimizer
    preferences: Tensor
    tasks: tuple[str, ...]
    adaption: Adaption | None = None
    gradients: int = 0
    listened: list[float] = field(default_factory=list)
    diverged: Tensor = field(init=False)
    _failed: Tensor = field(init=False)
    _last: Tensor = field(init=False)
    _limit: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        count = self.ensemble.count
        self.diverged = torch.zeros(count, dtype=torch.bool)
        self._failed = torch.zeros(count, dtype=torch.long)
        self._last = torch.full((count, len(self.tasks)), torch.nan, dtype=torch.float64)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, batch: Batch, seed: int, progress: float, factor: float) -> Tensor:
        """One step of all members.

        Args:
            batch: one part per stream.
            seed: of the forward's random numbers.
            progress: of the training, in [0, 1].
            factor: of the optimizer's learning rate.

        Returns:
            (N, T) losses of the batch before the step; nan for tasks that are absent.
        """
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        looks = self.algorithm.looks_at_gradients
        losses, weights = self.ensemble.gradients(batch, seed, self._weigher(progress), looks)
        self.gradients += self.ensemble.count * (len(self.tasks) if looks else 1)
        alive = self._healthy(losses)
        self._update(alive, progress, factor)
        seen = losses.double().cpu()
        self._last = torch.where(seen.isfinite() & alive[:, None], seen, self._last)
        if self.adaption is not None:
            self.preferences = self.adaption.move(self.preferences, losses, weights, progress, alive)
        return losses

    def _weigher(self, progress: float) -> Callable[[tuple[int, ...], Tensor, Tensor | None], Tensor]:
        def weigh(rows: tuple[int, ...], losses: Tensor, gramian: Tensor | None) -> Tensor:
            present = torch.tensor(self.ensemble.losses.present)
            index = torch.tensor(rows)
            preferences = self.preferences[:, present]
            preferences = preferences / preferences.sum(dim=1, keepdim=True).clamp_min(1e-300)
            seen = losses.double().cpu()
            last = self._last[:, present]
            everyone = torch.where(last.isfinite(), last, torch.inf).index_copy(0, index, seen)
            view = View(rows, seen, preferences[index], gramian, everyone, preferences, progress)
            return self.algorithm.weights(view)

        return weigh

    def _healthy(self, losses: Tensor) -> Tensor:
        """(N,) whose losses and gradients are numbers, in this step; warns of those that have diverged."""
        seen = losses.detach().double().cpu()
        present = torch.tensor(self.ensemble.losses.present)
        seen = seen[:, present]
        good = seen.isfinite().all(dim=1)
        for value in self.ensemble.parameters:
            assert value.grad is not None
            for tensor in (value.detach(), value.grad):
                good &= tensor.reshape(len(good), -1).isfinite().all(dim=1).cpu()
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
        sharing = self.algorithm.sharing()
        still = None if bool(alive.all()) else [value.detach()[~alive].clone() for value in self.ensemble.parameters]
        for value in self.ensemble.parameters:
            assert value.grad is not None
            if still is not None:
                value.grad[~alive] = 0.0
        if sharing is None or int(alive.sum()) < 2:
            self.optimizer.step()
        else:
            self._share(sharing, alive, progress, factor)
        if still is not None:
            for value, before in zip(self.ensemble.parameters, still, strict=True):
                value[~alive] = before

    def _share(self, sharing: Sharing, alive: Tensor, progress: float, factor: float) -> None:
        """The optimizer's step, and the displacement towards what is taken over."""
        shared = [
            value
            for name, value in self.ensemble.trained.items()
            if sharing.parameters == "all" or name.startswith("encoder.")
        ]
        rate = factor * (1 - progress if sharing.fade else 1.0)
        cosines = _cosines(self.ensemble.parameters) if sharing.transfer.looks_at_gradients else None
        # preferences that move may come close to one another while their losses do not: neighbours are those they began as
        near = self.preferences if self.adaption is None else self.adaption.home
        matrix = sharing.transfer.matrix(near, rate, cosines)
        matrix = _heard(matrix, alive)
        moves = [_mixed(matrix, value.detach(), alive) for value in shared]
        if not sharing.transfer.gate:
            self.optimizer.step()
        else:
            share = self._gated(shared, moves, alive)
            self.listened.append(float((share > 0)[alive].double().mean()))
            moves = [move * _along(share, move) for move in moves]
        for value, move in zip(shared, moves, strict=True):
            value.add_(move)

    def _gated(self, shared: list[Tensor], moves: list[Tensor], alive: Tensor) -> Tensor:
        """(N,) how much of its displacement each member takes; makes the optimizer's step."""
        before = [value.detach().clone() for value in self.ensemble.parameters]
        gradients = [_grad(value) for value in self.ensemble.parameters]
        self.optimizer.step()
        steps = [value.detach() - old for value, old in zip(self.ensemble.parameters, before, strict=True)]
        eta = -_inner(gradients, steps) / _inner(gradients, gradients).clamp_min(1e-300)
        slope = _inner([_grad(value) for value in shared], moves)
        square = _inner(moves, moves)
        share = (2 * eta.clamp_min(0) * -slope / square.clamp_min(1e-300)).clamp(0.0, 1.0)
        return torch.where((slope < 0) & alive & (square > 0), share, 0.0)


def _grad(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


def _inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """(N,) inner products, member by member, in float64 on the host."""
    return sum(
        ((a * b).reshape(len(a), -1).sum(dim=1).double().cpu() for a, b in zip(first, second, strict=True)),
        start=torch.zeros(len(first[0]), dtype=torch.float64),
    )


def _cosines(parameters: list[Tensor]) -> Tensor:
    """(N, N) between the members' gradients."""
    flat = [_grad(value).reshape(len(value), -1) for value in parameters]
    product = sum((row @ row.T for row in flat[1:]), start=flat[0] @ flat[0].T).double().cpu()
    length = product.diagonal().clamp_min(0).sqrt().clamp_min(1e-300)
    return product.nan_to_num() / length[:, None] / length[None, :]


def _heard(matrix: Tensor, alive: Tensor) -> Tensor:
    """Without what comes from members that do not train; their part stays with the listener."""
    kept = matrix * alive[None, :]
    return kept + torch.diag(1 - kept.sum(dim=1))


def _mixed(matrix: Tensor, value: Tensor, alive: Tensor) -> Tensor:
    """(N, ...) sum_j M_ij (theta_j - theta_i); zero for members that do not train."""
    flat = torch.where(alive[:, None].to(value.device), value.reshape(len(value), -1), 0.0)
    away = matrix.to(value) @ flat - flat
    return (away * alive[:, None].to(value)).reshape(value.shape)


def _along(share: Tensor, move: Tensor) -> Tensor:
    return share.to(move).reshape(-1, *[1] * (move.ndim - 1))
