"""A workload for the tests of training: two tasks, dropout and batch norm, a fraction of a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads import (
    Accuracy,
    MeanAbsoluteError,
    Metric,
    MultiTaskModel,
    Splits,
    Stream,
    TensorStream,
    Workload,
)


@dataclass(frozen=True)
class Tiny(Workload):
    """The sign and the size of a random linear map.

    Args:
        own_inputs: each task has its own stream, the second a third as long.
        missing: every second label of ``sign`` is missing.
        samples: to train on.
        width: of the encoder.
        dropout: its probability, in the encoder.
    """

    title = "for tests"

    own_inputs: bool = False
    missing: bool = False
    samples: int = 60
    width: int = 6
    dropout: float = 0.2

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("sign", "size")

    def data(self) -> Splits:
        return Splits(*(self._streams(count, seed) for seed, count in enumerate((self.samples, 24, 24))))  # type: ignore[arg-type]

    def _streams(self, count: int, seed: int) -> tuple[Stream, ...]:
        def stream(tasks: tuple[str, ...], count: int, seed: int) -> TensorStream:
            inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
            sign = (inputs[:, 0] > 0).long()
            if self.missing:
                sign[::2] = -1
            targets = {"sign": sign, "size": 30 * inputs.sum(dim=1)}
            return TensorStream(inputs, {task: targets[task] for task in tasks})

        if self.own_inputs:
            return stream(("sign",), count, seed), stream(("size",), max(1, count // 3), seed + 10)
        return (stream(self.tasks, count, seed),)

    def model(self) -> nn.Module:
        encoder = nn.Sequential(
            nn.Linear(4, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Dropout(self.dropout)
        )
        return MultiTaskModel(encoder, {"sign": nn.Linear(self.width, 2), "size": nn.Linear(self.width, 1)})

    def losses(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        losses = {}
        if "sign" in outputs and bool((targets["sign"] >= 0).any()):
            losses["sign"] = functional.cross_entropy(outputs["sign"], targets["sign"], ignore_index=-1)
        if "size" in outputs:
            losses["size"] = functional.mse_loss(outputs["size"].squeeze(1), targets["size"])
        return losses

    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        return {"sign": (Accuracy(),), "size": (SizeError(),)}

    def labelled(self, task: str, target: Any, size: int) -> int | Tensor:
        return (target >= 0).sum() if task == "sign" else size


class SizeError(MeanAbsoluteError):
    def update(self, output: Tensor, target: Tensor) -> None:
        super().update(output.squeeze(1), target)
