"""The ranks whose losses are averaged, and their collectives."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

_GLOO_SCATTERS = tuple(map(int, torch.__version__.split(".")[:2])) >= (
    2,
    8,
)  # gloo has a reduce-scatter since torch 2.8
ALL = "all"  # the default group: every rank, where torch.distributed is initialised


class Ranks:
    """The ranks of a process group. Collectives run on separate process groups, which the first step creates.

    A group shared with DDP would interleave with its buckets; a host group sums a (T, T) matrix without a device
    synchronisation.

    Args:
        group: ``"all"`` for every rank where torch.distributed is initialised, a process group, or None for this process alone.
    """

    def __init__(self, group: dist.ProcessGroup | str | None = ALL) -> None:
        if group != ALL if isinstance(group, str) else not (group is None or hasattr(group, "size")):
            raise ValueError(f"group is a process group, {ALL!r} or None, got {group!r}")
        self.group = group
        self._host: Any = None
        self._device: Any = None
        self._joined = False
        self._wrappers: list[weakref.ref[Any]] = []
        self.alone = True  # whether the last step had no other rank

    def __deepcopy__(self, memo: dict[int, object]) -> Ranks:
        return Ranks(self.group)

    def __reduce__(self) -> tuple[type[Ranks], tuple[str | None]]:
        if self.group is not None and not isinstance(self.group, str):
            raise TypeError("a process group cannot be pickled: save state_dict() and build the Fork or Balancer anew")
        return Ranks, (self.group,)

    @property
    def size(self) -> int:
        """The number of ranks; 1 for this process alone."""
        if self.group is None or not is_distributed():
            return 1
        return dist.get_world_size() if isinstance(self.group, str) else self.group.size()

    def agree_on_tasks(self, tasks: tuple[str, ...], method: object) -> None:
        """Create the groups in the first step, and check that all ranks declare the same tasks. All ranks must call this."""
        self.alone = self.size == 1
        if self.alone:
            return
        if self._joined:
            self._check_even_inputs()
            return
        self._wrappers = _wrappers()
        self._check_even_inputs()
        members = None if isinstance(self.group, str) else dist.get_process_group_ranks(self.group)
        local = members is not None
        self._host = dist.new_group(members, backend="gloo", use_local_synchronization=local)
        self._device = dist.new_group(members, use_local_synchronization=local)
        declared = self.gathered((tasks, repr(method)))
        if any(other != declared[0] for other in declared):
            listing = "\n".join(f"  rank {rank}: {other}" for rank, other in enumerate(declared))
            raise ValueError(
                f"all ranks must declare the same tasks, in the same order, and the same method; got\n{listing}"
            )
        self._joined = True

    def _check_even_inputs(self) -> None:
        """Refuse ``with model.join():``, in which a rank without further batches joins the collectives of the wrapper only."""
        for ref in self._wrappers:
            config = getattr(ref(), "_join_config", None)
            if config is not None and config.enable and not config.throw_on_early_termination:
                raise RuntimeError(
                    "balancing needs all ranks in every step, and under join() a rank that has no batch left joins the "
                    "collectives of the wrapper only, so that the others would wait for it: use "
                    "model.join(throw_on_early_termination=True), give all ranks the same number of batches "
                    "(DistributedSampler), or balance each rank by itself with group=None"
                )

    def ddp_has_others(self, leaves: Iterable[Tensor]) -> bool:
        """Whether a model in DistributedDataParallel has trainable parameters that are not among the leaves."""
        given = {id(leaf) for leaf in leaves}
        wrapped = [module for ref in self._wrappers if isinstance(module := ref(), DistributedDataParallel)]
        return any(id(leaf) not in given for module in wrapped for leaf in module.parameters() if leaf.requires_grad)

    @property
    def sharded_modules(self) -> list[Any]:
        """The modules that ``fully_shard`` has sharded."""
        return [module for ref in self._wrappers if hasattr(module := ref(), "set_requires_gradient_sync")]

    def shards(self, leaves: Iterable[Tensor]) -> bool:
        """Whether a leaf is a parameter of a module that ``fully_shard`` has sharded."""
        given = {id(leaf) for leaf in leaves}
        return any(id(leaf) in given for module in self.sharded_modules for leaf in module.parameters())

    def gathered(self, value: object) -> list[object]:
        """The value of every rank, in order of ranks; the same list on every rank."""
        values: list[object] = [None] * self.size
        dist.all_gather_object(values, value, group=self._host)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a host tensor, the same on every rank."""
        return self._summed(tensor, self._host)

    def sum_on_device(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a tensor on its device."""
        return self._summed(tensor, self._device)

    def _summed(self, tensor: Tensor, group: Any) -> Tensor:
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    def shard_of_sum(self, row: Tensor) -> Tensor:
        """This rank's shard of the (n,) sum over W ranks: (ceil(n / W),), padded with zeros."""
        if self.size == 1:
            return row
        shard = -(-row.numel() // self.size)
        padded = torch.nn.functional.pad(row, (0, shard * self.size - row.numel()))
        if dist.get_backend(self._device) == "gloo" and not _GLOO_SCATTERS:
            dist.all_reduce(padded, group=self._device)
            return padded.view(self.size, shard)[dist.get_rank(self._device)]
        result = row.new_empty(shard)
        # renamed in torch 2.14
        reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        reduce_scatter(result, padded, group=self._device)
        return result


def is_distributed() -> bool:
    """Whether torch.distributed is initialised."""
    return dist.is_available() and dist.is_initialized()


def _wrappers() -> list[weakref.ref[Any]]:
    """The modules and optimizers of this process that communicate in a backward. Only the garbage collector lists them all."""
    known = [("torch.distributed.algorithms.join", "Joinable"), ("torch.distributed.fsdp", "FSDPModule")]
    kinds = tuple(
        getattr(sys.modules[module], name) for module, name in known if hasattr(sys.modules.get(module), name)
    )
    return [weakref.ref(found) for found in gc.get_objects() if issubclass(type(found), kinds)]
