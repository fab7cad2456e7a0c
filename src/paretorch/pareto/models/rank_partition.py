"""The models of a front, spread over ranks: each rank trains some of them, all know everyone's numbers."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core.gradients.ranks import ALL, Ranks


class RankPartition:
    """Which of N models this rank trains.

    Every rank reads the same batches, so that a model's numbers do not depend on where it is trained.

    Args:
        count: N.
        group: the ranks: ``"all"`` where torch.distributed is initialised, a process group, or None for this process alone.

    Raises:
        ValueError: there are more ranks than models.

    Example:
        >>> RankPartition(5, group=None).rows
        range(0, 5)
    """

    def __init__(self, count: int, group: dist.ProcessGroup | str | None = ALL) -> None:
        self.count = count
        self.ranks = Ranks(group)
        self.size = self.ranks.size
        if self.size > count:
            raise ValueError(
                f"a front of {count} models cannot be spread over {self.size} ranks: give at most {count} as group, or "
                "group=None on one of them"
            )
        rank = 0
        if self.size > 1:
            everywhere = dist.get_rank()
            known = None if group is None or isinstance(group, str) else group
            rank = everywhere if known is None else dist.get_group_rank(known, everywhere)
        least, more = divmod(count, self.size)
        first = rank * least + min(rank, more)
        self.rows = range(first, first + least + (rank < more))

    def agree_on_tasks(self, tasks: tuple[str, ...], declared: object) -> None:
        """Every rank must come here, before anything is gathered, and declare the same.

        Raises:
            ValueError: ranks declare different things.
        """
        self.ranks.agree_on_tasks(tasks, declared)

    @property
    def alone(self) -> bool:
        """Whether this process trains all models."""
        return self.size == 1

    def own(self, everything: Tensor) -> Tensor:
        """(n, ...) this rank's rows of (N, ...)."""
        return everything if self.alone else everything[self.rows.start : self.rows.stop]

    def gathered(self, own: Tensor) -> Tensor:
        """(N, ...) the rows of all ranks, from each one's (n, ...)."""
        if self.alone:
            return own
        wide = own.to(torch.uint8) if own.dtype == torch.bool else own
        everything = wide.new_zeros((self.count, *wide.shape[1:]))
        everything[self.rows.start : self.rows.stop] = wide
        # a sum with zeros changes no row, and unlike a gather takes ranks with different numbers of models
        return self.ranks.sum_on_device(everything).to(own.dtype)

    def listed(self, own: list[object]) -> list[object]:
        """The N values of all models, from the list of each rank's."""
        if self.alone:
            return own
        return [value for part in self.ranks.gathered(own) for value in part]  # type: ignore[attr-defined]
