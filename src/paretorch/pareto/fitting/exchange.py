"""The transfer step: optimizer step, gated displacement towards other models, and adoption."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from paretorch.core.gradients.task_gradients import full_precision, wide_dtype
from paretorch.pareto.algorithms.contract import Sharing
from paretorch.pareto.models.rank_partition import RankPartition
from paretorch.pareto.objective_range import ObjectiveRange
from paretorch.pareto.transfer.adoption import Adoption

DESCENT = 0.75  # of eta |grad F|^2: the guaranteed decrease of F by gradient descent at eta = 1/(2L)
LOST = 4.0  # divisor of the trust after a step with less than the required decrease
ROUNDING = 4.0  # in units of eps |theta_i|: a displacement of this length is the rounding of sum_j M_ij theta_j


class Exchange:
    """Transfer between models, with a trust factor for each.

    Args:
        sharing: how parameters are transferred.
        trained: (n, ...) stacked parameters by name, of this rank's models.
        kept: (n, ...) their buffers.
        partition: of the N models over ranks.
    """

    def __init__(
        self, sharing: Sharing, trained: Mapping[str, Tensor], kept: Mapping[str, Tensor], partition: RankPartition
    ) -> None:
        self.sharing, self.partition = sharing, partition
        self.trained, self.kept = list(trained.values()), list(kept.values())
        self.shared = [
            value for name, value in trained.items() if sharing.parameters == "all" or name.startswith("encoder.")
        ]
        self.trust = torch.ones(len(partition.rows), dtype=torch.float64)
        self.before: Tensor | None = None  # (N, T) losses of the previous step
        self.required_decrease = torch.full((len(partition.rows),), torch.nan, dtype=torch.float64)
        # without its heads, an adopted encoder is of no use
        adopts = sharing.transfer.adopts and sharing.settled and sharing.parameters == "all"
        self.adoption = Adoption(partition) if adopts else None

    def update_trust(self, losses: Tensor, preferences: Tensor, objective_range: ObjectiveRange | None = None) -> None:
        """Updates the trust by whether the previous step reached its required decrease.

        Args:
            losses: (N, T), nan for absent tasks: then the trust is unchanged.
            preferences: (N, T).
            objective_range: normalizes the losses; None: they are not normalized.
        """
        transfer, score = self.sharing.transfer, self.sharing.scalarization
        value = score.value if objective_range is None else partial(objective_range.value, score)
        if self.adoption is not None:
            own = self.partition.own(preferences)
            self.adoption.compare(torch.stack([value(losses, row.expand_as(losses)) for row in own]))
        if transfer.gate and transfer.growth > 1 and self.before is not None:
            decrease = self.partition.own(value(self.before, preferences) - value(losses, preferences))
            known = decrease.isfinite() & self.required_decrease.isfinite()
            updated = torch.where(decrease >= self.required_decrease, self.trust * transfer.growth, self.trust / LOST)
            self.trust = torch.where(known, updated.clamp(1.0, 1e9), self.trust)
        self.before = losses

    def state(self) -> tuple[Any, ...]:
        """All values that determine the following steps, for :meth:`load`."""
        adoption = self.adoption
        return (
            self.trust,
            self.before,
            self.required_decrease,
            None if adoption is None else (adoption.guaranteed_decrease, adoption.lead),
        )

    def load(self, state: tuple[Any, ...]) -> None:
        """Restores a state."""
        self.trust, self.before, self.required_decrease, adopting = state
        if self.adoption is not None:
            self.adoption.guaranteed_decrease, self.adoption.lead = adopting

    @torch.no_grad()
    def step(
        self, optimizer: torch.optim.Optimizer, preferences: Tensor, active: Tensor, progress: float, factor: float
    ) -> Tensor:
        """Applies the optimizer step and the displacement towards other models.

        Args:
            optimizer: over the stacked parameters.
            preferences: (N, T); they determine the neighbours.
            active: (N,) mask of the models that train.
            progress: of the training, in [0, 1].
            factor: of the learning rate.

        Returns:
            (N,) the share of the displacement that each model moved.
        """
        transfer = self.sharing.transfer
        rate = factor * (1 - progress if self.sharing.fade else 1.0)
        cosines = self._cosines() if transfer.needs_cosines else None
        matrix = _without_inactive(transfer.matrix(preferences, rate, cosines), active)
        moves = [self._displacement(matrix, value.detach(), active) for value in self.shared]
        before = [value.detach().clone() for value in self.trained] if transfer.gate else []
        if transfer.gate:
            share = self._gated(optimizer, before, moves, self.partition.own(active))
            moves = [move * _broadcast(share, move) for move in moves]
        else:
            optimizer.step()
            share = self.partition.own(active).double()
        for value, move in zip(self.shared, moves, strict=True):
            value.add_(move)
        if self.adoption is not None:
            share = self._adopted(optimizer, before, self.partition.own(matrix), share, self.partition.own(active))
        return self.partition.gathered(share)

    def _adopted(
        self, optimizer: torch.optim.Optimizer, before: list[Tensor], matrix: Tensor, share: Tensor, active: Tensor
    ) -> Tensor:
        """Performs adoptions; returns (n,) the shares, 1 for models that adopted."""
        assert self.adoption is not None
        donors = self.adoption.donor(matrix, active & (share == 0))
        adopts = donors != self.adoption.own
        if bool(self.partition.gathered(adopts).any()):  # on all ranks or none
            self.adoption.replace(donors, self.trained, before, self.kept, optimizer)
            self.required_decrease = torch.where(adopts, torch.nan, self.required_decrease)
        return torch.where(adopts, 1.0, share)

    def _gated(
        self, optimizer: torch.optim.Optimizer, before: list[Tensor], moves: list[Tensor], active: Tensor
    ) -> Tensor:
        """Applies the optimizer step; returns (n,) the share of the displacement that each model moves."""
        gradients = [_grad(value) for value in self.trained]
        optimizer.step()
        steps = [value.detach() - old for value, old in zip(self.trained, before, strict=True)]
        descent = -_inner(gradients, steps)
        eta = (descent / _inner(gradients, gradients).clamp_min(1e-300)).clamp_min(0)
        slope = _inner([_grad(value) for value in self.shared], moves)
        square = _inner(moves, moves)
        share = (2 * self.trust * eta * -slope / square.clamp_min(1e-300)).clamp(0.0, 1.0)
        share = torch.where((slope < 0) & active & (square > self._rounding_square()), share, 0.0)
        guaranteed = DESCENT * descent
        if self.adoption is not None:
            self.adoption.guaranteed_decrease = guaranteed.clamp_min(0.0)
        # without transfer the next losses do not depend on the trust
        self.required_decrease = torch.where((share > 0) & (descent > 0), guaranteed, torch.nan)
        return share

    def _rounding_square(self) -> Tensor:
        """(n,) squared length up to which a displacement is rounding alone, as that of equal models."""
        values = [value.detach() for value in self.shared]
        scaled = [value * (ROUNDING * torch.finfo(value.dtype).eps) for value in values]
        return _inner(scaled, scaled)

    def _displacement(self, matrix: Tensor, value: Tensor, active: Tensor) -> Tensor:
        """(n, ...) sum_j M_ij (theta_j - theta_i); zero for models that do not train."""
        trains = active[:, None].to(value.device)
        flat = self.partition.gathered(value.reshape(len(value), -1))
        flat = torch.where(trains, flat, 0.0)
        with full_precision(flat):
            away = self.partition.own(matrix).to(value) @ flat - self.partition.own(flat)
        return (away * self.partition.own(trains).to(value)).reshape(value.shape)

    def _cosines(self) -> Tensor:
        """(N, N) between the models' gradients."""
        flat = [self.partition.gathered(_grad(value).reshape(len(value), -1)) for value in self.trained]
        with full_precision(flat[0]):
            product = sum((row @ row.T for row in flat[1:]), start=flat[0] @ flat[0].T).cpu().double()
        length = product.diagonal().clamp_min(0).sqrt().clamp_min(1e-300)
        return product.nan_to_num() / length[:, None] / length[None, :]


def _grad(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def _inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """(n,) inner products, model by model, in float64 on the host."""
    products = [(a * b).reshape(len(a), -1).sum(dim=1).to(wide_dtype(a)) for a, b in zip(first, second, strict=True)]
    return torch.stack(products).cpu().double().sum(dim=0)


def _without_inactive(matrix: Tensor, active: Tensor) -> Tensor:
    """The matrix without columns of inactive models; their coefficients are added to the diagonal."""
    kept = matrix * active[None, :]
    return kept + torch.diag(1 - kept.sum(dim=1))


def _broadcast(share: Tensor, move: Tensor) -> Tensor:
    return share.to(move).reshape(-1, *[1] * (move.ndim - 1))
