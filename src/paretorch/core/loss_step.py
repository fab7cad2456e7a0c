"""One backward of weighted losses whose gradients are checked before they reach ``.grad``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paretorch.core.distributed import Ranks
from paretorch.core.evidence import summing_dtype
from paretorch.core.graph import Reach, hooks_silenced, reach
from paretorch.core.seen import Mask, Outcome


class Weighted(NamedTuple):
    """The gradients of weighted losses, not yet in ``.grad``."""

    leaves: list[Tensor]
    gradients: list[Tensor]
    suspects: list[str]  # the tasks whose gradient is not finite
    certain: bool = True  # whether each of them is known to be one, or only that some of them is


def descend_losses(
    given: Mapping[str, Tensor],
    tasks: Sequence[str],
    weigh: Callable[[Mask], Outcome],
    nonfinite: str,
    ranks: Ranks,
    retain_graph: bool,
) -> None:
    """Add the gradient of the weighted losses to ``.grad``, by one backward; nothing is added where it is not finite.

    Args:
        given: losses by task.
        tasks: (all,) names.
        weigh: the weights, without the (all,) tasks whose gradient was found not to be finite; raises where that is an error.
        nonfinite: ``"pass"``: gradients are not looked at; ``"skip"``: tasks whose gradient is not finite are left out;
            ``"raise"``: they are named.
        ranks: those that decide together.
        retain_graph: keep the graph for another backward.

    Raises:
        FloatingPointError: where some gradient is not finite and it cannot be told whose.
    """
    broken = np.zeros(len(tasks), bool)
    while True:
        weights = weigh(broken).weights
        assert weights is not None
        factors = {name: weights[tasks.index(name)] for name in given}
        used = {name: loss for name, loss in given.items() if factors[name] != 0}
        starts = [loss.new_tensor(factors[name]) for name, loss in used.items()]
        found = None if nonfinite == "pass" else weighted_gradients(used, starts, nonfinite == "skip", retain_graph)
        here = np.isin(tasks, [] if found is None else found.suspects)
        if nonfinite != "pass" and not ranks.alone:
            here = ranks.sum(torch.from_numpy(here.astype(np.float64))).numpy() > 0
        if not here.any():
            break
        if found is not None and not found.certain:
            raise FloatingPointError(
                f"the gradient of one of {', '.join(map(repr, found.suspects))} is not finite; .grad is as before. "
                "Balancer(..., nonfinite='skip') finds out which, and leaves it out"
            )
        broken = broken | here
    if found is None and used:
        torch.autograd.backward(list(used.values()), starts, retain_graph=retain_graph)
    elif found is not None and found.leaves:
        torch.autograd.backward(found.leaves, found.gradients)


def weighted_gradients(
    losses: Mapping[str, Tensor], starts: Sequence[Tensor], exact: bool, retain_graph: bool
) -> Weighted | None:
    """The gradient of ``sum_t w_t L_t`` on all leaves by one backward, and whose part of it is not finite.

    Where every task has a parameter of its own, these tell the tasks apart, and the graph is freed on the way as in an ordinary
    backward. Where some task has none, or ``exact`` is asked for, the graph is kept until the losses are released, so that the
    tasks can be looked at one by one in the rare step that is not finite.

    Args:
        losses: by task.
        starts: their factors, in the same order.
        exact: whether it must be certain whose gradient is not finite.
        retain_graph: keep the graph for another backward.

    Returns:
        None where the graph holds nodes that cannot be asked for gradients without side effects (compiled functions, reentrant
        checkpoints, wrappers of distributed training).
    """
    graph = reach([[loss] for loss in losses.values()])
    if graph.opaque:
        return None
    names, keeps = list(losses), exact or not _have_own(graph, len(losses))
    found = _gradients(list(losses.values()), starts, graph.leaves, retain_graph or keeps)
    there = [place for place, part in enumerate(found) if part is not None]
    parts = [part for part in found if part is not None]
    result = Weighted([graph.leaves[place] for place in there], parts, [])
    if all_finite(parts):
        return result
    if keeps:
        rows = [
            _gradients([loss], [start], graph.leaves, True) for loss, start in zip(losses.values(), starts, strict=True)
        ]
        bad = [not all_finite([part for part in row if part is not None]) for row in rows]
        return result._replace(suspects=list(compress(names, bad)))
    reaching = [
        graph.tasks[place] for place in there if not all_finite([part for part in [found[place]] if part is not None])
    ]
    own = frozenset[int]().union(*(tasks for tasks in reaching if len(tasks) == 1))
    suspects = own or frozenset.intersection(*reaching) or frozenset.union(*reaching)
    return result._replace(suspects=[names[task] for task in sorted(suspects)], certain=bool(own) or len(suspects) == 1)


def _have_own(graph: Reach, tasks: int) -> bool:
    return len({next(iter(reaching)) for reaching in graph.tasks if len(reaching) == 1}) == tasks


def _gradients(
    losses: Sequence[Tensor], starts: Sequence[Tensor], leaves: Sequence[Tensor], retain_graph: bool
) -> list[Tensor | None]:
    with hooks_silenced(leaves):
        return list(torch.autograd.grad(losses, leaves, starts, retain_graph=retain_graph, allow_unused=True))


def all_finite(parts: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite: by sums, and one by one where a sum is not."""
    values = [part.coalesce().values() if part.is_sparse else part for part in parts]
    if not values:
        return True
    sums = [value.sum(dtype=None if value.is_complex() else summing_dtype(value.dtype)) for value in values]
    wide = torch.stack([torch.view_as_real(s).sum() if s.is_complex() else s.to(torch.float64) for s in sums])
    return bool(torch.isfinite(wide).all()) or all(bool(torch.isfinite(value).all()) for value in values)
