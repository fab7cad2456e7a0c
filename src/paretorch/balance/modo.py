"""Multi-objective gradient with double sampling (Chen, Fernando, Ying & Chen, NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from paretorch.balance.parts.ranges import above, at_least
from paretorch.balance.parts.simplex_weights import of_present, put_back
from paretorch.core.contract import Balance, Evidence, Method, Need
from paretorch.core.search_space import Range, SearchSpace
from paretorch.core.solvers.minimum_norm import project_on_simplex


class MoDoState(NamedTuple):
    """``weights`` (all,): w on the simplex."""

    weights: Tensor


@dataclass(frozen=True)
class MoDo(Method[MoDoState]):
    r"""One small step of the weights of the common descent direction, from two batches; the third is descended.

    .. math:: w \leftarrow \mathrm{Proj}_{\text{simplex}} \big( w - \gamma (J_1 J_2^T + \rho I) w \big), \qquad d = J_3^T w

    Inner products of gradients on one batch are too large by the noise they share; between two batches they are not. The
    weights move by the squared length of the gradients: this method is not of degree one in them.

    Args:
        gamma: step of the weights, above 0.
        rho: regularization of the weights, at least 0.

    References:
        Chen, Fernando, Ying & Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and
        Conflict-Avoidance", NeurIPS 2023, Algorithm 1.
    """

    gamma: float = 1e-3
    rho: float = 0.1
    needs = Need.GRAMIAN
    homogeneous = False
    batches = 3
    features = False
    search_space: ClassVar[SearchSpace] = {"gamma": Range(1e-5, 1.0, log=True), "rho": Range(0.0, 1.0)}

    def __post_init__(self) -> None:
        above("gamma", self.gamma)
        at_least("rho", self.rho)

    def init(self, tasks: tuple[str, ...], like: Tensor) -> MoDoState:
        return MoDoState(like.new_full((len(tasks),), 1 / len(tasks)))

    def gain(self, tasks: int) -> float:
        return 1.0

    def balance(self, evidence: Evidence, state: MoDoState) -> tuple[Balance, MoDoState]:
        weights = of_present(state.weights, evidence.present)
        slope = evidence.needed("cross") @ weights + self.rho * weights
        weights = project_on_simplex(weights - self.gamma * slope)
        return Balance(weights), MoDoState(put_back(state.weights, evidence.present, weights))
