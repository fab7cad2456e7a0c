"""Models of a front that take another's place, where that one serves their preference better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paretorch.pareto.models.rank_partition import RankPartition

STEADY = 3  # steps in a row in which the other must have been the better one: a single batch tells little


class Adoption:
    """Who is the better model for whom, by losses that are known anyway: all models see the same batches.

    Attributes:
        sure: (n,) by how much each model's own step is sure to let its scalarization fall; nan: nothing is known.
        lead: (n, N) steps in a row in which model j was better for the i-th of this rank than that, by more than ``sure``.
    """

    def __init__(self, partition: RankPartition) -> None:
        self.partition = partition
        self.own = torch.tensor(list(partition.rows))
        self.guaranteed_decrease = torch.full((len(self.own),), torch.nan, dtype=torch.float64)
        self.lead = torch.zeros(len(self.own), partition.count, dtype=torch.long)
        self.best = self.own

    def compare(self, values: Tensor) -> None:
        """Looks at one step.

        Args:
            values: (n, N) the i-th scalarization at the j-th model's losses; nan where they are not known.
        """
        mine = values.gather(1, self.own[:, None])
        self.lead = torch.where(values < mine - self.guaranteed_decrease[:, None], self.lead + 1, 0)
        found = torch.where(self.lead >= STEADY, values, torch.inf).min(dim=1)
        self.best = torch.where(found.values.isfinite(), found.indices, self.own)

    def donor(self, heard: Tensor, free: Tensor) -> Tensor:
        """(n,) which of the N models' place each one takes; its own: none.

        Args:
            heard: (n, N) the coefficients by which models listen to one another; nobody takes the place of one it cannot hear.
            free: (n,) which models may take another's place.
        """
        audible = heard.gather(1, self.best[:, None])[:, 0] > 0
        return torch.where(free & audible, self.best, self.own)

    def replace(
        self,
        donors: Tensor,
        parameters: Sequence[Tensor],
        before: Sequence[Tensor],
        buffers: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Makes models those whose place they take, with all that belongs to them.

        Args:
            donors: (n,) see :meth:`donor`.
            parameters: (n, ...) each, written.
            before: the same, as they were when their losses were measured.
            buffers: (n, ...) each.
            optimizer: over the parameters, whose moments go along.
        """
        rows = (donors != self.own).nonzero()[:, 0]
        pairs: list[tuple[Tensor, Tensor]] = [*zip(parameters, before, strict=True), *((b, b) for b in buffers)]
        for value in parameters:
            state: dict[str, Any] = optimizer.state.get(value, {})
            held = [each for each in state.values() if isinstance(each, Tensor) and each.shape == value.shape]
            pairs += [(each, each) for each in held]
        for target, source in pairs:
            target[rows] = self.partition.gathered(source)[donors[rows]]
        self.lead[rows] = 0
