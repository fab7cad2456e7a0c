"""The ranks that train a run together: losses of the whole batch, averaged gradients, values of the first rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch
from paretorch.workloads.streams import Stream, rank_share

BUCKET = 1 << 23  # numbers that are averaged by one collective

T = TypeVar("T")


class OtherRankError(RuntimeError):
    """Another rank has failed; that rank reports the reason."""


@dataclass(frozen=True)
class SharedLosses:
    """The losses of a step.

    Args:
        local: scalars by task whose mean over ranks is the loss of the whole batch; without tasks that have no label here.
        whole: the losses of the whole batch, without a graph; without tasks that have no label on any rank.
        factors: by which the losses of this rank's share were multiplied; empty for a single process.
    """

    local: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]
    factors: Mapping[str, float]

    def again(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the same samples, multiplied as in this step."""
        if not self.factors:
            return dict(losses)
        return {task: loss * self.factors[task] for task, loss in losses.items() if task in self.factors}


@dataclass(frozen=True)
class Ranks:
    """The processes that train a run.

    Args:
        rank: of this process, from 0.
        size: number of processes; 1: nothing is communicated.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The ranks of torch.distributed, if it is initialised; else this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and evaluates."""
        return self.rank == 0

    @property
    def facts(self) -> dict[str, int]:
        """The number of ranks for the record; empty for a single process."""
        return {} if self.size == 1 else {"ranks": self.size}

    # --- data and losses -------------------------------------------------------------------------------------------------

    def shares(self, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        """The streams with this rank's share of each batch."""
        return streams if self.size == 1 else tuple(rank_share(stream, self.rank, self.size) for stream in streams)

    def shared_losses(self, workload: Workload, batch: Batch, losses: Mapping[str, Tensor]) -> SharedLosses:
        r"""The losses of this rank such that their mean over ranks is the loss of the whole batch.

        .. math:: L_t = \frac{\sum_r n_{rt} L_{rt}}{\sum_r n_{rt}} = \frac{1}{R} \sum_r \frac{R \, n_{rt}}{N_t} L_{rt}

        for the n_rt labels of task t among the samples of rank r, N_t in all, and R ranks.

        Args:
            workload: counts labels.
            batch: of this rank.
            losses: of this rank, each a mean over its labelled samples.
        """
        if self.size == 1:
            return SharedLosses(losses, {task: loss.detach() for task, loss in losses.items()}, {})
        device = _first_tensor(batch).device
        wide = torch.float32 if device.type == "mps" else torch.float64
        table = torch.zeros(2, len(workload.tasks), dtype=wide, device=device)
        for samples in batch:
            for task, target in samples.targets.items():
                if task in losses:
                    place = workload.tasks.index(task)
                    count = torch.as_tensor(workload.labelled(task, target, samples.size), dtype=wide, device=device)
                    # zero times nan, the loss of a share without labels, is nan
                    table[0, place] = torch.where(count > 0, count * losses[task].detach(), 0.0)
                    table[1, place] = count
        own = table[1].tolist()
        dist.all_reduce(table)
        counts = table[1].tolist()
        means = table[0] / table[1]
        factors = {
            task: self.size * count / total
            for task, count, total in zip(workload.tasks, own, counts, strict=True)
            if total and count
        }
        local = {task: loss * factors[task] for task, loss in losses.items() if task in factors}
        whole = {task: means[place] for place, task in enumerate(workload.tasks) if counts[place]}
        return SharedLosses(local, whole, factors)

    def average_gradients(self, parameters: Iterator[Tensor] | Sequence[Tensor]) -> None:
        """Replaces each gradient by its mean over ranks; one that no rank has remains None.

        Raises:
            ValueError: a gradient is sparse.
        """
        if self.size == 1:
            return
        for bucket in _buckets(parameters):
            flat = [_dense_gradient(parameter) for parameter in bucket]
            present = torch.tensor([parameter.grad is not None for parameter in bucket])
            joined = torch.cat([*flat, present.to(flat[0])])
            del flat
            dist.all_reduce(joined)
            found = joined[-len(bucket) :].tolist()
            joined /= self.size
            place = 0
            for parameter, ranks in zip(bucket, found, strict=True):
                part = joined[place : place + parameter.numel()].view(parameter.shape)
                place += parameter.numel()
                if not ranks:
                    continue
                if parameter.grad is None:
                    parameter.grad = part.to(parameter.dtype, copy=True)
                else:
                    parameter.grad.copy_(part)

    def match_model(self, model: nn.Module) -> None:
        """Gives the parameters and buffers of the first rank to all."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    dist.broadcast(tensor, 0)

    def match_buffers(self, model: nn.Module) -> None:
        """Gives the buffers of the first rank, such as running batch statistics, to all."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    # --- functions -------------------------------------------------------------------------------------------------------

    def on_first(self, function: Callable[[], T]) -> T:
        """The value of a function that the first rank calls while the others wait; an error is raised on all ranks.

        Raises:
            OtherRankError: on the other ranks, where the function raised an error.
        """
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, ""]
        if self.is_first:
            try:
                outcome[0] = function()
            except Exception as error:
                dist.broadcast_object_list([None, f"{type(error).__name__}: {error}"])
                raise
        dist.broadcast_object_list(outcome)
        if outcome[1]:
            raise OtherRankError(f"rank 0 has failed: {outcome[1]}")
        value: T = outcome[0]
        return value

    def together(self, function: Callable[[], T]) -> T:
        """The value of a function that each rank calls; if it raises an error on one rank, all of them raise an error.

        Raises:
            OtherRankError: on the ranks on which the function succeeded.
        """
        if self.size == 1:
            return function()
        failures: list[Any] = [None] * self.size
        try:
            value = function()
        except Exception as error:
            dist.all_gather_object(failures, f"{type(error).__name__}: {error}")
            raise
        dist.all_gather_object(failures, None)
        failed = [(rank, failure) for rank, failure in enumerate(failures) if failure is not None]
        if failed:
            raise OtherRankError(f"rank {failed[0][0]} has failed: {failed[0][1]}")
        return value


def _first_tensor(batch: Batch) -> Tensor:
    return next(leaf for leaf in tree_leaves([samples.inputs for samples in batch]) if isinstance(leaf, Tensor))


def _buckets(parameters: Iterator[Tensor] | Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one dtype and device, of at most :data:`BUCKET` numbers or one parameter; the same on all ranks."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for same in kinds.values():
        bucket: list[Tensor] = []
        size = 0
        for parameter in same:
            if bucket and size + parameter.numel() > BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(parameter)
            size += parameter.numel()
        yield bucket


def _dense_gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
    if gradient.layout is not torch.strided:
        raise ValueError("a gradient is sparse, which several ranks cannot average: use nn.Embedding(sparse=False)")
    return gradient.reshape(-1)
