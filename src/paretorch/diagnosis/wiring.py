"""Faults in the wiring of a model and its losses: what the tasks share, and losses that do not depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from paretorch.diagnosis.gradients import GradientPass
from paretorch.diagnosis.subject import Subject

EQUAL = 1e-6  # relative distance up to which two gradients are equal


def shared_tensors(found: GradientPass, subject: Subject, batch: Any) -> list[int]:
    """The parameter tensors that two tasks or more reach.

    Args:
        found: the pass over all batches.
        subject: the copied model.
        batch: one of the batches.

    Raises:
        ValueError: there are none, or fewer than two tasks; the message names the cause.
    """
    tasks = found.tasks
    zeros = "; ".join(_always_zero(found, subject))
    if not tasks:
        raise ValueError(zeros or "losses_of returned no loss in any batch: expected a dict of a scalar loss by task")
    if len(tasks) == 1:
        raise ValueError(
            f"the losses are those of a single task, {tasks[0]!r}: there is nothing to balance, train it with its plain loss"
            + (f"; {zeros}" if zeros else "")
        )
    shared = [
        index for index in range(len(subject.parameters)) if sum(index in found.reached[task] for task in tasks) > 1
    ]
    if shared:
        return shared
    if not any(found.reached.values()):
        subject.check_uses_copy(batch)
    encoder = subject.encoder
    frozen = [name for name in subject.frozen if encoder is None or name.startswith(f"{encoder}.")]
    trainable = [name for name in subject.names if encoder is not None and name.startswith(f"{encoder}.")]
    if frozen and not trainable:
        where = f"the encoder {encoder!r}" if encoder else "the shared part of the model"
        raise ValueError(
            f"{where} is frozen: {len(frozen)} of its parameters have requires_grad=False ({frozen[0]!r}, ...), and the tasks "
            "share no other. Heads on a frozen encoder do not influence each other: train with the plain sum, or unfreeze it"
        )
    detached = _detached(found, subject)
    if detached:
        raise ValueError("; ".join(detached))
    raise ValueError(
        "the tasks share no parameter: each task's loss depends on parameters of its own, as with one model for each task, so "
        "there is nothing to balance. If an encoder should be shared, check that no head reads detached features (.detach(), "
        "torch.no_grad(), .item()) and that one module computes the features of all tasks"
    )


def problems(found: GradientPass, subject: Subject, shared: Sequence[int], foreign: int) -> list[str]:
    """Faults that leave something to measure, one sentence each."""
    return [
        *_detached(found, subject, shared),
        *_always_zero(found, subject),
        *_degenerate(found, shared),
        *_outside(foreign),
    ]


def _always_zero(found: GradientPass, subject: Subject) -> Iterator[str]:
    """Tasks that have no other loss than a zero without a graph."""
    for task in sorted(subject.zeros.difference(found.tasks)):
        yield (
            f"the loss of task {task!r} is a zero without a graph in every measured batch, which counts as one without labels: "
            "check its labels and masks"
        )


def _detached(found: GradientPass, subject: Subject, shared: Sequence[int] = ()) -> list[str]:
    """Tasks whose loss does not depend on what the others share."""
    result = []
    reading = (
        "a head that reads detached features (.detach(), torch.no_grad(), .item(), .numpy()) does not train the encoder"
    )
    for task in found.tasks:
        reached = found.reached[task]
        if not reached:
            result.append(
                f"the loss of task {task!r} depends on no parameter of the model: it is detached, computed under no_grad, or a "
                "constant"
            )
        elif subject.features is not None and found.on_features and task not in found.on_features:
            result.append(f"the loss of task {task!r} does not depend on {subject.place}: {reading}")
        elif shared and reached.isdisjoint(shared):
            result.append(f"the loss of task {task!r} reaches no parameter that another task reaches: {reading}")
    return result


def _degenerate(found: GradientPass, shared: Sequence[int]) -> Iterator[str]:
    """Constant losses, zero gradients and equal gradients."""
    gramians = found.on(shared)
    table = found.loss_table
    constant = []
    for place, task in enumerate(found.tasks):
        values = table[:, place][np.isfinite(table[:, place])]
        if len(values) > 1 and np.ptp(values) <= 1e-12 * abs(values).max():
            constant.append(task)
    if len(constant) == len(found.tasks):
        yield (
            "every loss has the same value in all batches: are the batches different? Intervals over equal batches mean nothing"
        )
    else:
        for task in constant:
            yield f"the loss of task {task!r} is the same number in all batches: it does not depend on the data"
    squares = np.einsum("ktt->kt", gramians)
    for place, task in enumerate(found.tasks):
        if not found.reached[task].isdisjoint(shared) and not squares[:, place].any():
            yield (
                f"the gradient of task {task!r} on the shared parameters is zero in all batches: its loss is saturated (a ReLU "
                "or a clamp that is never active), masked everywhere, or multiplied by zero"
            )
    for one, other in combinations(range(len(found.tasks)), 2):
        there = (squares[:, one] > 0) & (squares[:, other] > 0)
        distance = squares[:, one] + squares[:, other] - 2 * gramians[:, one, other]
        if there.any() and (distance[there] <= EQUAL**2 * squares[there, one]).all():
            yield (
                f"tasks {found.tasks[one]!r} and {found.tasks[other]!r} have identical gradients in all batches: they are one "
                "task twice; are two targets or two heads the same object?"
            )


def _outside(foreign: int) -> Iterator[str]:
    if foreign:
        yield (
            f"the losses depend on {foreign} parameters that do not belong to the model, which the warm-up did not train: give "
            "a module that contains encoder and heads, such as nn.ModuleList([encoder, heads])"
        )
