"""The difference between an update computed on features and the exact one on the encoder's parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.gradients.graph import task_gradients, task_graph
from paretorch.core.gradients.rank_gramians import summed_gramian
from paretorch.core.gradients.ranks import Ranks
from paretorch.core.gradients.task_gradients import Gradients


def parameter_gramian(features: Sequence[Tensor], gradients: Gradients, ranks: Ranks) -> Array:
    """(all, all) inner products of the task gradients on the encoder's parameters, from the gradients on its features.

    It takes one backward of the encoder for each task that is present.

    Raises:
        RuntimeError: the features have no graph, as within a compiled function.
    """
    if not all(leaf.requires_grad for leaf in features):
        raise RuntimeError(
            "gap= runs backwards of the encoder, which is in one compiled function with the Fork: compile the encoder and the "
            "heads apart, as in model.encoder.compile(), or leave gap out"
        )
    leaves = task_graph([features]).leaves
    rows: list[list[Tensor | None] | None] = [None] * gradients.tasks
    for task in gradients.known:
        unit = [float(other == task) for other in range(gradients.tasks)]
        rows[task] = task_gradients(features, gradients.combined(unit), leaves, retain_graph=True)
    return summed_gramian(Gradients(rows, leaves), ranks)


def gap_between(exact: Array, used: Sequence[float] | Array, expected: Sequence[float] | Array) -> dict[str, float]:
    """The cosine between the update in use and the exact one, and the smallest cosine of the former with a task gradient.

    Args:
        exact: (all, all) Gramian on the parameters.
        used: (all,) weights of the update in use.
        expected: (all,) weights of the method for the Gramian on the parameters.
    """
    used, expected = np.asarray(used), np.asarray(expected)
    length, other = (math.sqrt(max(float(weights @ exact @ weights), 0.0)) for weights in (used, expected))
    present = exact.diagonal() > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # nan where an update is zero
        with_tasks = (exact @ used)[present] / (np.sqrt(exact.diagonal()[present]) * length)
        return {
            "cosine": float(used @ exact @ expected / (length * other)),
            "worst_task_cosine": float(with_tasks.min()),
        }
