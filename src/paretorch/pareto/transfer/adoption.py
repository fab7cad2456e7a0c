"""Adoption: the replacement of a model's parameters by those of a better model for its preference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.pareto.models.rank_partition import RankPartition

STEADY = 3  # consecutive steps in which the donor must be better: losses of a single batch are noisy


class Adoption:
    """The best donor for each model, by losses that cost nothing: all models are evaluated on the same batches.

    Attributes:
        guaranteed_decrease: (n,) lower bound of the decrease of each model's scalarization by its own step; nan: unknown.
        lead: (n, N) consecutive steps in which model j was better for the i-th model of this rank than that model itself, by more
            than ``guaranteed_decrease``.
    """

    def __init__(self, partition: RankPartition) -> None:
        self.partition = partition
        self.own = torch.tensor(list(partition.rows))
        self.guaranteed_decrease = torch.full((len(self.own),), torch.nan, dtype=torch.float64)
        self.lead = torch.zeros(len(self.own), partition.count, dtype=torch.long)
        self.best = self.own

    def compare(self, values: Tensor) -> None:
        """Updates the lead from the losses of one step.

        Args:
            values: (n, N) the i-th scalarization at the j-th model's losses; nan if they are unknown.
        """
        own = values.gather(1, self.own[:, None])
        self.lead = torch.where(values < own - self.guaranteed_decrease[:, None], self.lead + 1, 0)
        found = torch.where(self.lead >= STEADY, values, torch.inf).min(dim=1)
        self.best = torch.where(found.values.isfinite(), found.indices, self.own)

    def donor(self, matrix: Tensor, free: Tensor) -> Tensor:
        """(n,) the index of the model whose parameters each one adopts; its own index: none.

        Args:
            matrix: (n, N) transfer matrix; donors have a positive coefficient.
            free: (n,) mask of the models that may adopt.
        """
        connected = matrix.gather(1, self.best[:, None])[:, 0] > 0
        return torch.where(free & connected, self.best, self.own)

    def replace(
        self,
        donors: Tensor,
        parameters: Sequence[Tensor],
        before: Sequence[Tensor],
        buffers: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Replaces parameters, buffers and optimizer moments by those of the donors.

        Args:
            donors: (n,) see :meth:`donor`.
            parameters: (n, ...) each, overwritten.
            before: their values at which the losses were computed.
            buffers: (n, ...) each.
            optimizer: of the parameters.
        """
        rows = (donors != self.own).nonzero()[:, 0]
        pairs: list[tuple[Tensor, Tensor]] = [*zip(parameters, before, strict=True), *((b, b) for b in buffers)]
        for value in parameters:
            state: dict[str, Any] = optimizer.state.get(value, {})
            moments = [each for each in state.values() if isinstance(each, Tensor) and each.shape == value.shape]
            pairs += [(each, each) for each in moments]
        for target, source in pairs:
            target[rows] = self.partition.gathered(source)[donors[rows]]
        self.lead[rows] = 0
