"""The option ``samples`` of a Balancer: its check, and the messages about graphs that do not support it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paretorch.core.contract import Method, Need
from paretorch.core.gradients.graph import OPAQUE
from paretorch.core.option_checks import check_whole


def check_samples(samples: int | None, method: Method[Any]) -> None:
    """Raise ValueError unless the option is None, or a positive integer and the method uses the Gramian of one batch."""
    if samples is None:
        return
    check_whole("samples", samples, unit=", or None for the whole batch")
    if Need.GRAMIAN not in method.needs or method.batches > 1:
        raise ValueError(
            f"samples={samples} is for methods that use the Gramian of one batch, and {method} does not: leave it out"
        )


def samples_refusal(samples: int | None, opaque: Iterable[str]) -> str:
    """The error for a graph in which the contributions of single samples cannot be separated."""
    hidden = ", ".join(sorted(OPAQUE[name] for name in opaque))
    if hidden:
        return f"samples={samples} is not supported through {hidden}: leave samples out"
    return (
        f"samples={samples} needs tensors that separate the shared parameters from the tasks. Here one task uses an intermediate "
        "tensor of what another task uses as a whole, or part of shared= directly, or some tasks use the same inputs and another "
        "has its own, or a hook changes gradients at such a tensor: leave samples out"
    )


def samples_of_single_number(samples: int | None) -> str:
    """The error for tasks that share a single number."""
    return (
        f"samples={samples} needs tensors with a batch dimension between the shared parameters and the tasks, and one of them "
        "is a single number: leave samples out"
    )


def samples_save_nothing(samples: int | None) -> str:
    """The warning for a graph in which the Gramian of some samples costs as much as that of all samples."""
    return (
        f"samples={samples} saves no time on this model: its shared part has layers that combine several samples "
        "(BatchNorm in training mode) or that Paretorch has no rule for, or each task has inputs of its own; "
        "the Gramian of the whole batch costs no more, and one process computes that: leave samples out"
    )
