"""Lightning modules of the loops in ``framework_loops``. Imported by the spawned processes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from framework_loops import Batch, Loop, optimizer_of, vector
from small_models import total

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


class Module(LightningModule):  # type: ignore[misc]
    """Automatic optimization returns the total; manual optimization calls ``manual_backward`` on it."""

    def __init__(self, loop: Loop, manual: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.loop, self.task_losses, self.balancer = loop, loop.model(), loop.balancer()

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        losses = self.task_losses(batch)
        loss = total(losses) if self.balancer is None else self.balancer.total(losses)
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        self.manual_backward(loss / self.loop.micro)
        if (index + 1) % self.loop.micro == 0:
            if self.loop.clip:
                self.clip_gradients(optimizer, self.loop.clip, "norm")
            optimizer.step()
            optimizer.zero_grad()
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.balancer is not None:
            self.balancer.flush()  # the last step of an epoch may have fewer micro-batches

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self.task_losses.parameters())


def fit(module: Module, rank: int = 0, resume: Path | None = None, **options: Any) -> Trainer:
    """One epoch of Lightning's own loop."""
    loop = module.loop
    if module.automatic_optimization:
        options |= {"accumulate_grad_batches": loop.micro, "gradient_clip_val": loop.clip or None}
    if loop.autocast:
        options |= {"precision": "bf16-mixed"}
    trainer = Trainer(**QUIET | {"max_epochs": 1, "devices": 1} | options)
    batches: Any = loop.batches(rank)
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=None if resume is None else str(resume))
    return trainer


def on_this_rank(rank: int, **options: Any) -> dict[str, Any]:
    """Options of a Trainer in a process that a launcher started; a Trainer that ends deletes these variables."""
    ranks = dist.get_world_size()
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(ranks)}
    return {"devices": ranks, "strategy": DDPStrategy(process_group_backend="gloo", **options)}


def fitted_on_ranks(rank: int, cases: tuple[tuple[Loop, bool, bool], ...]) -> list[Tensor]:
    """The parameters of each case (loop, manual, unused) on this rank of DistributedDataParallel."""
    results = []
    for loop, manual, unused in cases:
        module = Module(loop, manual)
        fit(module, rank, **on_this_rank(rank, find_unused_parameters=unused))
        results.append(vector(module.task_losses))
    return results


def refusal_of_unused(rank: int, manual: bool) -> str:
    """The error of a total within a wrapper that searches for unused parameters."""
    try:
        fit(Module(Loop(), manual), rank, **on_this_rank(rank, find_unused_parameters=True))
    except ValueError as error:
        return str(error)
    return "nothing was raised"
