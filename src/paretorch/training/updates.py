"""The seam of the loop: each way of updating is one function that returns ``update(batch) -> StepRecord``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from paretorch.core.balancer.balancer import Balancer
from paretorch.core.contract import Balance
from paretorch.core.fork.fork import Fork
from paretorch.linesearch import LineSearch, Step
from paretorch.optim.multitask import MultiTaskOptimizer
from paretorch.training import randomness
from paretorch.training.line_search import Searched
from paretorch.workloads import forward as passes
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch


@dataclass(frozen=True)
class StepRecord:
    """What a step says. Reading the losses waits for the device; the loop does so only when it writes a line.

    Args:
        losses: scalars by task, before the step, without a graph; tasks that were absent are left out.
        said: gives what the method said, and can wait; None without one.
        search: what a line search said; None without one.
    """

    losses: Mapping[str, Tensor]
    said: Callable[[], Balance | None] | None = None
    search: Step | None = None

    @cached_property
    def balance(self) -> Balance | None:
        """What the method said."""
        return None if self.said is None else self.said()


Update = Callable[[Batch], StepRecord]


def choose(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    door: Fork | Balancer | None,
    precision: str = "float32",
    clip: float | None = None,
) -> Update:
    """The update that goes with an optimizer and a door: by the optimizer, on features, on parameters, or plain.

    ``clip`` is the length to which the gradient of all parameters is shortened before the step; an optimizer that takes
    each task's gradient by itself has a ``max_norm`` of its own instead.
    """
    if isinstance(optimizer, Searched):
        return by_search(workload, model, optimizer.search)
    if isinstance(optimizer, MultiTaskOptimizer):
        return by_optimizer(workload, model, optimizer, precision)
    if isinstance(door, Fork):
        return on_features(workload, model, optimizer, door, precision, clip)
    if isinstance(door, Balancer):
        return on_parameters(workload, model, optimizer, door, precision, clip)
    return plain(workload, model, optimizer, precision, clip)


def on_features(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fork: Fork,
    precision: str = "float32",
    clip: float | None = None,
) -> Update:
    """Balances inside an ordinary backward, on the features."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        with _same_draws(model, fork.method.observes) as again:
            losses = losses_of(workload, model, batch, precision, fork)
            if not losses:
                return StepRecord({})
            told = fork.losses(losses) if fork.needs_losses else losses
            torch.autograd.backward(_sum(told))
            _move(optimizer, clip)
            again(lambda: fork.observe(losses_of(workload, model, batch, precision)))
        return StepRecord(_detached(losses), fork.deferred_balance())

    return update


def on_parameters(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    balancer: Balancer,
    precision: str = "float32",
    clip: float | None = None,
) -> Update:
    """Balances on the shared parameters, exactly."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        with _same_draws(model, balancer.method.observes) as again:
            losses = losses_of(workload, model, batch, precision)
            if not losses:
                return StepRecord({})
            balance = _held(balancer.backward(losses))
            _move(optimizer, clip)
            again(lambda: balancer.observe(losses_of(workload, model, batch, precision)))
        return StepRecord(_detached(losses), lambda: balance)

    return update


def by_optimizer(
    workload: Workload, model: nn.Module, optimizer: MultiTaskOptimizer, precision: str = "float32"
) -> Update:
    """Hands the losses to an optimizer that takes the gradient of each task by itself."""

    def update(batch: Batch) -> StepRecord:
        losses = losses_of(workload, model, batch, precision)
        if not losses:
            return StepRecord({})
        optimizer.step(losses)
        balance = optimizer.balance
        return StepRecord(_detached(losses), lambda: balance)

    return update


def by_search(workload: Workload, model: nn.Module, search: LineSearch) -> Update:
    """Lets a line search move the parameters."""
    heads: Mapping[str, nn.Module] = model.heads  # type: ignore[assignment]

    def update(batch: Batch) -> StepRecord:
        inputs = tuple(samples.inputs for samples in batch)
        targets = {
            task: target for samples in batch for task, target in samples.targets.items() if task in heads
        }  # fmt: skip

        def losses(features: tuple[Any, ...]) -> Mapping[str, Tensor]:
            outputs = {
                task: heads[task](own)
                for samples, own in zip(batch, features, strict=True)
                for task in samples.targets
                if task in heads
            }
            return workload.losses(outputs, targets)

        step = search.step(inputs, losses)
        balance = _held(step.balance)
        return StepRecord(step.losses, lambda: balance, replace(step, balance=balance))

    return update


def plain(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: str = "float32",
    clip: float | None = None,
) -> Update:
    """The sum of the losses: one task alone, or no balancing."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        losses = losses_of(workload, model, batch, precision)
        if not losses:
            return StepRecord({})
        torch.autograd.backward(_sum(losses))
        _move(optimizer, clip)
        return StepRecord(_detached(losses))

    return update


def losses_of(
    workload: Workload, model: nn.Module, batch: Batch, precision: str, fork: Fork | None = None
) -> dict[str, Tensor]:
    """The losses of a batch by task; features go through the fork where there is one."""
    outputs, targets = outputs_of(model, batch, precision, fork)
    return workload.losses(outputs, targets)


def outputs_of(
    model: nn.Module, batch: Batch, precision: str, fork: Fork | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The heads' outputs, in float32 or better, and the targets, by task of the model.

    Where tasks have their own inputs, the features of all streams go through the fork together, as one tuple: a step is
    one forward of the fork.
    """
    with _lowered(model) if precision == "bfloat16" else nullcontext():
        outputs, targets = passes.outputs_of(model, batch, fork)
    wide = {
        task: _widened(output) if isinstance(output, Tensor) else tree_map_only(Tensor, _widened, output)
        for task, output in outputs.items()
    }
    return wide, targets


def _lowered(model: nn.Module) -> torch.autocast:
    return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)


def _move(optimizer: torch.optim.Optimizer, clip: float | None) -> None:
    """The step, by a gradient that is no longer than ``clip``."""
    if clip is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return reduce(torch.add, losses.values())


def _widened(output: Tensor) -> Tensor:
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


def _held(balance: Balance | None) -> Balance | None:
    """What a record may hold: without the combined gradient of a Jacobian method, which is as long as the surface."""
    return balance if balance is None or balance.update is None else replace(balance, update=None)


def _detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {task: loss.detach() for task, loss in losses.items()}


@contextmanager
def _same_draws(model: nn.Module, needed: bool) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Gives a function that runs a forward with the dropout masks of the block's first one, and leaves no trace of it.

    A method that compares the losses before and after a step wants the step to be the only difference. Running
    statistics are put back, and so are the random numbers, so that the next step draws what it would have drawn.
    """
    if not needed:
        yield lambda _: None
        return
    device = next(model.parameters()).device
    before = randomness.capture(device)

    def again(forward: Callable[[], None]) -> None:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with randomness.kept(device), torch.no_grad():
            randomness.restore(before, device)
            forward()
            for buffer, value in buffers:
                buffer.copy_(value)

    yield again
