"""What methods share that project on the cone of directions which conflict with no task."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.method.preference import Preference, check_tasks, checked, on_simplex
from paretorch.core.solvers.gramian import is_zero_combination
from paretorch.core.solvers.minimum_norm import Solution


@dataclass(frozen=True)
class DualConeMethod(Method[None]):
    """A method with a preference that answers with a projection on the dual cone; subclasses say of what.

    Args:
        preference: by task name or in the declared order; even by default. Scaled to sum to one.
    """

    preference: Preference = None
    needs = Need.GRAMIAN

    def __post_init__(self) -> None:
        checked(self.preference)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> None:
        check_tasks(self.preference, tasks)

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: None) -> tuple[Balance, None]:
        gramian = evidence.needed("gramian")
        preferred = on_simplex(self.preference, evidence.tasks, evidence.present)
        weights, converged = self.projected(gramian, preferred)
        if is_zero_combination(gramian, weights, evidence.resolution):
            return Balance(weights.new_zeros(len(weights)), Status.STATIONARY), state
        return Balance(weights, Status.SOLVED if converged else Status.NOT_CONVERGED), state

    def projected(self, gramian: Tensor, preferred: Tensor) -> Solution:
        """(T,) weights, from (T, T) inner products and the (T,) preference of the present tasks."""
        raise TypeError(f"{type(self).__name__} does not say what it projects")
