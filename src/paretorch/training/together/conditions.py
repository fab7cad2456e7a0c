"""Which runs can be trained together, and which are faster so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paretorch.core.fork.fork import Fork
from paretorch.training.resolved_run import ResolvedRun
from paretorch.training.run import Run
from paretorch.workloads.forward import Batch, outputs_of
from paretorch.workloads.streams import TensorStream

# Optimizers that treat every entry of a parameter alike, so that a step on stacked parameters is the step of each of them.
ELEMENTWISE: tuple[type[torch.optim.Optimizer], ...] = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
# Of the forward pass of one run on a batch. On a CPU, stacked convolutions are slower than separate ones where they are larger:
# 5 runs took 0.61 of the time at 8e6 operations (digits), 0.85 at 1e8 (scenes) and 1.5 at 2.5e8 (MultiMNIST).
MOST_OPERATIONS = 1e8


class SeparateError(Exception):
    """Why runs are trained separately."""


def check_runs(runs: Sequence[Run]) -> None:
    """Checks what is known without data and models.

    Raises:
        SeparateError: the runs are trained separately.
    """
    if len({replace(run, seed=0).key for run in runs}) > 1:
        raise SeparateError("they differ in more than the seed")
    if len(runs) < 2:
        raise SeparateError("fewer than two runs are left")
    run = runs[0]
    if run.front:
        raise SeparateError("a front trains its models together by itself")
    if run.precision != "float32":
        raise SeparateError(f"the precision is {run.precision}")
    if run.deterministic:
        raise SeparateError("batched kernels round differently, and the run is to be deterministic")


def check_resolved(run: ResolvedRun) -> None:
    """Checks optimizer, balancer and data.

    Raises:
        SeparateError: the runs are trained separately.
    """
    if type(run.optimizer) not in ELEMENTWISE:
        raise SeparateError(f"a step of {type(run.optimizer).__name__} on stacked parameters is not that of each run")
    fork = run.balancer
    if fork is not None and not isinstance(fork, Fork):
        raise SeparateError("the gradients are balanced on the parameters")
    if isinstance(fork, Fork) and (fork.heads != "own" or fork.nonfinite != "pass" or fork.gap is not None):
        raise SeparateError("of a Fork's options heads, nonfinite and gap, one is not the default")
    if not all(type(stream) is TensorStream for stream in run.splits.train):
        raise SeparateError("the training data are not in memory")


def check_cost(model: nn.Module, batch: Batch) -> None:
    """Checks that batched kernels are faster: many small operations.

    Raises:
        SeparateError: the runs are trained separately.
    """
    if next(model.parameters()).device.type != "cpu":
        return
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs_of(model.eval(), batch)
    model.train()
    if counter.get_total_flops() > MOST_OPERATIONS:
        raise SeparateError(
            f"a forward pass takes {counter.get_total_flops():.2g} operations, more than {MOST_OPERATIONS:.2g}"
        )
