"""The weights of a projection on the dual cone of the gradients."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Status
from paretorch.core.method.preference import Preference, on_simplex
from paretorch.core.solvers.gramian import is_zero_combination
from paretorch.core.solvers.minimum_norm import Solution


def dual_cone_balance(
    evidence: Evidence, preference: Preference, project: Callable[[Tensor, Tensor], Solution]
) -> Balance:
    """The projection as weights; zero weights where it vanishes.

    Args:
        evidence: with a Gramian.
        preference: by task name or in the declared order; None: equal.
        project: (T,) weights from the (T, T) Gramian and the (T,) preference of the present tasks.
    """
    gramian = evidence.needed("gramian")
    preferred = on_simplex(preference, evidence.tasks, evidence.present)
    weights, converged = project(gramian, preferred)
    if is_zero_combination(gramian, weights, evidence.resolution):
        return Balance(weights.new_zeros(len(weights)), Status.STATIONARY)
    return Balance(weights, Status.SOLVED if converged else Status.NOT_CONVERGED)
