"""Losses outside the domain of a method are named, with their task."""

from __future__ import annotations

from torch import Tensor

from paretorch.core.contract import Evidence


def losses_above(evidence: Evidence, least: float, who: str, bound: str = "0") -> Tensor:
    """(T,) the losses, all of them above ``least``.

    Args:
        evidence: with losses.
        least: what every loss must exceed.
        who: the method, as the message names it.
        bound: ``least``, as the message names it.

    Raises:
        ValueError: a loss is not; names its task.
    """
    losses = evidence.needed("losses")
    for name, loss in zip(evidence.tasks, losses.tolist(), strict=True):
        if not loss > least:
            raise ValueError(f"{who} expects losses above {bound}, got {loss} for task {name!r}")
    return losses
