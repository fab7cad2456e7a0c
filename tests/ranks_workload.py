"""A workload for tests of training on several ranks: float64, no batch statistics, labels that may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads import (
    Accuracy,
    LoaderStream,
    MeanAbsoluteError,
    Metric,
    MultiTaskModel,
    Splits,
    Stream,
    TensorStream,
    Workload,
)


@dataclass(frozen=True)
class Shared(Workload):
    """The sign and the size of a random linear map.

    Args:
        missing: 60 % of the labels of ``sign`` are missing, so that shares of a batch may have none.
        unlabelled: these samples have no label of ``size`` either, so that a rank, or all ranks, may have no loss.
        own_inputs: each task has its own stream, the second half as long.
        loader: read by a LoaderStream: ``"rows"``, of samples with indices; ``"iterated"``, of batches of 7; empty: tensors.
        norm: whether the encoder has batch norm.
        samples: to train on.
        broken: rank 1 fails while it reads the data.
    """

    title = "for tests of ranks"

    missing: bool = False
    unlabelled: bool = False
    own_inputs: bool = False
    loader: str = ""
    norm: bool = False
    samples: int = 43
    broken: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("sign", "size")

    def data(self) -> Splits:
        if self.broken and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise OSError("the disk of this machine is missing")
        return Splits(*(self._streams(count, seed) for seed, count in enumerate((self.samples, 24, 24))))  # type: ignore[arg-type]

    def _streams(self, count: int, seed: int) -> tuple[Stream, ...]:
        if self.own_inputs:
            return self._stream(("sign",), count, seed), self._stream(("size",), count // 2, seed + 10)
        return (self._stream(self.tasks, count, seed),)

    def _stream(self, tasks: tuple[str, ...], count: int, seed: int) -> Stream:
        inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sign = (inputs[:, 0] > 0).long()
        if self.missing:
            sign[torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.6] = -1
        size = 3 * inputs.sum(dim=1)
        if self.unlabelled:
            size[sign < 0] = torch.nan
        targets = {task: {"sign": sign, "size": size}[task] for task in tasks}
        if not self.loader:
            return TensorStream(inputs, targets)
        rows = [{"x": inputs[i], **{task: target[i] for task, target in targets.items()}} for i in range(count)]
        if self.loader == "rows":
            return LoaderStream(rows, tasks)
        return LoaderStream(Sevens(inputs, targets), tasks, steps_per_epoch=5 if seed == 0 else None, is_paired=True)

    def model(self) -> nn.Module:
        norm = [nn.BatchNorm1d(6)] if self.norm else []
        encoder = nn.Sequential(nn.Linear(4, 6), *norm, nn.Tanh())
        heads: dict[str, nn.Module] = {"sign": nn.Linear(6, 2), "size": nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))}
        return MultiTaskModel(encoder, heads).double()

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        losses = {}
        if "sign" in outputs and bool((targets["sign"] >= 0).any()):
            losses["sign"] = functional.cross_entropy(outputs["sign"], targets["sign"], ignore_index=-1)
        if "size" in outputs and bool((known := ~targets["size"].isnan()).any()):
            losses["size"] = functional.mse_loss(outputs["size"][known], targets["size"][known])
        return losses

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        del size
        count: Tensor = (target >= 0 if task == "sign" else ~target.isnan()).sum()
        return count

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        return {"sign": (Accuracy(),), "size": (MeanAbsoluteError(),)}


class Sevens:
    """Batches of seven samples without a length."""

    def __init__(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> None:
        self.inputs, self.targets = inputs, targets

    def __iter__(self) -> Any:
        for start in range(0, len(self.inputs), 7):
            rows = slice(start, start + 7)
            yield {"x": self.inputs[rows], **{task: target[rows] for task, target in self.targets.items()}}
