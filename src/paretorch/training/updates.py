"""The update of a run: one function ``update(batch) -> StepRecord`` for each kind of training."""

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
from paretorch.training.distributed.ranks import Ranks
from paretorch.training.line_search import LineSearchOptimizer
from paretorch.workloads import forward
from paretorch.workloads.base import Workload
from paretorch.workloads.forward import Batch, head_output


@dataclass(frozen=True)
class StepRecord:
    """The numbers of a step. Reading the losses waits for the device, so they are read only where a line is written.

    Args:
        losses: scalars by task, before the step, without a graph; without tasks that are absent.
        read_balance: returns the result of the method, when it is first used; None without a method.
        search: the step of a line search; None without one.
    """

    losses: Mapping[str, Tensor]
    read_balance: Callable[[], Balance | None] | None = None
    search: Step | None = None

    @cached_property
    def balance(self) -> Balance | None:
        """The result of the method."""
        return None if self.read_balance is None else self.read_balance()


Update = Callable[[Batch], StepRecord]
ALONE = Ranks()


def make_update(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    balancer: Fork | Balancer | None,
    precision: str = "float32",
    clip: float | None = None,
    ranks: Ranks = ALONE,
) -> Update:
    """The update for an optimizer and a Fork or Balancer.

    Args:
        workload: defines the losses.
        model: with an encoder and heads.
        optimizer: of its parameters. A line search or a multi-task optimizer is used without ``balancer``.
        balancer: None: the losses are added up.
        precision: ``"float32"`` or ``"bfloat16"``.
        clip: the norm to which the gradient of all parameters is clipped; a multi-task optimizer has ``max_norm`` instead.
        ranks: that train together, each on its share of a batch; a line search is for one process.
    """
    if isinstance(optimizer, LineSearchOptimizer):
        return by_search(workload, model, optimizer.search)
    if isinstance(optimizer, MultiTaskOptimizer):
        return by_optimizer(workload, model, optimizer, precision, ranks)
    if isinstance(balancer, Fork):
        return on_features(workload, model, optimizer, balancer, precision, clip, ranks)
    if isinstance(balancer, Balancer):
        return on_parameters(workload, model, optimizer, balancer, precision, clip, ranks)
    return plain(workload, model, optimizer, precision, clip, ranks)


def on_features(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fork: Fork,
    precision: str = "float32",
    clip: float | None = None,
    ranks: Ranks = ALONE,
) -> Update:
    """Balances on the features, within the backward pass."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        with _repeated_forward(model, fork.method.observes) as repeat:
            outputs, targets = outputs_in_precision(model, batch, precision, fork)
            losses = ranks.shared_losses(workload, batch, workload.losses(outputs, targets))
            if not losses.whole:
                return StepRecord({})
            # a rank without any label takes part in the Fork's collectives by a loss of zero; its forward still exists
            recorded = fork.losses(losses.local) if fork.needs_losses or not losses.local else losses.local
            del outputs, targets
            torch.autograd.backward(_sum(recorded))
            _step(optimizer, clip, ranks)
            repeat(lambda: fork.observe(losses.again(losses_of(workload, model, batch, precision))))
        return StepRecord(losses.whole, fork.deferred_balance())

    return update


def on_parameters(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    balancer: Balancer,
    precision: str = "float32",
    clip: float | None = None,
    ranks: Ranks = ALONE,
) -> Update:
    """Balances on the shared parameters, with a backward pass per task."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        with _repeated_forward(model, balancer.method.observes) as repeat:
            losses = ranks.shared_losses(workload, batch, losses_of(workload, model, batch, precision))
            if not losses.whole:
                return StepRecord({})
            balance = _without_update(balancer.backward(losses.local))
            _step(optimizer, clip, ranks)
            repeat(lambda: balancer.observe(losses.again(losses_of(workload, model, batch, precision))))
        return StepRecord(losses.whole, lambda: balance)

    return update


def by_optimizer(
    workload: Workload,
    model: nn.Module,
    optimizer: MultiTaskOptimizer,
    precision: str = "float32",
    ranks: Ranks = ALONE,
) -> Update:
    """Passes the losses to a multi-task optimizer, which computes the gradient of each task."""

    def update(batch: Batch) -> StepRecord:
        losses = ranks.shared_losses(workload, batch, losses_of(workload, model, batch, precision))
        if not losses.whole:
            return StepRecord({})
        optimizer.step(losses.local)  # averages the gradients over ranks
        balance = optimizer.balance
        return StepRecord(losses.whole, lambda: balance)

    return update


def by_search(workload: Workload, model: nn.Module, search: LineSearch) -> Update:
    """Moves the parameters with a line search."""
    heads: Mapping[str, nn.Module] = model.heads  # type: ignore[assignment]

    def update(batch: Batch) -> StepRecord:
        inputs = tuple(samples.inputs for samples in batch)
        targets = {
            task: target for samples in batch for task, target in samples.targets.items() if task in heads
        }  # fmt: skip

        def losses(features: tuple[Any, ...]) -> Mapping[str, Tensor]:
            outputs = {
                task: head_output(heads, task, own)
                for samples, own in zip(batch, features, strict=True)
                for task in samples.targets
                if task in heads
            }
            return workload.losses(outputs, targets)

        step = search.step(inputs, losses)
        balance = _without_update(step.balance)
        return StepRecord(step.losses, lambda: balance, replace(step, balance=balance))

    return update


def plain(
    workload: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: str = "float32",
    clip: float | None = None,
    ranks: Ranks = ALONE,
) -> Update:
    """Descends the sum of the losses: a single task, or no balancing."""

    def update(batch: Batch) -> StepRecord:
        optimizer.zero_grad(set_to_none=True)
        losses = ranks.shared_losses(workload, batch, losses_of(workload, model, batch, precision))
        if not losses.whole:
            return StepRecord({})
        if losses.local:
            torch.autograd.backward(_sum(losses.local))
        _step(optimizer, clip, ranks)
        return StepRecord(losses.whole)

    return update


def losses_of(
    workload: Workload, model: nn.Module, batch: Batch, precision: str, fork: Fork | None = None
) -> dict[str, Tensor]:
    """The losses of a batch by task; with a fork, heads read its outputs."""
    outputs, targets = outputs_in_precision(model, batch, precision, fork)
    return workload.losses(outputs, targets)


def outputs_in_precision(
    model: nn.Module, batch: Batch, precision: str, fork: Fork | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The heads' outputs, in float32 or float64, and the targets, by task of the model.

    Where tasks have inputs of their own, the features of all streams are one tuple for the fork: a step has one forward of it.
    """
    with _autocast(model) if precision == "bfloat16" else nullcontext():
        outputs, targets = forward.outputs_of(model, batch, fork)
    wide = {
        task: _widen(output) if isinstance(output, Tensor) else tree_map_only(Tensor, _widen, output)
        for task, output in outputs.items()
    }
    return wide, targets


def _autocast(model: nn.Module) -> torch.autocast:
    return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)


def _step(optimizer: torch.optim.Optimizer, clip: float | None, ranks: Ranks = ALONE) -> None:
    """The optimizer's step, after the gradient of all parameters was averaged over ranks and clipped to the norm ``clip``."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    ranks.average_gradients(parameters)
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return reduce(torch.add, losses.values())


def _widen(output: Tensor) -> Tensor:
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


def _without_update(balance: Balance | None) -> Balance | None:
    """The result of a method without its combined gradient, which is as large as the shared parameters or features."""
    return balance if balance is None or balance.update is None else replace(balance, update=None)


@contextmanager
def _repeated_forward(model: nn.Module, needed: bool) -> Iterator[Callable[[Callable[[], None]], None]]:
    """A function that repeats a forward with the dropout masks of the first one in the block and without side effects.

    A method that compares the losses before and after a step needs the step to be the only difference. Running statistics and
    the states of the random generators are restored, so that the next step draws the same numbers as without the repetition.
    """
    if not needed:
        yield lambda _: None
        return
    device = next(model.parameters()).device
    before = randomness.capture(device)

    def repeat(forward: Callable[[], None]) -> None:
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with randomness.preserved(device), torch.no_grad():
            randomness.restore(before, device)
            forward()
            for buffer, value in buffers:
                buffer.copy_(value)

    yield repeat
