"""The loops in ``framework_loops`` by Accelerate. Imported by the spawned processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor
from torch.utils.data import DataLoader

from framework_loops import Loop, optimizer_of, samples, vector
from small_models import TASKS, total


def accelerated(loop: Loop, ranks: int = 1, save: Path | None = None, load: Path | None = None) -> Tensor:
    """The parameters after one epoch; its state is saved after the second step, or loaded before the third."""
    AcceleratorState._reset_state()
    GradientState._reset_state()
    precision = "bf16" if loop.autocast else "no"
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=loop.micro, mixed_precision=precision)
    model: Any = loop.model()
    data: Any = samples(loop, ranks)
    loader: Any = DataLoader(data, batch_size=12)
    model, optimizer, loader = accelerator.prepare(model, optimizer_of(model.parameters()), loader)
    balancer = loop.balancer()
    if balancer is not None:
        accelerator.register_for_checkpointing(balancer)
    for index, batch in enumerate(loader):
        if load is not None and index < 2:
            continue
        if index == 2 and load is not None:
            accelerator.load_state(str(load))
        if index == 2 and save is not None:
            accelerator.save_state(str(save))
        with accelerator.accumulate(model):
            losses = model((batch["x"], {task: batch[task] for task in TASKS}))
            accelerator.backward(total(losses) if balancer is None else balancer.total(losses))
            if accelerator.sync_gradients:
                if balancer is not None:
                    balancer.flush()
                if loop.clip:
                    accelerator.clip_grad_norm_(model.parameters(), loop.clip)
            optimizer.step()
            optimizer.zero_grad()
    return vector(accelerator.unwrap_model(model))


def accelerated_on_ranks(rank: int, cases: tuple[Loop, ...]) -> list[Tensor]:
    """The parameters of each case on this rank of DistributedDataParallel."""
    os.environ |= {"LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    return [accelerated(loop, 2) for loop in cases]
