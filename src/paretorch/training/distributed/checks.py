"""Checks that a run can be trained by several ranks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from paretorch.training.distributed.ranks import Ranks
from paretorch.training.line_search import searches
from paretorch.training.run import Run

BATCH_STATISTICS = (
    "the model has batch norm, whose statistics in training are of each rank's share of a batch, so the numbers differ from "
    "those of one process; the running statistics are those of rank 0"
)


def check_ranks(run: Run, ranks: Ranks) -> None:
    """Checks that the ranks can train a run together.

    Raises:
        ValueError: the run is for one process; the message names the reason.
    """
    if ranks.size == 1:
        return
    alone = "train it in one process, without torchrun"
    if run.front:
        raise ValueError(f"a front ({run.front}) is a set of models that one process trains: {alone}")
    if run.optimizer in searches():
        raise ValueError(
            f"{run.optimizer} is a line search, which compares losses along a line in one process: {alone}, or use an optimizer "
            "of torch.optim"
        )
    if run.batch_size < ranks.size:
        raise ValueError(
            f"batch_size is the number of samples of all ranks together, at least one for each of {ranks.size} ranks, got "
            f"{run.batch_size}"
        )
    device = torch.device(run.device)
    if device.type == "mps" or device.index is not None:
        raise ValueError(
            f"each of {ranks.size} ranks needs a device of its own, got {run.device!r}: use 'cuda', of which each rank takes "
            "one, or 'cpu'"
        )


def depends_on_shares(model: nn.Module) -> bool:
    """Whether a layer computes statistics of the samples of one rank."""
    return any(
        isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) for module in model.modules()
    )
