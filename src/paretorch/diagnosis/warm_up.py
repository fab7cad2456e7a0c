"""A short training of the copied model, so that measurements are not those of random weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import torch

from paretorch.diagnosis.subject import NonFiniteLossError, Subject

MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
RATE = 1e-3


def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the warm-up unless another is given."""
    return torch.optim.Adam(parameters, lr=RATE)


def warm_up(
    subject: Subject,
    batches: Iterable[object],
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, float],
    steps: int,
    seconds: float,
) -> int:
    """Trains the copy on the weighted sum of the losses.

    Args:
        subject: the copied model.
        batches: at least as many as steps.
        optimizer: of its parameters.
        weights: of the losses, so that every task is trained, whatever its scale.
        steps: number of steps.
        seconds: after which the training ends early.

    Returns:
        The number of steps.

    Raises:
        ValueError: a loss is no longer finite.
    """
    if steps == 0:
        return 0
    began, done = time.perf_counter(), 0
    for batch in batches:
        try:
            losses = subject.losses(batch)
        except NonFiniteLossError as error:
            raise ValueError(
                f"the warm-up training diverged in step {done + 1}: {error}; or give a smaller learning rate, "
                "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.001)"
            ) from error
        terms = [weights.get(task, 1.0) * loss for task, loss in losses.items() if loss.requires_grad]
        optimizer.zero_grad(set_to_none=True)
        if terms:
            torch.autograd.backward(torch.stack([term.reshape(()) for term in terms]).sum())
            optimizer.step()
        done += 1
        if done == steps or time.perf_counter() - began > seconds:
            break
    optimizer.zero_grad(set_to_none=True)
    return done
