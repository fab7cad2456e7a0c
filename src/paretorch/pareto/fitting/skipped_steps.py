"""The warning of a step of a front that is skipped, with the tasks that are not finite."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from paretorch.core.gradients.finite import all_finite
from paretorch.pareto.models.global_generator import GLOBAL_GENERATOR
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch, outputs_of


class DivergedWarning(UserWarning):
    """A model of a front has diverged, or a step of the training of a front was skipped."""


def warn_skipped(number: int, tasks: Sequence[str], models: Sequence[int] = ()) -> None:
    """Warns that a step is skipped.

    Args:
        number: of the step.
        tasks: whose loss or gradient is not finite.
        models: of which it is; empty: there is one for all preferences.
    """
    of_models = f" of model{'s' * (len(models) > 1)} {', '.join(map(str, models))}" if models else ""
    named = f"the loss or gradient of {', '.join(map(repr, tasks))}" if tasks else "a gradient"
    warnings.warn(
        f"step {number} of the front: {named}{of_models} is not finite. This step is skipped, as all such steps are: check the "
        "inputs and the targets, or use a smaller learning rate",
        DivergedWarning,
        stacklevel=4,
    )


def broken_tasks(workload: Workload, model: nn.Module, batch: Batch, seed: int) -> list[str]:
    """The tasks whose loss or gradient is not finite for a model, by a backward for each.

    Args:
        workload: computes the losses.
        model: a copy, whose buffers may change.
        batch: one part per stream.
        seed: of the random numbers of the forward pass.
    """
    leaves = [leaf for leaf in model.parameters() if leaf.requires_grad]
    devices = [leaves[0].device] if leaves and leaves[0].device.type == "cuda" else []
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        outputs, targets = outputs_of(model, batch)
        losses = workload.losses(outputs, targets)
    found = []
    for task, loss in losses.items():
        gradients = (
            torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True) if loss.requires_grad else ()
        )
        if not all_finite([loss.detach(), *gradients]):
            found.append(task)
    return found
