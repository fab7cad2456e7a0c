"""Models as stacked tensors, and their losses as functions of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paretorch.loop.evaluation import evaluate
from paretorch.loop.means import HostMeans
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch, features_of, outputs_of
from paretorch.workloads.streams import Stream


class Losses(nn.Module):
    """A workload's losses as a module, whose parameters ``functional_call`` can replace.

    Args:
        workload: computes the losses.
        model: with an encoder and heads by task.
    """

    def __init__(self, workload: Workload, model: nn.Module) -> None:
        super().__init__()
        self.workload = workload
        self.model = model
        self.present: tuple[bool, ...] = ()  # by task, in the last call

    def forward(self, batch: Batch, features: tuple[Any, ...] | None = None) -> Tensor:
        """(T,) losses in the order of the workload's tasks; absent tasks are zero, and False in :attr:`present`.

        Args:
            batch: one part per stream.
            features: of the encoder, by stream; None: they are computed.
        """
        outputs, targets = outputs_of(self.model, batch, features=features)
        found = self.workload.losses(outputs, targets)
        self.present = tuple(task in found for task in self.workload.tasks)
        zero = next(iter(found.values())).new_zeros(()) if found else next(self.model.parameters()).new_zeros(())
        return torch.stack([found.get(task, zero) for task in self.workload.tasks])


class Features(nn.Module):
    """The encoder of :class:`Losses`, with the same parameter names.

    Args:
        model: with an encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Any, ...]:
        """Features by stream."""
        return features_of(self.model, batch)


def score(
    workload: Workload, model: nn.Module, streams: tuple[Stream, ...], size: int
) -> tuple[Tensor, dict[str, dict[str, float]]]:
    """(T,) losses in float64 and the metrics by task and name, in eval mode, over every sample of a split once.

    Args:
        workload: defines the losses and metrics.
        model: returned to its mode afterwards.
        streams: of the split.
        size: B, samples per batch.
    """
    scores = evaluate(workload, model, streams, size, workload.metrics(), HostMeans())
    losses = [scores.losses.get(task, torch.nan) for task in workload.tasks]
    return torch.tensor(losses, dtype=torch.float64), {task: dict(of) for task, of in scores.metrics.items()}


def stacked(models: Sequence[nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(N, ...) trained parameters, and (N, ...) buffers and frozen parameters."""
    trained: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    tables = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    for name, first in tables[0].items():
        values = torch.stack([table[name].detach() for table in tables])
        trains = isinstance(first, nn.Parameter) and first.requires_grad
        (trained if trains else kept)[name] = values
    return trained, kept


@torch.no_grad()
def fill(model: nn.Module, trained: Mapping[str, Tensor], kept: Mapping[str, Tensor], member: int) -> None:
    """Copies the values of one member into a module."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in own.items():
        value.copy_((trained[name] if name in trained else kept[name])[member])
