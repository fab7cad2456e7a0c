"""The partition of a front's models over ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core.gradients.ranks import ALL, Ranks


class RankPartition:
    """The contiguous block of N models that this rank trains.

    Every rank reads the same batches, so that results do not depend on the partition.

    Args:
        count: N.
        group: the ranks: ``"all"`` if torch.distributed is initialised, a process group, or None for this process alone.

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
                f"a front of {count} models cannot be divided among {self.size} ranks: give a process group of at most "
                f"{count} ranks as group, or group=None on one of them"
            )
        rank = 0
        if self.size > 1:
            global_rank = dist.get_rank()
            known = None if group is None or isinstance(group, str) else group
            rank = global_rank if known is None else dist.get_group_rank(known, global_rank)
        least, more = divmod(count, self.size)
        first = rank * least + min(rank, more)
        self.rows = range(first, first + least + (rank < more))

    def agree_on_tasks(self, tasks: tuple[str, ...], declared: object) -> None:
        """Checks, collectively and before the first gather, that all ranks have the same arguments.

        Raises:
            ValueError: the arguments differ between ranks.
        """
        self.ranks.agree_on_tasks(tasks, declared)

    @property
    def alone(self) -> bool:
        """Whether this process trains all models."""
        return self.size == 1

    def own(self, rows: Tensor) -> Tensor:
        """This rank's rows (n, ...) of a tensor (N, ...)."""
        return rows if self.alone else rows[self.rows.start : self.rows.stop]

    def gathered(self, own: Tensor) -> Tensor:
        """The rows (N, ...) of all ranks, from those of each, (n, ...)."""
        if self.alone:
            return own
        wide = own.to(torch.uint8) if own.dtype == torch.bool else own
        rows = wide.new_zeros((self.count, *wide.shape[1:]))
        rows[self.rows.start : self.rows.stop] = wide
        # a sum with zeros is exact and, unlike a gather, supports ranks with different numbers of models
        return self.ranks.sum_on_device(rows).to(own.dtype)

    def gathered_list(self, own: list[object]) -> list[object]:
        """The N values of all models, from the list of each rank."""
        if self.alone:
            return own
        return [value for part in self.ranks.gathered(own) for value in part]  # type: ignore[attr-defined]
