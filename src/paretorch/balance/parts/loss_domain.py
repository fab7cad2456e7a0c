"""The check that losses are in the domain of a method."""

from __future__ import annotations

from torch import Tensor

from paretorch.core.contract import Evidence


def losses_above(evidence: Evidence, least: float, method: str, bound: str = "0") -> Tensor:
    """(T,) the losses, if all of them exceed ``least``.

    Args:
        evidence: with losses.
        least: the lower bound, exclusive.
        method: the name of the method in the message.
        bound: the name of the bound in the message.

    Raises:
        ValueError: a loss is not above the bound; the message names its task.
    """
    losses = evidence.needed("losses")
    for name, loss in zip(evidence.tasks, losses.tolist(), strict=True):
        if not loss > least:
            raise ValueError(f"{method} expects losses above {bound}, got {loss} for task {name!r}")
    return losses
